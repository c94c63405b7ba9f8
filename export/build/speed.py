"""The speed of the engine that serves a bundle here, without a server, for report.json. pipeline.py calls `speed`."""

from __future__ import annotations

import time
from typing import Any

from export.build.graph import example
from export.build.sizes import Sizes
from export.families.spec import Signature
from runtime.backends.base import Engine

BATCHES = (1, 8, 64)
TIMED_S = 0.2


def speed(engine: Engine, signature: Signature, sizes: Sizes) -> dict[str, Any]:
    """The times that the search for sizes measured; for samples, the best time of a few batches, measured here."""
    device = {"backend": engine.backend, "device": engine.device, "executed": engine.precision}
    return {**device, **(sizes.speed or {"batches": _batches(engine, signature)})}


def _batches(engine: Engine, signature: Signature) -> list[dict[str, float]]:
    rows = []
    for batch in (size for size in BATCHES if size <= engine.max_batch):
        tensors = example(signature, batch=batch)
        inputs = {spec.name: tensor.numpy() for spec, tensor in zip(signature.inputs, tensors, strict=True)}
        engine.run(inputs)
        best, spent = float("inf"), 0.0
        while spent < TIMED_S:
            started = time.perf_counter()
            engine.run(inputs)
            took = time.perf_counter() - started
            best, spent = min(best, took), spent + took
        rows.append({"batch": batch, "ms": round(best * 1e3, 3), "samples_per_s": round(batch / best, 1)})
    return rows
