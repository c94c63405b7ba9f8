"""The backends: the libraries that can run a bundle's graph, in the order in which `auto` tries them.

A backend is a module `<name>_backend.py` with the names of `Backend`, and a row of PREFERENCE for each kind of device it
runs on. Nothing else lists backends. The server and the evaluation call `open_engine`; the build also asks which targets
there are, compiles engines for them, and asks for the native precisions.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

from runtime.backends.base import Engine
from runtime.backends.precisions import is_allowed
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable
from runtime.manifest import EngineFile, Manifest
from runtime.tensors import Precision

# (backend, device), best first: a GPU through any library is faster than the CPU.
PREFERENCE = (
    ("tensorrt", "cuda"),
    ("onnxruntime", "cuda"),
    ("openvino", "CPU"),
    ("onnxruntime", "CPU"),
)
NAMES = tuple(dict.fromkeys(name for name, _ in PREFERENCE))


class Backend(Protocol):
    """What a backend's module offers. Importing the module imports no engine library.

    NAME: as on the command line. PACKAGES: what pip installs for it, the usual one first. TARGETS: what
    `export.build --target` calls the engines that it runs.
    """

    NAME: str
    PACKAGES: tuple[str, ...]
    TARGETS: tuple[str, ...]

    def unavailable(self, bundle: Bundle, device: str | None) -> str | None:
        """Why the backend cannot run this bundle on `device` (None: the first it has), or None where it can."""

    def open_engine(
        self, bundle: Bundle, device: str | None, *, min_precision: Precision | None = None
    ) -> Engine:
        """Load the bundle. Raises BackendUnavailable with the reason of `unavailable`, or EngineError."""

    def native_precisions(self, device: str | None = None) -> tuple[Precision, ...]:
        """The precisions in which graphs run without emulation on `device`, fastest first; none where nothing runs."""

    def cannot_make(self, target: str) -> str | None:
        """Why this machine cannot make engines for `target`, one of TARGETS, or None where it can."""

    def compile_engine(self, target: str, onnx: Path, manifest: Manifest) -> tuple[bytes, EngineFile] | None:
        """Compile the graph for `target`: the file's content and its entry for the manifest.

        None where the backend runs the graph as it is. Raises BackendUnavailable or EngineError.
        """


def load(name: str) -> Backend:
    """The backend called `name`."""
    if name not in NAMES:
        raise BackendUnavailable(f"backend: got {name!r}, expected one of {', '.join(NAMES)} or auto")
    return cast(Backend, importlib.import_module(f"{__name__}.{name}_backend"))


def open_engine(
    bundle: Bundle,
    backend: str = "auto",
    device: str | None = None,
    *,
    min_precision: Precision | None = None,
) -> tuple[Engine, str]:
    """Load `bundle` on the first backend that can run it here, or on the one named.

    device: "CPU", "cuda:0", …; None takes the fastest that there is.
    min_precision: the lowest precision that the engine may compute in; None for the bundle's own.
    Returns the engine and a sentence that says which it is and why. Raises BackendUnavailable with every reason.
    """
    reasons: dict[str, None] = {}  # in order, each once
    for name, place in _candidates(backend, device):
        module = load(name)
        reason = module.unavailable(bundle, place)
        if reason is None:
            engine = module.open_engine(bundle, place, min_precision=min_precision)
            return engine, _why(engine, reasons, named=backend != "auto")
        reasons[f"{name}: {reason}"] = None
    raise BackendUnavailable(f"{bundle.manifest.name} cannot run here; " + "; ".join(reasons))


def native_precisions(names: Iterable[str] = NAMES) -> tuple[Precision, ...]:
    """The precisions of the first of the backends `names` that can run on this machine, fastest first; or none."""
    rows = ((name, device) for name, device in PREFERENCE if name in names)
    return next(filter(None, (load(name).native_precisions(device) for name, device in rows)), ())


def _candidates(backend: str, device: str | None) -> list[tuple[str, str | None]]:
    if backend != "auto":
        return [(backend, device)]
    if device is None:
        return list(PREFERENCE)
    kind = device.partition(":")[0].lower()
    fitting = [name for name, place in PREFERENCE if place.lower() == kind]
    return [(name, device) for name in fitting or NAMES]  # a device of no kind: each says which it has


def _why(engine: Engine, reasons: Iterable[str], *, named: bool) -> str:
    sentence = f"{engine.manifest.name} runs on {engine.backend} ({engine.device}) in {engine.precision}"
    precision = engine.manifest.precision
    if not is_allowed(engine.precision, precision):
        sentence += f" (the bundle is {precision}; --min-precision allows less)"
    elif engine.precision != precision:
        sentence += f" (the bundle is {precision}, which this device does not run faster)"
    if named:
        return f"{sentence}: asked for"
    failures = "; ".join(reasons)
    return f"{sentence}: first that can" + (f" ({failures})" if failures else "")
