"""Jobs for the scheduler: the items of one request, what goes into the engine for each, and where its outputs go.

runtime/tiling makes them of pictures and runtime/sample_work.py of latents; the server submits them to the scheduler of
the model's device, build and evaluation run them where they are (`run_inline`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from runtime.stopwatch import Stopwatch
from runtime.tensors import Array


class Runner(Protocol):
    """What a scheduler needs of an engine: `run` takes and gives arrays whose first axis is the batch."""

    @property
    def max_batch(self) -> int: ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


@dataclass(frozen=True)
class Item:
    """A tile, a whole picture or a sample. shape: items of equal shape can share a batch; pixels: what it costs."""

    shape: Hashable
    pixels: int


class Flow:
    """A flow of fair queuing: the jobs of one request share it, and get one request's turns.

    clock_px: pixels that they were served together, on the scheduler's clock.
    """

    def __init__(self) -> None:
        self.clock_px = 0.0


class Job:
    """The items of one request, or of one part of it.

    inputs(i): the graph's inputs for item i, without the batch axis; called when the item's turn has come, and once
        more where its batch failed and the item runs alone.
    deliver(i, outputs): gets the graph's outputs for item i, without the batch axis; called once an item, from any
        thread.
    deadline_s: on the scheduler's clock; past it the remaining items are dropped.
    flow: shared by the jobs of one request; None where this job is all of it.
    done: ends with None, Cancelled, DeadlineExceeded or the error that ended the job. Cancelling it cancels the job.
    """

    def __init__(
        self,
        engine: Runner,
        items: list[Item],
        *,
        inputs: Callable[[int], dict[str, Array]],
        deliver: Callable[[int, dict[str, Array]], None],
        deadline_s: float | None = None,
        flow: Flow | None = None,
    ) -> None:
        self.engine, self.items, self.inputs, self.deliver = engine, items, inputs, deliver
        self.deadline_s = deadline_s
        self.done: Future[None] = Future()
        self.stopwatch = Stopwatch()  # the request's own, once it is submitted with one
        # The scheduler's own, guarded by its lock.
        self.next_item = 0
        self.delivered = 0
        self.flow = flow or Flow()
        self.settled = False


def run_inline(job: Job) -> None:
    """Run the items of a job one after the other on the calling thread, without a scheduler. Leaves `done` alone."""
    for index in range(len(job.items)):
        inputs = {name: array[None] for name, array in job.inputs(index).items()}
        outputs = job.engine.run(inputs)
        job.deliver(index, {name: array[0] for name, array in outputs.items()})
