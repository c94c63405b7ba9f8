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
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from runtime.errors import Cancelled, DeadlineExceeded
from runtime.healing import HealingEngine, OpenEngine
from runtime.jobs import BatchItem, Failure, Job, Runner
from runtime.replicas import describe
from runtime.scheduling import retries
from runtime.scheduling.fair_queue import FairQueue
from runtime.scheduling.runs import Run, Slot, hang_limit_s
from runtime.scheduling.stats import Meter, Stats
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array

__all__ = ["Scheduler", "Stats"]

# `close` waits so long for batches that run.
CLOSE_S = 30.0


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
        self._clock, self._watch_every_s = clock, watch_every_s
        self._changed = threading.Condition()
        self._queue = FairQueue()
        self._meter = Meter()
        self._closed = threading.Event()
        self._deliverers = ThreadPoolExecutor(deliverers, "deliver")
        self._undelivered = threading.Semaphore(deliverers)
        self._unfinished = Counter[
            Runner
        ]()  # batches that were taken and are not delivered, queued again or ended
        self._slots: list[Slot] = []
        self.grow(slots)
        self._watchdog = threading.Thread(target=self._watch_always, name="watchdog", daemon=True)
        self._watchdog.start()

    def submit(self, job: Job, stopwatch: Stopwatch | None = None) -> None:
        """Queue a job's items. A job without items is done at once.

        stopwatch: the request's; gets "queue" while items wait for a device and "inference" while any is running.
        Raises Cancelled after `close`, NotReady if no device can run the job's engine now.
        """
        if not job.items:
            self._end(job, None)
            return
        if (error := retries.hopeless(BatchItem(job, 0))) is not None:
            raise error
        if isinstance(job.engine, HealingEngine):
            job.engine.listen(self._engine_changed)
        with self._changed:
            if self._closed.is_set():
                raise Cancelled("the scheduler is closed")
            job.stopwatch = stopwatch or job.stopwatch
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

    @property
    def slots(self) -> int:
        """Batches that run at once, over all devices."""
        return len(self._slots)

    def grow(self, slots: int | Mapping[str, int]) -> None:
        """Run at least so many batches at once from now on: a model with more slots is served on the device."""
        by_device = slots if isinstance(slots, Mapping) else {"device": slots}
        with self._changed:
            for device, count in by_device.items():
                first = sum(slot.device == device for slot in self._slots)
                for number in range(first, count):
                    self._slots.append(Slot(device, number))
                    self._start_worker(self._slots[-1])
                    self._undelivered.release()

    def drain(self, engine: Runner) -> None:
        """Wait until no job of an engine waits or runs, and forget its speed. No more may be submitted for it."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._unfinished[engine] and all(job.engine is not engine for job in self._queue)
            )
            del self._unfinished[engine]
            self._meter.forget(engine)

    def stats(self) -> Stats:
        """The counts so far."""
        with self._changed:
            return self._meter.stats(jobs_waiting=len(self._queue))

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Cancel the waiting jobs, finish the running batches and end the threads.

        timeout_s: to wait for running batches. Later ones are given up: their jobs are cancelled, their threads left.
        """
        with self._changed:
            self._closed.set()
            waiting = list(self._queue)
            self._changed.notify_all()
        for job in waiting:
            self._end(job, Cancelled("the server is shutting down"))
        end_s = time.monotonic() + timeout_s
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.join(max(0.0, end_s - time.monotonic()))
        with self._changed:
            hung = [self._abandon(slot, slot.run) for slot in self._slots if slot.run is not None]
        for run in hung:
            for item in run.batch:
                self._end(item.job, Cancelled("the server is shutting down, and the device hangs"))
        self._watchdog.join()
        self._deliverers.shutdown()

    # Called on the worker threads.

    def _start_worker(self, slot: Slot) -> None:
        slot.worker = threading.Thread(target=self._work, args=(slot,), name=f"device-{slot}", daemon=True)
        slot.worker.start()

    def _work(self, slot: Slot) -> None:
        while True:
            self._undelivered.acquire()
            if (run := self._next_run(slot)) is None:
                return
            outputs: list[dict[str, Array]] = []
            error: Exception | None = None
            problem = None
            try:
                outputs = run.compute()
            except Exception as failure:
                error = failure
                if len(run.batch) == 1 and isinstance(run.runner, OpenEngine):
                    problem = run.runner.problem()
            with self._changed:
                if run.abandoned:
                    return
                slot.run = None
                self._leave(slot, run)
                if error is None:
                    self._count(run)
            if error is None:
                self._deliverers.submit(self._deliver, run.batch, outputs)
            else:
                self._undelivered.release()
                self._failed(run, error, problem)
            self._finished(run.engine)

    def _next_run(self, slot: Slot) -> Run | None:
        """Wait for items that the slot's device can run, and put the next batch on it; None after `close`."""
        while True:
            with self._changed:
                taken = None
                while not self._closed.is_set():
                    expired = self._queue.expired(self._clock())
                    if expired or (
                        taken := self._queue.take(lambda engine, way: _on(slot.device, engine, way))
                    ):
                        break
                    self._changed.wait()
                if taken is not None:
                    self._unfinished[taken[1][0].job.engine] += 1
                elif self._closed.is_set():
                    return None
            self._expire(expired)
            if taken is None:
                continue
            runner, batch = taken
            engine = batch[0].job.engine
            inputs = self._inputs(batch)
            if not batch:
                self._finished(engine)
                continue
            with self._changed:
                pixels = sum(item.pixels for item in batch)
                limit_s = hang_limit_s(runner, self._meter.seconds_per_px(runner), pixels)
                run = slot.run = Run(runner, batch, self._clock(), limit_s, inputs)
                for stopwatch in run.stopwatches:
                    stopwatch.begin("inference")
                return run

    def _inputs(self, batch: list[BatchItem]) -> list[dict[str, Array]]:
        """The inputs of each item. Items whose callback raises are removed, and their jobs end with that error."""
        inputs: list[dict[str, Array]] = []
        ready: list[BatchItem] = []
        for item in batch:
            try:
                inputs.append(item.job.inputs(item.index))
                ready.append(item)
            except Exception as error:
                self._end(item.job, error)
        batch[:] = ready
        return inputs

    def _leave(self, slot: Slot, run: Run) -> None:
        """The batch is on its device no longer. Called with the lock held."""
        for stopwatch in run.stopwatches:
            stopwatch.end("inference")
        self._meter.was_busy(str(slot), self._clock() - run.started_s)

    def _count(self, run: Run) -> None:
        """Count a batch that succeeded. Called with the lock held."""
        seconds = self._clock() - run.started_s
        engines = {run.engine, run.runner}
        self._meter.ran(engines, items=len(run.batch), pixels=run.pixels, seconds=seconds)
        run.note()
        for item in run.batch:
            if item.failures and isinstance(run.runner, OpenEngine):
                sentence, step = retries.recovered(item, run.runner)
                item.job.stopwatch.ran.recovered[sentence] = None
                self._meter.retries[step] += 1

    def _finished(self, engine: Runner) -> None:
        with self._changed:
            self._unfinished[engine] -= 1
            self._changed.notify_all()

    def _failed(self, run: Run, error: Exception, problem: str | None, *, hung: bool = False) -> None:
        """Queue the items of a batch that failed again, or end their jobs.

        problem: what is wrong with the engine, if it failed on a good input too, or hung.
        """
        alone, runner = len(run.batch) == 1, run.runner
        if alone and not isinstance(runner, OpenEngine):
            self._end(run.batch[0].job, error)
            return
        way, device, name = 0, "", ""
        if isinstance(runner, OpenEngine):
            way, device, name = runner.way, runner.replica.device, f"{runner}: "
            if problem is not None:
                runner.condemn(problem)
        failure = Failure(name + describe(error), device, way, alone, hung)
        for item in run.batch:
            try:
                following = retries.again(item, failure, condemned=problem is not None)
            except Exception as end:
                self._end(item.job, end)
            else:
                self._queue_again(following)

    def _queue_again(self, item: BatchItem) -> None:
        if (error := retries.hopeless(item)) is not None:
            self._end(item.job, error)
            return
        with self._changed:
            if not item.job.settled and not self._closed.is_set():
                self._queue.retry(item)
                self._changed.notify_all()
                return
        self._end(item.job, Cancelled("the server is shutting down"))

    # The watchdog, and what becomes of waiting jobs when an engine changes.

    def _watch_always(self) -> None:
        last_s = time.monotonic()
        while not self._closed.wait(self._watch_every_s):
            now_s = time.monotonic()
            # Not more than it meant to wait: a process that was stopped for a while has not hung.
            self.watch(min(now_s - last_s, 2 * self._watch_every_s))
            last_s = now_s

    def watch(self, passed_s: float) -> None:
        """Give up the batches that hang, and end the jobs whose deadline has passed. passed_s: since the last time."""
        with self._changed:
            expired = self._queue.expired(self._clock())
            hung = []
            for slot in self._slots:
                if (run := slot.run) is None or run.limit_s is None:
                    continue
                run.watched_s += passed_s
                if run.watched_s > run.limit_s:
                    hung.append(self._abandon(slot, run))
                    self._meter.slots_replaced += 1
                    self._start_worker(slot)
        self._expire(expired)
        for run in hung:
            problem = f"a batch took longer than {run.limit_s:.0f} s and was given up"
            self._failed(run, TimeoutError(problem), problem, hung=True)
            self._finished(run.engine)

    def _abandon(self, slot: Slot, run: Run) -> Run:
        """Take a batch off its slot whose thread does not come back. Called with the lock held."""
        run.abandoned, slot.run = True, None
        self._leave(slot, run)
        self._undelivered.release()
        return run

    def _engine_changed(self, engine: HealingEngine) -> None:
        """Wake the workers, and end the jobs that no engine can run any more."""
        with self._changed:
            waiting = [job for job in self._queue if job.engine is engine]
            items = [item for job in waiting for item in (*job.retries, BatchItem(job, job.next_item))]
            self._changed.notify_all()
        for item in items:
            if item.failures or item.index < len(item.job.items):
                error = retries.hopeless(item)
                if error is not None:
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
            self._meter.items_dropped += self._queue.remove(job)
            self._changed.notify_all()
        if not job.done.set_running_or_notify_cancel():
            return  # the caller cancelled the future
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)


def _on(device: str, engine: Runner, way: int) -> Runner | None:
    """The engine that runs a job's items on a device; None if none can now."""
    return engine.on(device, way) if isinstance(engine, HealingEngine) else engine
