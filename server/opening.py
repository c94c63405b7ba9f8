"""Opens a bundle for serving: checks it, loads its engine and warms it up. Everything that serves a bundle comes through
here: server/models.py at the start, and server/reloading.py while the server runs.
"""

from __future__ import annotations

from runtime import backends, tasks
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BundleError
from runtime.manifest import Manifest
from runtime.tensors import Precision

RGB = 3


def open_warm(
    bundle: Bundle,
    *,
    backend: str = "auto",
    device: str | None = None,
    min_precision: Precision | None = None,
) -> tuple[Engine, str]:
    """Load a bundle into an engine and warm it up. It takes from a second to minutes, and blocks.

    backend, device, min_precision: as for `runtime.backends.open_engine`.
    Returns the warm engine and a sentence for the log that says which backend runs it and why.
    Raises BundleError, BackendUnavailable or EngineError if the bundle cannot be served here.
    """
    check_channels(bundle.manifest)
    engine, reason = backends.open_engine(bundle, backend, device, min_precision=min_precision)
    try:
        engine.warm_up()
    except BaseException:
        engine.close()
        raise
    return engine, reason


def check_channels(manifest: Manifest) -> None:
    """Raises BundleError if a model that takes pictures has other than 3 channels, since pictures are decoded to RGB."""
    if tasks.of(manifest).source != "picture":
        return
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.shape[1] != RGB:
            raise BundleError(
                f"{manifest.name}: {spec.name!r} has {spec.shape[1]} channels, expected {RGB} (RGB) to serve it"
            )
