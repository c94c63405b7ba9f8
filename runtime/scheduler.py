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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from runtime.errors import Cancelled, DeadlineExceeded
from runtime.jobs import Job, Runner
from runtime.scheduling.fair_queue import BatchItem, FairQueue
from runtime.scheduling.stats import Meter, Stats
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array

__all__ = ["Scheduler", "Stats"]


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
        self._queue = FairQueue()
        self._meter = Meter()
        self._closed = False
        self._running = Counter[Runner]()  # batches on the device, by engine
        self._deliverers = ThreadPoolExecutor(deliverers, "deliver")
        self._undelivered = threading.Semaphore(slots + deliverers)
        self._workers: list[threading.Thread] = []
        self._add_workers(slots)

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
            self._queue.add(job)
            self._changed.notify_all()
        job.done.add_done_callback(lambda done: self.cancel(job) if done.cancelled() else None)

    def cancel(self, job: Job) -> None:
        """Cancel a job. Its waiting items are dropped; items on the device finish, but are not delivered."""
        self._end(job, Cancelled("the request was cancelled; its remaining items were dropped"))

    def seconds_per_px(self, engine: Runner) -> float | None:
        """Running average of this engine's device time per pixel, in seconds; None before its first batch."""
        with self._changed:
            return self._meter.seconds_per_px(engine)

    def grow(self, slots: int) -> None:
        """Run at least `slots` batches at once from now on: a model with more slots is served on the device."""
        with self._changed:
            more = max(0, slots - len(self._workers))
            self._add_workers(more)
        for _ in range(more):
            self._undelivered.release()

    def drain(self, engine: Runner) -> None:
        """Wait until no job of an engine waits or runs, and forget its speed. No more may be submitted for it."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._running[engine] and all(job.engine is not engine for job in self._queue)
            )
            del self._running[engine]
            self._meter.forget(engine)

    def stats(self) -> Stats:
        """The counts so far."""
        with self._changed:
            return self._meter.stats(jobs_waiting=len(self._queue))

    def close(self) -> None:
        """Cancel the waiting jobs, finish the running batches and end the threads."""
        with self._changed:
            self._closed = True
            waiting = list(self._queue)
            self._changed.notify_all()
        for job in waiting:
            self._end(job, Cancelled("the server is shutting down"))
        for worker in self._workers:
            worker.join()
        self._deliverers.shutdown()

    def _add_workers(self, count: int) -> None:
        first = len(self._workers)
        for number in range(first, first + count):
            worker = threading.Thread(target=self._work, name=f"device-{number}", daemon=True)
            self._workers.append(worker)
            worker.start()

    # Called on the worker threads.

    def _work(self) -> None:
        while True:
            self._undelivered.acquire()
            batch = self._next_batch()
            if batch is None:
                return
            start_s, engine = self._clock(), batch[0].job.engine
            outputs = self._run(batch)
            with self._changed:
                self._meter.busy_s += self._clock() - start_s
                self._running[engine] -= 1
                self._changed.notify_all()
            if outputs:
                self._deliverers.submit(self._deliver, batch, outputs)
            else:
                self._undelivered.release()

    def _next_batch(self) -> list[BatchItem] | None:
        """Wait for items and return the next batch; None after `close`."""
        while True:
            expired: list[Job] = []
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return None
                expired = self._queue.expired(self._clock())
                if not expired:
                    batch = self._queue.take()
                    self._running[batch[0].job.engine] += 1
                    return batch
            for job in expired:
                self._end(job, DeadlineExceeded("the deadline passed; the remaining items were dropped"))

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
        pixels = sum(item.pixels for item in batch)
        with self._changed:
            self._meter.ran(batch[0].job.engine, items=len(batch), pixels=pixels, seconds=seconds)

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

    def _end(self, job: Job, error: BaseException | None) -> None:
        """Complete a job's `done`, once, and drop its remaining items."""
        with self._changed:
            if job.settled:
                return
            job.settled = True
            if job in self._queue:
                self._queue.remove(job)
                self._changed.notify_all()
            self._meter.items_dropped += len(job.items) - job.next_item
            job.next_item = len(job.items)
        if not job.done.set_running_or_notify_cancel():
            return  # the caller cancelled the future
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)
