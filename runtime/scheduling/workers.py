"""Workers: the threads that run batches, one for each slot of each device, and the watchdog that gives up those that hang.

runtime/scheduler.py owns one and passes it the queue, the lock of both, and what to do with a batch that has ended.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from runtime.backends.base import Engine
from runtime.healing import HealingEngine, OpenEngine
from runtime.jobs import BatchItem, Job, Runner
from runtime.scheduling import retries
from runtime.scheduling.fair_queue import FairQueue
from runtime.scheduling.runs import Run, Slot, hang_limit_s
from runtime.scheduling.stats import Meter
from runtime.tensors import Array


class Workers:
    """The worker threads of a scheduler.

    changed: the scheduler's lock; notified when a worker may find something to do. queue, meter: the scheduler's, guarded
    by it. spare: batches that may wait for delivery beyond one for each slot.
    succeeded(batch, outputs): takes the outputs; `delivered` says when they are out of memory. failed(run, error, problem):
    what becomes of the items; problem: what is wrong with the engine, if it failed on a good input too, or hung.
    end(job, error): ends a job whose input cannot be had. expire(jobs): ends those whose deadline has passed.
    """

    def __init__(
        self,
        changed: threading.Condition,
        queue: FairQueue,
        meter: Meter,
        *,
        spare: int,
        clock: Callable[[], float],
        watch_every_s: float,
        succeeded: Callable[[list[BatchItem], list[dict[str, Array]]], None],
        failed: Callable[[Run, Exception, str | None], None],
        end: Callable[[Job, Exception], None],
        expire: Callable[[list[Job]], None],
    ) -> None:
        self._changed, self._queue, self._meter = changed, queue, meter
        self._clock, self._watch_every_s = clock, watch_every_s
        self._succeeded, self._failed, self._end, self._expire = succeeded, failed, end, expire
        self._closed = threading.Event()
        self._undelivered = threading.Semaphore(spare)
        # Batches that were taken and are not yet delivered, queued again or ended: by the jobs' engine, and by what runs it.
        self._unfinished, self._running = Counter[Runner](), Counter[Runner]()
        self._slots: list[Slot] = []
        self._watchdog = threading.Thread(target=self._watch_always, name="watchdog", daemon=True)
        self._watchdog.start()

    def grow(self, slots: Mapping[str, int]) -> None:
        """Run at least so many batches at once from now on, by device. Called with the lock held."""
        for device, count in slots.items():
            first = sum(slot.device == device for slot in self._slots)
            for number in range(first, count):
                self._slots.append(Slot(device, number))
                self._start_worker(self._slots[-1])
                self._undelivered.release()

    @property
    def slots(self) -> int:
        """Batches that run at once, over all devices."""
        return len(self._slots)

    def has_work_of(self, engine: Runner) -> bool:
        """Whether a batch of this engine runs, or has failed and is about to be queued again. Called with the lock held."""
        return self._unfinished[engine] > 0

    def delivered(self) -> None:
        """The outputs of a batch are out of memory."""
        self._undelivered.release()

    def stop(self) -> None:
        """Take no further batch. Called with the lock held."""
        self._closed.set()
        self._changed.notify_all()

    def join(self, timeout_s: float) -> list[Run]:
        """Wait for the threads after `stop`. Returns the batches that do not end, and are given up."""
        end_s = time.monotonic() + timeout_s
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.join(max(0.0, end_s - time.monotonic()))
        self._watchdog.join()
        with self._changed:
            return [self._abandon(slot, slot.run) for slot in self._slots if slot.run is not None]

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
                self._succeeded(run.batch, outputs)
            else:
                self._undelivered.release()
                self._give_back(run, error, problem)
            self._finished(run.engine, run.runner)

    def _next_run(self, slot: Slot) -> Run | None:
        """Wait for items that the slot's device can run, and put the next batch on it; None after `close`."""
        while True:
            with self._changed:
                taken = None
                while not self._closed.is_set():
                    expired = self._queue.expired(self._clock())
                    if expired or (taken := self._queue.take(partial(self._place, slot.device))):
                        break
                    self._changed.wait()
                if taken is not None:
                    self._unfinished[taken[1][0].job.engine] += 1
                    self._running[taken[0]] += 1
                elif self._closed.is_set():
                    return None
            self._expire(expired)
            if taken is None:
                continue
            runner, batch = taken
            engine = batch[0].job.engine
            inputs = self._inputs(batch)
            if not batch:
                self._finished(engine, runner)
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
                inputs.append(item.job.inputs(item.number))
                ready.append(item)
            except Exception as error:
                self._end(item.job, error)
        batch[:] = ready
        return inputs

    def _place(self, device: str, engine: Runner, way: int) -> Runner | None:
        """The engine that runs a job's items on a device; None if none can now. Called with the lock held.

        An engine gets no more batches than it has slots: the others wait in the queue, in the order of their turns.
        """
        runner = engine.on(device, way) if isinstance(engine, HealingEngine) else engine
        opened = runner.engine if isinstance(runner, OpenEngine) else runner
        is_full = isinstance(opened, Engine) and runner is not None and self._running[runner] >= opened.slots
        return None if is_full else runner

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

    def _give_back(self, run: Run, error: Exception, problem: str | None) -> None:
        """Have the items of a batch that failed queued again. Whatever happens, the thread goes on and no job waits."""
        try:
            self._failed(run, error, problem)
        except Exception as unexpected:
            for item in run.batch:
                self._end(item.job, unexpected)

    def _finished(self, engine: Runner, runner: Runner) -> None:
        with self._changed:
            self._unfinished -= Counter([engine])  # drops what is zero, so that no closed engine is kept
            self._running -= Counter([runner])
            self._changed.notify_all()

    # Called on the watchdog's thread.

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
            self._give_back(run, TimeoutError(problem), problem)
            self._finished(run.engine, run.runner)

    def _abandon(self, slot: Slot, run: Run) -> Run:
        """Take a batch off its slot whose thread does not come back. Called with the lock held."""
        run.abandoned, slot.run = True, None
        self._leave(slot, run)
        self._undelivered.release()
        return run
