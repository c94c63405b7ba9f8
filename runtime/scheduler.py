"""The scheduler of one device: batches items of different requests, for all models on that device.

    submit(job) ──► waiting jobs, each with its virtual time in pixels served
                        │  a free worker picks the item with the earliest virtual finish time
                        ▼  and fills the batch with items of the same engine and shape
                    engine.run(batch)                  (one worker thread per slot of the device)
                        ▼
                    job.deliver(item, outputs)         (other threads, so that stitching costs no device time)

The server has one scheduler per device. It submits the jobs of each request (runtime/jobs.py) and waits for their `done`.

Work-conserving: a free worker starts on waiting items at once; while all workers are busy, items gather into batches, so
there is no batching delay to tune. Fair by pixels: weighted fair queuing (Demers et al. 1989) picks the item that would
finish first if all requests ran side by side. A thumbnail is therefore next however many posters wait, and a flood of
thumbnails does not starve a poster. Memory is bounded: workers pause while too many outputs wait for delivery.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from runtime.errors import Cancelled, DeadlineExceeded
from runtime.jobs import Job, Runner
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array

# Decay of the running average of seconds per pixel, per batch.
DECAY = 0.9


@dataclass(frozen=True)
class Stats:
    """Counts since the start. items_dropped: items whose job ended before they ran. jobs_waiting: now.

    busy_s: seconds of all batches, failed ones included; with several slots, more than one a second. batch_sizes: how
    many batches had 1, 2, … items.
    """

    batches: int
    items: int
    pixels: int
    items_dropped: int
    jobs_waiting: int
    busy_s: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)

    @property
    def mean_batch(self) -> float:
        """Items per batch; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


@dataclass(frozen=True)
class BatchItem:
    """Item number `index` of a job, in a batch."""

    job: Job
    index: int

    @property
    def pixels(self) -> int:
        """The item's cost."""
        return self.job.items[self.index].pixels


class Scheduler:
    """Runs jobs on one device. Thread-safe.

    slots: batches on the device at once, one worker thread each. deliverers: threads that call `Job.deliver`.
    clock: in seconds; deadlines are on this clock.
    """

    def __init__(
        self, *, slots: int = 1, deliverers: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        # Virtual time: pixels that each waiting job would have been served by now if all ran side by side. Before and
        # after the latest batch.
        self._virtual_px = self._next_virtual_px = 0.0
        self._closed = False
        self._batches = self._items = self._pixels = self._dropped = 0
        self._busy_s = 0.0
        self._batch_sizes = Counter[int]()
        # Engine → decayed sums of its batches' seconds and pixels.
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

        stopwatch: the request's; gets "queue" while items wait for the device and "inference" while any is running.
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
        """Cancel a job. Its waiting items are dropped; items on the device finish, but are not delivered."""
        self._end(job, Cancelled("the request was cancelled; its remaining items were dropped"))

    def seconds_per_px(self, engine: Runner) -> float | None:
        """Running average of this engine's device time per pixel, in seconds; None before its first batch."""
        with self._changed:
            seconds, pixels = self._spent.get(engine, (0.0, 0.0))
            return seconds / pixels if pixels else None

    def stats(self) -> Stats:
        """The counts so far."""
        with self._changed:
            return Stats(
                self._batches,
                self._items,
                self._pixels,
                self._dropped,
                len(self._jobs),
                self._busy_s,
                dict(self._batch_sizes),
            )

    def close(self) -> None:
        """Cancel the waiting jobs, finish the running batches and end the threads."""
        with self._changed:
            self._closed = True
            waiting = list(self._jobs)
            self._changed.notify_all()
        for job in waiting:
            self._end(job, Cancelled("the server is shutting down"))
        for worker in self._workers:
            worker.join()
        self._deliverers.shutdown()

    # Called on the worker threads.

    def _work(self) -> None:
        while True:
            self._undelivered.acquire()
            batch = self._next_batch()
            if batch is None:
                return
            start_s = self._clock()
            outputs = self._run(batch)
            with self._changed:
                self._busy_s += self._clock() - start_s
            if outputs:
                self._deliverers.submit(self._deliver, batch, outputs)
            else:
                self._undelivered.release()

    def _next_batch(self) -> list[BatchItem] | None:
        """Wait for items and return the next batch; None after `close`."""
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

    def _take(self) -> list[BatchItem]:
        """Choose the items of the next batch by weighted fair queuing. Called with the lock held and a job waiting."""
        batch: list[BatchItem] = []
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
            batch.append(BatchItem(job, job.next_item))
            job.flow.clock_px = _finish_px(job)
            self._next_virtual_px += job.items[job.next_item].pixels / len({job.flow for job in self._jobs})
            job.next_item += 1
            if job.next_item == len(job.items):
                self._forget(job)
        return batch

    def _run(self, batch: list[BatchItem]) -> list[dict[str, Array] | None]:
        """Run a batch. Returns the outputs of each item, None for an item that failed; [] if nothing succeeded.

        Items whose `inputs` callback raises are removed from `batch`, and their jobs end with that error.
        """
        engine = batch[0].job.engine
        inputs: list[dict[str, Array]] = []
        ready: list[BatchItem] = []
        for item in batch:
            try:
                inputs.append(item.job.inputs(item.index))
                ready.append(item)
            except Exception as error:
                self._end(item.job, error)
        batch[:] = ready
        if not batch:
            return []
        start = self._clock()
        stopwatches = {item.job.stopwatch for item in batch}
        for stopwatch in stopwatches:
            stopwatch.begin("inference")
        try:
            stacked = {name: np.stack([arrays[name] for arrays in inputs]) for name in inputs[0]}
            outputs = engine.run(stacked)
            rows = [{name: array[row] for name, array in outputs.items()} for row in range(len(batch))]
        except Exception as error:
            if len(batch) > 1:
                # Retry each item alone, so that a bad item fails only its own job.
                return [(self._run([item]) or [None])[0] for item in batch]
            for item in batch:
                self._end(item.job, error)
            return []
        finally:
            for stopwatch in stopwatches:
                stopwatch.end("inference")
        self._count(batch, self._clock() - start)
        return list(rows)

    def _count(self, batch: list[BatchItem], seconds: float) -> None:
        engine = batch[0].job.engine
        pixels = max(1, sum(item.pixels for item in batch))
        with self._changed:
            self._batches += 1
            self._items += len(batch)
            self._batch_sizes[len(batch)] += 1
            self._pixels += pixels
            # Sums, not a mean of rates: the rate of a one-pixel picture says nothing about other requests.
            seconds_before, pixels_before = self._spent.get(engine, (0.0, 0.0))
            self._spent[engine] = (DECAY * seconds_before + seconds, DECAY * pixels_before + pixels)

    # Called on the delivering threads and wherever a job ends.

    def _deliver(self, batch: list[BatchItem], outputs: list[dict[str, Array] | None]) -> None:
        try:
            for item, output in zip(batch, outputs, strict=True):
                if output is not None and not item.job.settled:
                    self._deliver_item(item, output)
        finally:
            self._undelivered.release()

    def _deliver_item(self, item: BatchItem, output: dict[str, Array]) -> None:
        job = item.job
        try:
            job.deliver(item.index, output)
        except Exception as error:
            self._end(job, error)
            return
        with self._changed:
            job.delivered += 1
            finished = job.delivered == len(job.items)
        if finished:
            self._end(job, None)

    def _forget(self, job: Job) -> None:
        """Remove a job that has no waiting items left. Called with the lock held."""
        self._jobs.remove(job)
        job.stopwatch.end("queue")

    def _end(self, job: Job, error: BaseException | None) -> None:
        """Complete a job's `done`, once, and drop its remaining items."""
        with self._changed:
            if job.settled:
                return
            job.settled = True
            if job in self._jobs:
                self._forget(job)
            self._dropped += len(job.items) - job.next_item
            job.next_item = len(job.items)
        if not job.done.set_running_or_notify_cancel():
            return  # the caller cancelled the future
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)


def _finish_px(job: Job) -> float:
    """The job's virtual time after its next item."""
    return job.flow.clock_px + job.items[job.next_item].pixels
