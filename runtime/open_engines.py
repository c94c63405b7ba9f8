"""OpenEngine: an engine that is open as one of the ways to run a model, and what is known of engines that fail.

runtime/replicas.py opens them and replaces those that fail; the scheduler's workers run them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from runtime.backends.base import Engine
from runtime.backends.shapes import warm_up_shapes
from runtime.errors import EngineError
from runtime.tensors import Array, zero_inputs

Step = Literal["fresh engine", "wider precision", "next backend"]
# A TensorRT plan takes minutes to build.
MAX_OPENING_S = 600.0


@dataclass(frozen=True)
class Way:
    """A way to run a model on a device.

    label: for the answer's Timing, e.g. "float32 instead of float16". step: for metrics. open: returns an engine that is
    not warm; slow; raises if this way cannot run the model. elsewhere: whether it runs on another device than the
    replica's; it is taken only if no other replica of the model is left. limit_s: an engine that has not opened and warmed
    up by then is given up.
    """

    label: str
    step: Step
    open: Callable[[], Engine]
    elsewhere: bool = False
    limit_s: float = MAX_OPENING_S


@dataclass(frozen=True)
class Event:
    """Something that happened to a model's engines, for the log and for the server's health.

    what: in words, e.g. "engine failed". reason: why. serving: whether the model can still be served, on any device.
    """

    model: str
    device: str
    what: str
    reason: str
    serving: bool = True


class OpenEngine:
    """An open engine of a replica: what a scheduler's worker runs.

    device: the replica's. way: its index among the replica's. label: what running on it after a failure is called, in the
    answer's Timing. step: as of Way. condemn: called by `condemn`, with itself and the reason.
    seconds_per_px: of the warm-up's smallest run; 0 if unknown.
    """

    def __init__(
        self,
        engine: Engine,
        device: str,
        condemn: Callable[[OpenEngine, str], None],
        *,
        way: int = 0,
        label: str = "",
        step: str = "",
    ) -> None:
        self.engine, self.device, self._condemn = engine, device, condemn
        self.way, self.label, self.step = way, label, step
        self._probe = good_inputs(engine)
        self.seconds_per_px = 0.0

    @property
    def max_batch(self) -> int:
        """The longest batch that `run` takes."""
        return self.engine.max_batch

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch, as `Engine.run`."""
        return self.engine.run(inputs)

    def problem(self) -> str | None:
        """What goes wrong when the engine runs an input that is known to be good; None if nothing does."""
        try:
            self.engine.run(self._probe)
        except Exception as error:
            return describe(error)
        return None

    def condemn(self, reason: str) -> None:
        """Say that the engine failed or hangs. The replica replaces it; saying it again does nothing."""
        self._condemn(self, reason)

    def __str__(self) -> str:
        return f"{self.engine.backend} ({self.engine.device}) in {self.engine.precision}"


def good_inputs(engine: Engine) -> dict[str, Array]:
    """The smallest inputs of the warm-up: known to be good."""
    batch, side_px = min(warm_up_shapes(engine.manifest, engine.batch_sizes))
    return zero_inputs(engine.manifest.inputs, batch=batch, height=side_px, width=side_px)


def seconds_per_px(engine: Engine, clock: Callable[[], float] = time.monotonic) -> float:
    """Time one run of a warm engine, by the pixels of an item (runtime/jobs.py). Raises EngineError if it fails."""
    inputs = good_inputs(engine)
    start_s = clock()
    outputs = engine.run(inputs)
    pictures = [array for array in (*inputs.values(), *outputs.values()) if array.ndim == 4]
    pixels = len(pictures[0]) * pictures[0].shape[2] * pictures[0].shape[3] if pictures else 1
    return (clock() - start_s) / pixels


def describe(error: BaseException) -> str:
    """An error in one sentence."""
    if isinstance(error, EngineError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def close_quietly(engine: Engine) -> None:
    """Close an engine whose errors are of no interest any more: it failed, or is not needed."""
    with contextlib.suppress(Exception):
        engine.close()
