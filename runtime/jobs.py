"""Jobs for the scheduler: a sequence of items (tiles, pictures or samples), with callbacks for their inputs and outputs.

runtime/tiling makes jobs of pictures, runtime/sample_work.py makes jobs of latents. The server submits them to the
scheduler of the model's device; build and evaluation run them on the calling thread with `run_inline`. Results arrive
through `Job.deliver`, and `Job.done` completes when the job has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from runtime.shares import Account
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array


class Runner(Protocol):
    """The part of an engine that a scheduler uses."""

    @property
    def max_batch(self) -> int:
        """The longest batch that `run` takes."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch: named inputs [N, …] → named outputs [N, …]."""
        ...


@dataclass(frozen=True)
class Item:
    """A tile, a whole picture or a sample.

    shape: items of equal shape can share a batch. pixels: the cost of the item, in input pixels (samples: output pixels).
    """

    shape: Hashable
    pixels: int


class Flow:
    """A flow in the sense of fair queuing: the jobs of one request, which share its turns.

    account: whom they are charged to. clock_px: the flow's virtual time among the account's flows, in pixels served.
    served_px: pixels that were taken to the device. Both are written by the scheduler. skipped_px: that needed no device.
    """

    def __init__(self, account: Account = Account()) -> None:  # noqa: B008 - immutable
        self.account = account
        self.clock_px = 0.0
        self.served_px = self.skipped_px = 0

    @property
    def done_px(self) -> int:
        """Pixels that the device has no more work with."""
        return self.served_px + self.skipped_px


class Job:
    """The items of one request, or of one band of it.

    items: any sequence. A large picture's computes its items when it is asked for them (runtime/tiling/runs.py).
    inputs(i): returns the graph's inputs for item i, without the batch axis. Called when the item is put into a batch,
        and again if that batch failed and the item is retried alone.
    deliver(i, outputs): receives the graph's outputs for item i, without the batch axis. Called once per item, from any
        thread.
    deadline_s: on the scheduler's clock; after it the remaining items are dropped.
    flow: shared by the jobs of one request; None if this job is the whole request.
    done: completes with None, or with Cancelled, DeadlineExceeded or the error that ended the job. Cancelling it cancels
        the job.
    """

    def __init__(
        self,
        engine: Runner,
        items: Sequence[Item],
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
        self.retries: list[BatchItem] = []
        self.delivered = 0
        self.flow = flow or Flow()
        self.settled = False


@dataclass(frozen=True)
class Failure:
    """What went wrong with an item. device, way: that it ran on. alone: whether it was the only item of its batch.

    hung: whether the batch hung.
    """

    reason: str
    device: str
    way: int
    alone: bool
    hung: bool = False


class BatchItem(NamedTuple):
    """Item `number` of a job, on its way through the scheduler.

    way: the first of its engine's ways that it may run on (runtime/healing.py). failures: what went wrong with it so far;
    an item that has failed runs alone.
    """

    job: Job
    number: int
    way: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def pixels(self) -> int:
        """The item's cost."""
        return self.job.items[self.number].pixels


def run_inline(job: Job) -> None:
    """Run the items of a job one after the other on the calling thread, without a scheduler. Does not complete `done`."""
    for index in range(len(job.items)):
        inputs = {name: array[None] for name, array in job.inputs(index).items()}
        outputs = job.engine.run(inputs)
        job.deliver(index, {name: array[0] for name, array in outputs.items()})
