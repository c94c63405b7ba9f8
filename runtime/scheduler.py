"""One scheduler a device: items of many requests, of all models, become batches.

    submit(job) ──► jobs, each with a clock that counts the pixels it was served
                        │  a worker is free: the job whose next item would be done first gives it,
                        ▼  others fill the batch with items of the same engine and shape
                    engine.run(batch)                  (one worker thread a slot of the device)
                        ▼
                    job.deliver(item, outputs)         (a few other threads: stitching, not the device's time)

Work-conserving: a free worker takes what is waiting, at once; while all are busy, items gather into batches. There is
no delay to tune. Fair by pixels: weighted fair queuing (Demers et al. 1989): the item is next that would finish first
if all requests ran side by side, so a thumbnail is next however many posters wait, and a flood of them starves no poster.
Memory is bounded: outputs that wait for delivery stop the workers before they pile up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.errors import Cancelled, DeadlineExceeded
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array

# What a batch counts, in the running estimate of seconds per pixel, once another has run.
FADING = 0.9


class Runner(Protocol):
    """What the scheduler needs of an engine."""

    @property
    def max_batch(self) -> int: ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


@dataclass(frozen=True)
class Item:
    """One tile or one sample. shape: items of one shape can share a batch; pixels: what it costs."""

    shape: Hashable
    pixels: int


class Flow:
    """Jobs that share one turn: the parts of one request. clock_px counts the pixels they were served together."""

    def __init__(self) -> None:
        self.clock_px = 0.0


class Job:
    """The items of one request, or of one part of it.

    inputs(i): the graph's inputs for item i, without the batch axis; called when the item's turn has come, and once
        more where its batch failed and the item runs alone.
    deliver(i, outputs): takes the graph's outputs for item i, without the batch axis; called once an item, from
        several threads.
    deadline_s: on the scheduler's clock; past it the remaining items are dropped.
    flow: shared by the parts of one request, so that they get one request's turns; None for one of its own.
    Cancelling `done` cancels the job. It ends with None, Cancelled, DeadlineExceeded or what failed raised.
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


@dataclass(frozen=True)
class Stats:
    """Counts since the start. mean_batch: items a batch; items_dropped: items of jobs that ended before their turn."""

    batches: int
    items: int
    pixels: int
    items_dropped: int
    jobs_waiting: int

    @property
    def mean_batch(self) -> float:
        return self.items / self.batches if self.batches else 0.0


@dataclass(frozen=True)
class Taken:
    job: Job
    index: int


class Scheduler:
    """Runs jobs on one device.

    slots: batches in flight at once, one thread each. deliverers: threads that take outputs away.
    """

    def __init__(
        self, *, slots: int = 1, deliverers: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        # What each waiting job would have got by now, had they all run side by side; and with the batch now running.
        self._virtual_px = self._next_virtual_px = 0.0
        self._closed = False
        self._batches = self._items = self._pixels = self._dropped = 0
        # Of each engine's batches, the older the less: seconds, and pixels.
        self._spent: dict[Runner, tuple[float, float]] = {}
        self._deliverers = ThreadPoolExecutor(deliverers, "deliver")
        self._undelivered = threading.Semaphore(slots + deliverers)
        self._workers = [
            threading.Thread(target=self._work, name=f"device-{n}", daemon=True) for n in range(slots)
        ]
        for worker in self._workers:
            worker.start()

    def submit(self, job: Job, stopwatch: Stopwatch | None = None) -> None:
        """Queue a job's items. A job without items is done at once. Raises Cancelled after `close`.

        stopwatch: the request's; counts "queue" while items wait for the device, "inference" while any is on it.
        """
        if not job.items:
            self._end(job, None)
            return
        with self._changed:
            if self._closed:
                raise Cancelled("the scheduler is closed")
            job.stopwatch = stopwatch or job.stopwatch
            job.stopwatch.begin("queue")
            job.flow.clock_px = max(job.flow.clock_px, self._virtual_px)
            self._jobs.append(job)
            self._changed.notify_all()
        job.done.add_done_callback(lambda done: self.cancel(job) if done.cancelled() else None)

    def cancel(self, job: Job) -> None:
        """Drop a job's remaining items before the next batch. Items on the device finish, and are not delivered."""
        self._end(job, Cancelled("the request was cancelled; its remaining items were dropped"))

    def seconds_per_px(self, engine: Runner) -> float | None:
        """A running estimate of this engine's time on the device for one pixel; None before its first batch."""
        with self._changed:
            seconds, pixels = self._spent.get(engine, (0.0, 0.0))
            return seconds / pixels if pixels else None

    def stats(self) -> Stats:
        with self._changed:
            return Stats(self._batches, self._items, self._pixels, self._dropped, len(self._jobs))

    def close(self) -> None:
        """Drop what waits, finish what runs, and end the threads."""
        with self._changed:
            self._closed = True
            waiting = list(self._jobs)
            self._changed.notify_all()
        for job in waiting:
            self._end(job, Cancelled("the server is shutting down"))
        for worker in self._workers:
            worker.join()
        self._deliverers.shutdown()

    # The device's threads.

    def _work(self) -> None:
        while True:
            self._undelivered.acquire()
            batch = self._next_batch()
            if batch is None:
                return
            outputs = self._run(batch)
            if outputs:
                self._deliverers.submit(self._deliver, batch, outputs)
            else:
                self._undelivered.release()

    def _next_batch(self) -> list[Taken] | None:
        """Wait for items, and take a batch of them; None once closed."""
        while True:
            expired: list[Job] = []
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return None
                now = self._clock()
                expired = [job for job in self._jobs if job.deadline_s is not None and job.deadline_s <= now]
                if not expired:
                    return self._take()
            for job in expired:
                self._end(job, DeadlineExceeded("the deadline passed; the remaining items were dropped"))

    def _take(self) -> list[Taken]:
        """The items of the next batch, in turns by pixels. Called with the lock held and a job waiting."""
        batch: list[Taken] = []
        self._virtual_px = self._next_virtual_px
        first = min(self._jobs, key=_finish_px)
        engine, shape = first.engine, first.items[first.next_item].shape
        while len(batch) < engine.max_batch:
            ready = [
                job for job in self._jobs if job.engine is engine and job.items[job.next_item].shape == shape
            ]
            if not ready:
                break
            job = min(ready, key=_finish_px)
            batch.append(Taken(job, job.next_item))
            job.flow.clock_px = _finish_px(job)
            self._next_virtual_px += job.items[job.next_item].pixels / len({one.flow for one in self._jobs})
            job.next_item += 1
            if job.next_item == len(job.items):
                self._forget(job)
        return batch

    def _run(self, batch: list[Taken]) -> list[dict[str, Array] | None]:
        """One output an item; None where its job failed. Empty where the whole batch did."""
        engine = batch[0].job.engine
        inputs: list[dict[str, Array]] = []
        ready: list[Taken] = []
        for taken in batch:
            try:
                inputs.append(taken.job.inputs(taken.index))
                ready.append(taken)
            except Exception as error:
                self._end(taken.job, error)
        batch[:] = ready
        if not batch:
            return []
        start = self._clock()
        stopwatches = {taken.job.stopwatch for taken in batch}
        for stopwatch in stopwatches:
            stopwatch.begin("inference")
        try:
            stacked = {name: np.stack([one[name] for one in inputs]) for name in inputs[0]}
            outputs = engine.run(stacked)
            rows = [{name: array[row] for name, array in outputs.items()} for row in range(len(batch))]
        except Exception as error:
            if len(batch) > 1:
                # One bad item must not fail its neighbours.
                return [(self._run([taken]) or [None])[0] for taken in batch]
            for taken in batch:
                self._end(taken.job, error)
            return []
        finally:
            for stopwatch in stopwatches:
                stopwatch.end("inference")
        self._count(batch, self._clock() - start)
        return list(rows)

    def _count(self, batch: list[Taken], seconds: float) -> None:
        engine = batch[0].job.engine
        pixels = max(1, sum(taken.job.items[taken.index].pixels for taken in batch))
        with self._changed:
            self._batches += 1
            self._items += len(batch)
            self._pixels += pixels
            # Sums, not a mean of rates: a picture of one pixel takes long for its pixels, and says little.
            seconds_before, pixels_before = self._spent.get(engine, (0.0, 0.0))
            self._spent[engine] = (FADING * seconds_before + seconds, FADING * pixels_before + pixels)

    # The delivering threads, and the ends of jobs.

    def _deliver(self, batch: list[Taken], outputs: list[dict[str, Array] | None]) -> None:
        try:
            for taken, output in zip(batch, outputs, strict=True):
                if output is not None and not taken.job.settled:
                    self._deliver_one(taken, output)
        finally:
            self._undelivered.release()

    def _deliver_one(self, taken: Taken, output: dict[str, Array]) -> None:
        job = taken.job
        try:
            job.deliver(taken.index, output)
        except Exception as error:
            self._end(job, error)
            return
        with self._changed:
            job.delivered += 1
            finished = job.delivered == len(job.items)
        if finished:
            self._end(job, None)

    def _forget(self, job: Job) -> None:
        """A job none of whose items wait any more. Called with the lock held."""
        self._jobs.remove(job)
        job.stopwatch.end("queue")

    def _end(self, job: Job, error: BaseException | None) -> None:
        """Settle a job, once, and forget the items it has left."""
        with self._changed:
            if job.settled:
                return
            job.settled = True
            if job in self._jobs:
                self._forget(job)
            self._dropped += len(job.items) - job.next_item
            job.next_item = len(job.items)
        if not job.done.set_running_or_notify_cancel():
            return  # whoever held the future cancelled it
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)


def _finish_px(job: Job) -> float:
    """The job's clock once its next item has run."""
    return job.flow.clock_px + job.items[job.next_item].pixels
