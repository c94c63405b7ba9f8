"""The engines that can run a bundle, in the order of preference. A backend is one file with three names in it:

NAME, `unavailable(bundle, device)` (why it cannot run this bundle here, or None) and `open_engine(bundle, device)`.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from runtime.backends.base import Engine
from runtime.backends.precisions import is_allowed
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable
from runtime.tensors import Precision

# In the order of preference. Each is the module `<name>_backend`, imported when it is asked for.
NAMES = ("tensorrt", "openvino", "onnxruntime")


class Backend(Protocol):
    """What a backend's module offers."""

    NAME: str

    def unavailable(self, bundle: Bundle, device: str | None) -> str | None: ...

    def open_engine(
        self, bundle: Bundle, device: str | None, *, min_precision: Precision | None = None
    ) -> Engine: ...


def load(name: str) -> Backend:
    """The backend called `name`. Importing it imports no engine library."""
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

    device: "CPU", "cuda:0", …; None takes the backend's first.
    min_precision: the lowest precision that the engine may compute in; None for the bundle's own.
    Returns the engine and a sentence that says which it is and why. Raises BackendUnavailable with every reason.
    """
    names = NAMES if backend == "auto" else (backend,)
    reasons: list[str] = []
    for name in names:
        module = load(name)
        reason = module.unavailable(bundle, device)
        if reason is not None:
            reasons.append(f"{name}: {reason}")
            continue
        engine = module.open_engine(bundle, device, min_precision=min_precision)
        return engine, _why(engine, reasons, asked=backend != "auto")
    raise BackendUnavailable(f"{bundle.manifest.name} cannot run here; " + "; ".join(reasons))


def _why(engine: Engine, reasons: list[str], *, asked: bool) -> str:
    chosen = f"{engine.manifest.name} runs on {engine.backend} ({engine.device}) in {engine.precision}"
    precision = engine.manifest.precision
    if not is_allowed(engine.precision, precision):
        chosen += f" (the bundle is {precision}; --min-precision allows less)"
    elif engine.precision != precision:
        chosen += f" (the bundle is {precision}, which this device does not run faster)"
    if asked:
        return f"{chosen}: asked for"
    return f"{chosen}: first that can" + (f" ({'; '.join(reasons)})" if reasons else "")
