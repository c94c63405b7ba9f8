"""Slot and Run: the place of one batch on a device, and the batch that is on it.

Each slot has a worker thread (runtime/scheduler.py). If its batch hangs, the scheduler abandons the run: the slot gets
another thread, and what the old one still brings is ignored.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from runtime.backends.base import Engine
from runtime.healing import OpenEngine
from runtime.jobs import BatchItem, Runner
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array

# A batch that takes so many times as long as estimated hangs, but none hangs before the least.
HANG_FACTOR, LEAST_HANG_S = 20.0, 5.0


@dataclass(eq=False)
class Run:
    """A batch on a device. limit_s: after which it hangs, None for never. watched_s: how long the watchdog has seen it.

    inputs: one dict for each item of the batch. abandoned: whether the batch was given up.
    """

    runner: Runner
    batch: list[BatchItem]
    started_s: float
    limit_s: float | None
    inputs: list[dict[str, Array]] = field(default_factory=list)
    watched_s: float = 0.0
    abandoned: bool = False

    @property
    def engine(self) -> Runner:
        """The engine of the batch's jobs, of which `runner` is one way."""
        return self.batch[0].job.engine

    @property
    def pixels(self) -> int:
        """The batch's cost."""
        return sum(item.pixels for item in self.batch)

    @property
    def stopwatches(self) -> set[Stopwatch]:
        """Those of the batch's requests."""
        return {item.job.stopwatch for item in self.batch}

    def compute(self) -> list[dict[str, Array]]:
        """Run the batch. Returns the outputs of each item; raises whatever the engine raises."""
        stacked = {name: np.stack([arrays[name] for arrays in self.inputs]) for name in self.inputs[0]}
        outputs = self.runner.run(stacked)
        return [{name: array[row] for name, array in outputs.items()} for row in range(len(self.batch))]

    def note(self) -> None:
        """Note on the requests' stopwatches which engine ran them. Called with the scheduler's lock held."""
        runner = self.runner
        engine = runner.engine if isinstance(runner, OpenEngine) else runner
        for stopwatch in self.stopwatches if isinstance(engine, Engine) else ():
            assert isinstance(engine, Engine)
            stopwatch.ran.note(engine.backend, engine.device, engine.precision)


@dataclass(eq=False)
class Slot:
    """One of the batches that a device runs at once, and its worker thread."""

    device: str
    number: int
    worker: threading.Thread | None = None
    run: Run | None = None

    def __str__(self) -> str:
        return f"{self.device}/{self.number}"


def hang_limit_s(runner: Runner, seconds_per_px: float | None, pixels: int) -> float | None:
    """Seconds after which a batch hangs. None while nothing is known about the engine's speed.

    seconds_per_px: learned from its batches; None before the first, and then the warm-up's counts.
    """
    rates = [seconds_per_px or 0.0, runner.seconds_per_px if isinstance(runner, OpenEngine) else 0.0]
    # The slower of the two: the average may come from batches that cost less per pixel than this one.
    return max(LEAST_HANG_S, HANG_FACTOR * max(rates) * pixels) if any(rates) else None
