"""The scheduler: batches items of different requests, for all models on a device, or on several devices alike.

    submit(job) ──► waiting jobs, each with its virtual time in pixels served       (runtime/scheduling/fair_queue.py)
                        │  a free worker picks the item with the earliest virtual finish time that its device can run
                        ▼  and fills the batch with items of the same engine and shape
                    engine.run(batch)                  (one worker thread per slot of each device)
                        │  failed or hung: its items run again  (runtime/scheduling/retries.py, runtime/healing.py)
                        ▼
                    job.deliver(item, outputs)         (other threads, so that stitching costs no device time)

The server submits the jobs of each request (runtime/jobs.py) and waits for their `done`.

Work-conserving: a free worker starts on waiting items at once; while all workers are busy, items gather into batches, so
there is no batching delay to tune. The devices share one queue: the one that is free takes what is next, so they may
differ in speed. Memory is bounded: workers pause while too many outputs wait for delivery. A watchdog gives up a batch
that hangs: its slot gets another thread, and the hanging one is ignored.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from runtime.errors import Cancelled, DeadlineExceeded
from runtime.healing import HealingEngine, OpenEngine
from runtime.jobs import BatchItem, Failure, Job, Runner
from runtime.open_engines import describe
from runtime.scheduling import retries
from runtime.scheduling.fair_queue import FairQueue
from runtime.scheduling.runs import Run
from runtime.scheduling.stats import Meter, Stats
from runtime.scheduling.workers import Workers
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array

__all__ = ["Scheduler", "Stats"]

# `close` waits so long for batches that run.
CLOSE_S = 15.0


class Scheduler:
    """Runs jobs on one device or several. Thread-safe.

    slots: batches on the device at once, one worker thread each; for several devices, by device.
    deliverers: threads that call `Job.deliver`. clock: in seconds; deadlines are on this clock.
    watch_every_s: of the watchdog.
    """

    def __init__(
        self,
        *,
        slots: int | Mapping[str, int] = 1,
        deliverers: int = 2,
        clock: Callable[[], float] = time.monotonic,
        watch_every_s: float = 1.0,
    ) -> None:
        self._changed = threading.Condition()
        self._queue = FairQueue()
        self._meter = Meter(clock)
        self._closed = False
        self._deliverers = ThreadPoolExecutor(deliverers, "deliver")
        self._workers = Workers(
            self._changed,
            self._queue,
            self._meter,
            spare=deliverers,
            clock=clock,
            watch_every_s=watch_every_s,
            succeeded=self._succeeded,
            failed=self._failed,
            end=self._end,
            expire=self._expire,
        )
        self.grow(slots)

    def submit(self, job: Job, stopwatch: Stopwatch | None = None) -> None:
        """Queue a job's items. A job without items is done at once.

        stopwatch: the request's; gets "queue" while items wait for a device and "inference" while any is running.
        Raises Cancelled after `close`, NotReady if no device can run the job's engine now.
        """
        if not job.items:
            self._end(job, None)
            return
        if isinstance(job.engine, HealingEngine):
            job.engine.listen(self._engine_changed)
        if (error := retries.hopeless(BatchItem(job, 0))) is not None:
            raise error
        with self._changed:
            if self._closed:
                raise Cancelled("the scheduler is closed")
            job.stopwatch = stopwatch or job.stopwatch
            self._queue.add(job)
            self._changed.notify_all()
        job.done.add_done_callback(lambda done: self.cancel(job) if done.cancelled() else None)
        # The engine may have become unavailable before the job was in the queue.
        self._end_if_hopeless(BatchItem(job, 0))

    def cancel(self, job: Job) -> None:
        """Cancel a job. Its waiting items are dropped; items on the device finish, but are not delivered."""
        self._end(job, Cancelled("the request was cancelled; its remaining items were dropped"))

    def seconds_per_px(self, engine: Runner, item_px: int | None = None) -> float | None:
        """Estimated seconds of this engine's device for each pixel; None if nothing is known.

        item_px: of items of this size; None for all.
        """
        with self._changed:
            return self._meter.seconds_per_px(engine, item_px)

    def expect(self, engine: Runner, seconds_per_px: float) -> None:
        """Take the warm-up's speed for an engine's until its first batch has run."""
        with self._changed:
            self._meter.expect(engine, seconds_per_px)

    @property
    def slots(self) -> int:
        """Batches that run at once, over all devices."""
        return self._workers.slots

    def grow(self, slots: int | Mapping[str, int]) -> None:
        """Run at least so many batches at once from now on: a model with more slots is served on the device."""
        with self._changed:
            self._workers.grow(slots if isinstance(slots, Mapping) else {"device": slots})

    def drain(self, engine: Runner) -> None:
        """Wait until no job of an engine waits or runs, and forget its speed. No more may be submitted for it."""

        def is_idle() -> bool:
            waits = any(job.engine is engine for job in self._queue)
            return not waits and not self._workers.has_work_of(engine)

        with self._changed:
            self._changed.wait_for(is_idle)
            self._meter.forget(engine)

    def watch(self, passed_s: float) -> None:
        """What the watchdog does now and then: give up the batches that hang, and end the jobs past their deadline.

        passed_s: seconds since the last time.
        """
        self._workers.watch(passed_s)

    def stats(self) -> Stats:
        """The counts so far."""
        with self._changed:
            return self._meter.stats(jobs_waiting=len(self._queue))

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Cancel the waiting jobs, finish the running batches and end the threads.

        timeout_s: to wait for running batches. Later ones are given up: their jobs are cancelled, their threads left.
        """
        with self._changed:
            self._closed = True
            waiting = list(self._queue)
            self._workers.stop()
        for job in waiting:
            self._end(job, Cancelled("the server is shutting down"))
        for run in self._workers.join(timeout_s):
            for item in run.batch:
                self._end(item.job, Cancelled("the server is shutting down, and the device hangs"))
        self._deliverers.shutdown()

    # Called on the workers' threads.

    def _succeeded(self, batch: list[BatchItem], outputs: list[dict[str, Array]]) -> None:
        self._deliverers.submit(self._deliver, batch, outputs)

    def _failed(self, run: Run, error: Exception, problem: str | None) -> None:
        """Queue the items of a batch that failed again, or end their jobs.

        problem: what is wrong with the engine, if it failed on a good input too, or hung.
        """
        alone, runner = len(run.batch) == 1, run.runner
        if alone and not isinstance(runner, OpenEngine):
            self._end(run.batch[0].job, error)
            return
        way, device, name = 0, "", ""
        if isinstance(runner, OpenEngine):
            way, device, name = runner.way, runner.device, f"{runner}: "
            if problem is not None:
                runner.condemn(problem)
        failure = Failure(name + describe(error), device, way, alone, run.abandoned)
        for item in run.batch:
            try:
                following = retries.again(item, failure, condemned=problem is not None)
            except Exception as end:
                self._end(item.job, end)
            else:
                self._queue_again(following)

    def _queue_again(self, item: BatchItem) -> None:
        with self._changed:
            is_over = item.job.settled or self._closed
            if not is_over:
                self._queue.retry(item)
                self._changed.notify_all()
        if is_over:
            self._end(item.job, Cancelled("the server is shutting down"))
        else:
            self._end_if_hopeless(item)

    def _engine_changed(self, engine: HealingEngine) -> None:
        """Wake the workers, and end the jobs that no engine can run any more."""
        with self._changed:
            waiting = [job for job in self._queue if job.engine is engine]
            items = [item for job in waiting for item in (*job.retries, BatchItem(job, 0))]
            self._changed.notify_all()
        for item in items:
            self._end_if_hopeless(item)

    def _end_if_hopeless(self, item: BatchItem) -> None:
        if (error := retries.hopeless(item)) is not None:
            self._end(item.job, error)

    def _expire(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._end(job, DeadlineExceeded("the deadline passed; the remaining items were dropped"))

    # Called on the delivering threads and wherever a job ends.

    def _deliver(self, batch: list[BatchItem], outputs: list[dict[str, Array]]) -> None:
        try:
            for item, output in zip(batch, outputs, strict=True):
                if not item.job.settled:
                    self._deliver_item(item, output)
        finally:
            self._workers.delivered()

    def _deliver_item(self, item: BatchItem, output: dict[str, Array]) -> None:
        job = item.job
        try:
            job.deliver(item.number, output)
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
            self._meter.items_dropped += self._queue.remove(job)
            self._changed.notify_all()
        if not job.done.set_running_or_notify_cancel():
            return  # the caller cancelled the future
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)
