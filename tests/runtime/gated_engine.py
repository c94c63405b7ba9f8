"""What the tests of the scheduler share: engines that keep what they saw, and jobs.

Nothing sleeps. `Gated` is an engine that says which batch it holds and waits to be let go, so a test decides what is queued at
the moment when a worker is free.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from runtime.jobs import Flow, Item, Job
from runtime.scheduler import Scheduler

# Of a wait for something that must not come: too short a wait can hide a fault, not make one.
UNTIL_NOTHING_S = 0.3
TIMEOUT_S = 30  # of a wait that ends at once unless the code is wrong
TILE_PX, THUMBNAIL_PX = 192 * 192, 64 * 64
Batch = list[tuple[int, int]]  # (job, item)


class Echo:
    """An engine that doubles what it gets, and keeps the batches it saw."""

    def __init__(self, max_batch: int = 1) -> None:
        self.max_batch = max_batch
        self.batches: list[Batch] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.batches.append([(int(row[0]), int(row[1])) for row in inputs["x"]])
        return {"y": inputs["x"] * 2}


class Gated(Echo):
    """An engine that holds each batch until `let_go`."""

    def __init__(self, max_batch: int = 1) -> None:
        super().__init__(max_batch)
        self._held: queue.Queue[Batch] = queue.Queue()
        self._permits = threading.Semaphore(0)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = super().run(inputs)
        self._held.put(self.batches[-1])
        assert self._permits.acquire(timeout=TIMEOUT_S)
        return outputs

    def held(self) -> Batch:
        """The next batch that a worker brings. It stays on the device until `let_go`."""
        return self._held.get(timeout=TIMEOUT_S)

    def nothing_comes(self) -> bool:
        """No worker brings a batch. A worker that may bring one does so within microseconds of the last."""
        try:
            self._held.get(timeout=UNTIL_NOTHING_S)
        except queue.Empty:
            return True
        return False

    def let_go(self, batches: int = 1) -> None:
        self._permits.release(batches)

    def step(self) -> Batch:
        batch = self.held()
        self.let_go()
        return batch


@contextmanager
def scheduling(engine: Echo, **options: Any) -> Iterator[Scheduler]:
    """A scheduler that is closed even where the test fails while the engine holds a batch."""
    scheduler = Scheduler(**options)
    try:
        yield scheduler
    finally:
        if isinstance(engine, Gated):
            engine.let_go(100_000)
        scheduler.close()


def job(
    engine: Any,
    number: int = 0,
    items: int = 1,
    *,
    pixels: int = TILE_PX,
    shape: object = "tile",
    deliver: Callable[[int, dict[str, Any]], None] | None = None,
    inputs: Callable[[int], dict[str, Any]] | None = None,
    deadline_s: float | None = None,
    flow: Flow | None = None,
) -> Job:
    return Job(
        engine,
        [Item(shape, pixels)] * items,
        inputs=inputs or (lambda index: {"x": np.array([number, index], np.float32)}),
        deliver=deliver or (lambda index, outputs: None),
        deadline_s=deadline_s,
        flow=flow,
    )


def served_by(scheduler: Scheduler, engine: Any) -> None:
    """Proof that the scheduler still works: one more request is answered."""
    last = job(engine, 99)
    scheduler.submit(last)
    assert last.done.result(TIMEOUT_S) is None
