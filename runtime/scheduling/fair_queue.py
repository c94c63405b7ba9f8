"""FairQueue: the waiting jobs of a scheduler, and which of their items form the next batch.

Fair by pixels: clients take turns (runtime/shares.py), and among the requests of one client, weighted fair queuing (Demers
et al. 1989) picks the item that would finish first if all ran side by side. A thumbnail is therefore next however many
posters wait, a flood of thumbnails does not starve a poster, and one client's flood does not delay another.
runtime/scheduler.py calls it with its lock held; nothing here locks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from runtime.jobs import BatchItem, Flow, Job, Runner
from runtime.shares import Account, Shares

# The engine that would run an item of a job with this engine from this way on; None if none can now.
Place = Callable[[Runner, int], Runner | None]


@dataclass
class VirtualTime:
    """Of one account's flows: pixels that each would have been served by now if all ran side by side.

    px, next_px: before and after the latest batch. jobs_of: how many jobs of each flow wait.
    """

    px: float = 0.0
    next_px: float = 0.0
    jobs_of: Counter[Flow] = field(default_factory=Counter)


class FairQueue:
    """The jobs that have waiting items, with their virtual time."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._shares = Shares()
        self._times: dict[Account, VirtualTime] = {}
        # Virtual time never runs backwards, also for an account that had nothing waiting.
        self._latest_px = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    def add(self, job: Job) -> None:
        """Queue a job with waiting items. A newcomer starts at the current virtual time."""
        time = self._join(job)
        job.flow.clock_px = max(job.flow.clock_px, time.px)

    def retry(self, item: BatchItem) -> None:
        """Queue an item again that was taken but failed. Its request does not pay for it twice."""
        item.job.retries.append(item)
        if item.job not in self._jobs:
            self._join(item.job)

    def remove(self, job: Job) -> int:
        """Drop the waiting items of a job, if it has any. Returns their number."""
        if job in self._jobs:
            self._leave(job)
        dropped = len(job.items) - job.next_item + len(job.retries)
        job.next_item = len(job.items)
        job.retries.clear()
        return dropped

    def expired(self, now_s: float) -> list[Job]:
        """The jobs whose deadline has passed."""
        return [job for job in self._jobs if job.deadline_s is not None and job.deadline_s <= now_s]

    def take(self, place: Place) -> tuple[Runner, list[BatchItem]] | None:
        """Take the items of the next batch out of the queue: of one engine and shape. None if none can run now.

        An item that failed before makes a batch of its own.
        """
        known: dict[tuple[Runner, int], Runner | None] = {}

        def placed(engine: Runner, way: int) -> Runner | None:
            if (engine, way) not in known:
                known[engine, way] = place(engine, way)
            return known[engine, way]

        ready = [item for job in self._jobs if (item := _next_item(job, placed)) is not None]
        if not ready:
            return None
        for time in self._times.values():
            time.px = time.next_px
        first = self._next(ready)
        engine, runner = first.job.engine, placed(first.job.engine, first.way)
        assert runner is not None
        batch = [self._serve(first)]
        most = 1 if first.failures else runner.max_batch
        fitting = (
            {item.job: item for item in ready if item.job.engine is engine and _fits(item, first)}
            if most > 1
            else {}
        )
        while len(batch) < most:
            latest = batch[-1].job
            following = _next_item(latest, placed) if latest in self._jobs else None
            if following is not None and _fits(following, first):
                # It keeps its place, so that the bands of a picture run one after the other.
                fitting[latest] = following
            else:
                fitting.pop(latest, None)
            if not fitting:
                break
            batch.append(self._serve(self._next(fitting.values())))
        self._latest_px = max(self._latest_px, *(time.next_px for time in self._times.values()))
        self._times = {account: time for account, time in self._times.items() if time.jobs_of}
        return runner, batch

    def _join(self, job: Job) -> VirtualTime:
        account = job.flow.account
        time = self._times.setdefault(account, VirtualTime(self._latest_px, self._latest_px))
        time.jobs_of[job.flow] += 1
        self._shares.begin(account)
        self._jobs.append(job)
        job.stopwatch.begin("queue")
        return time

    def _leave(self, job: Job) -> None:
        self._jobs.remove(job)
        job.stopwatch.end("queue")
        self._shares.end(job.flow.account)
        jobs_of = self._times[job.flow.account].jobs_of
        jobs_of[job.flow] -= 1
        if not jobs_of[job.flow]:
            del jobs_of[job.flow]

    def _next(self, items: Iterable[BatchItem]) -> BatchItem:
        """The item whose account is next, and of that account the one of the request that would finish first."""
        places = {
            account: self._shares.place(account) for account, time in self._times.items() if time.jobs_of
        }
        return min(items, key=lambda item: (places[item.job.flow.account], _finish_px(item)))

    def _serve(self, item: BatchItem) -> BatchItem:
        """Take an item out of the queue, and charge its request, unless it was charged when the item was taken first."""
        job, flow = item.job, item.job.flow
        if item.failures:
            job.retries.remove(item)
        else:
            flow.clock_px = _finish_px(item)
            flow.served_px += item.pixels
            time = self._times[flow.account]
            time.next_px += item.pixels / len(time.jobs_of)
            self._shares.serve(flow.account, item.pixels)
            job.next_item += 1
        if job.next_item == len(job.items) and not job.retries:
            self._leave(job)
        return item


def _next_item(job: Job, place: Place) -> BatchItem | None:
    """The item of a job that runs next: one that failed, before the others. None if none can run now."""
    for item in job.retries:
        if place(job.engine, item.way) is not None:
            return item
    if job.next_item < len(job.items) and place(job.engine, 0) is not None:
        return BatchItem(job, job.next_item)
    return None


def _fits(item: BatchItem, first: BatchItem) -> bool:
    """Whether an item can run in the batch of the first one, whose engine it has."""
    return not item.failures and item.job.items[item.number].shape == first.job.items[first.number].shape


def _finish_px(item: BatchItem) -> float:
    """The virtual time of the item's request after it."""
    return item.job.flow.clock_px + (0 if item.failures else item.pixels)
