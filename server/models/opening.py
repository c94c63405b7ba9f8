"""Opens a bundle for serving: checks it, loads its engine and warms it up. Everything that serves a bundle comes through
here: server/models/models.py at the start, and server/models/reloading.py while the server runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime import backends, tasks
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.devices import expand
from runtime.errors import BackendUnavailable, BundleError
from runtime.healing import Event, HealingEngine, Way
from runtime.manifest import Manifest
from runtime.tensors import Precision
from runtime.ways import ways
from server.models.engine_events import log_event

RGB = 3


def open_warm(
    bundle: Bundle,
    *,
    backend: str = "auto",
    device: str | None = None,
    min_precision: Precision | None = None,
    on_event: Callable[[Event], None] = log_event,
) -> tuple[Engine, str]:
    """Load a bundle into an engine that heals, on one device or several, and warm it up. Takes seconds or minutes.

    backend, min_precision: as for `runtime.backends.open_engine`. device: as for `runtime.devices.expand`.
    on_event: called, from any thread, when something happens to the engine later.
    Returns the warm engine and a sentence for the log that says which backend runs it and why.
    Raises BundleError, BackendUnavailable or EngineError if the bundle cannot be served here, on each of the devices.
    """
    check_channels(bundle.manifest)
    engines: dict[str, tuple[Engine, list[Way]]] = {}
    reasons = []
    try:
        for place in expand(device):
            start_s = time.monotonic()
            engine, reason = backends.open_engine(bundle, backend, place, min_precision=min_precision)
            if engine.device in engines:
                engine.close()
                raise BackendUnavailable(
                    f"--device {device}: {place} is {engine.device}, which is named before"
                )
            engines[engine.device] = (engine, [])
            engine.warm_up()
            took_s = time.monotonic() - start_s
            engines[engine.device][1].extend(
                ways(engine, backend=backend, device=device, min_precision=min_precision, opened_in_s=took_s)
            )
            reasons.append(reason)
        healing = HealingEngine(engines, on_event=on_event)
        healing.measure()
    except BaseException:
        for engine, _ in engines.values():
            engine.close()
        raise
    return healing, "; ".join(reasons)


def check_channels(manifest: Manifest) -> None:
    """Raises BundleError if a model that takes pictures has other than 3 channels, since pictures are decoded to RGB."""
    if tasks.of(manifest).source != "picture":
        return
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.shape[1] != RGB:
            raise BundleError(
                f"{manifest.name}: {spec.name!r} has {spec.shape[1]} channels, expected {RGB} (RGB) to serve it"
            )
