"""The backends: the libraries that can run a bundle's graph, in the order in which `auto` tries them.

Server, build, evaluation and benchmarks call `open_engine` and get an Engine. The build also uses `load` to compile
engines for its targets, and `native_precisions` to choose the fastest precision.

To add a backend, write a module `<name>_backend.py` with the attributes of `Backend`, and add a row to PREFERENCE for
each kind of device it runs on. Nothing else lists backends.
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

# (backend, device), best first: a GPU is faster than the CPU with any library.
PREFERENCE = (
    ("tensorrt", "cuda"),
    ("onnxruntime", "cuda"),
    ("openvino", "CPU"),
    ("onnxruntime", "CPU"),
)
NAMES = tuple(dict.fromkeys(name for name, _ in PREFERENCE))


class Backend(Protocol):
    """The attributes of a backend's module. Importing the module imports no engine library.

    NAME: on the command line. PACKAGES: pip packages that it needs, the usual one first. TARGETS: values of
    `export.build --target` for the engines that it runs.
    """

    NAME: str
    PACKAGES: tuple[str, ...]
    TARGETS: tuple[str, ...]

    def unavailable(self, bundle: Bundle, device: str | None) -> str | None:
        """The reason why the backend cannot run this bundle on `device`, or None if it can.

        device: "CPU", "cuda:0", …; None for the backend's first.
        """

    def open_engine(
        self, bundle: Bundle, device: str | None, *, min_precision: Precision | None = None
    ) -> Engine:
        """Load the bundle on `device`. min_precision: as for `open_engine` of this package.

        Raises BackendUnavailable with the reason of `unavailable`, or EngineError.
        """

    def native_precisions(self, device: str | None = None) -> tuple[Precision, ...]:
        """The precisions that run without emulation on `device`, fastest first; () if the backend cannot run there."""

    def cannot_make(self, target: str) -> str | None:
        """The reason why this machine cannot make engines for `target` (one of TARGETS), or None if it can."""

    def compile_engine(self, target: str, onnx: Path, manifest: Manifest) -> tuple[bytes, EngineFile] | None:
        """Compile the graph for `target`. Returns the engine file's content and its entry in the manifest.

        Returns None if the backend needs no compiled engine. Raises BackendUnavailable or EngineError.
        """


def load(name: str) -> Backend:
    """Import the backend called `name`. Raises BackendUnavailable if there is no such backend."""
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
    """Load `bundle` on the named backend or, with "auto", on the first that can run it here.

    device: "CPU", "cuda:0", …; None for the fastest available.
    min_precision: the lowest precision that the engine may compute in; None for the bundle's own.
    Returns the engine and a sentence for the log: which backend, device and precision, and why.
    Raises BackendUnavailable with the reason of every backend tried.
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
    """The native precisions of the first backend in `names` that runs on this machine, fastest first; () if none does."""
    rows = ((name, device) for name, device in PREFERENCE if name in names)
    return next(filter(None, (load(name).native_precisions(device) for name, device in rows)), ())


def _candidates(backend: str, device: str | None) -> list[tuple[str, str | None]]:
    if backend != "auto":
        return [(backend, device)]
    if device is None:
        return list(PREFERENCE)
    kind = device.partition(":")[0].lower()
    fitting = [name for name, place in PREFERENCE if place.lower() == kind]
    return [(name, device) for name in fitting or NAMES]  # unknown device: let each backend say which it has


def _why(engine: Engine, reasons: Iterable[str], *, named: bool) -> str:
    sentence = f"{engine.manifest.name} runs on {engine.backend} ({engine.device}) in {engine.precision}"
    precision = engine.manifest.precision
    if not is_allowed(engine.precision, precision):
        sentence += f" (the bundle is {precision}; --min-precision allows a lower one)"
    elif engine.precision != precision:
        sentence += f" (the bundle is {precision}, which this device does not run faster)"
    if named:
        return f"{sentence}: chosen by name"
    failures = "; ".join(reasons)
    return f"{sentence}: the first backend that can" + (f" ({failures})" if failures else "")
