"""FairQueue: the waiting jobs of a scheduler, and which of their items form the next batch.

Fair by pixels: clients take turns (runtime/shares.py), and among the requests of one client, weighted fair
queuing (Demers et al. 1989) picks the item that would finish first if all ran side by side. A thumbnail is therefore next
however many posters wait, a flood of thumbnails does not starve a poster, and one client's flood does not delay another.
runtime/scheduler.py calls it with its lock held; nothing here locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.jobs import Job
from runtime.shares import Account, Shares


@dataclass(frozen=True)
class BatchItem:
    """Item number `index` of a job, in a batch."""

    job: Job
    index: int

    @property
    def pixels(self) -> int:
        """The item's cost."""
        return self.job.items[self.index].pixels


@dataclass
class VirtualTime:
    """Of one account's flows: pixels that each would have been served by now if all ran side by side.

    px, next_px: before and after the latest batch. jobs: that wait.
    """

    px: float = 0.0
    next_px: float = 0.0
    jobs: int = 0


class FairQueue:
    """The jobs that have waiting items, with their virtual time."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._shares = Shares()
        self._times: dict[Account, VirtualTime] = {}
        self._latest_px = (
            0.0  # virtual time never runs backwards, also for an account that had nothing waiting
        )

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    def add(self, job: Job) -> None:
        """Queue a job with waiting items. A newcomer starts at the current virtual time."""
        account = job.flow.account
        time = self._times.setdefault(account, VirtualTime(self._latest_px, self._latest_px))
        time.jobs += 1
        job.flow.clock_px = max(job.flow.clock_px, time.px)
        self._shares.begin(account)
        self._jobs.append(job)

    def remove(self, job: Job) -> None:
        """Forget a job that has no waiting items left, or whose items are dropped."""
        self._jobs.remove(job)
        job.stopwatch.end("queue")
        self._shares.end(job.flow.account)
        self._times[job.flow.account].jobs -= 1

    def expired(self, now_s: float) -> list[Job]:
        """The jobs whose deadline has passed."""
        return [job for job in self._jobs if job.deadline_s is not None and job.deadline_s <= now_s]

    def take(self) -> list[BatchItem]:
        """Take the items of the next batch out of the queue: of one engine and shape. Call it with a job waiting."""
        batch: list[BatchItem] = []
        for time in self._times.values():
            time.px = time.next_px
        first = min(self._jobs, key=self._place)
        engine, shape = first.engine, first.items[first.next_item].shape
        while len(batch) < engine.max_batch:
            ready = [
                job for job in self._jobs if job.engine is engine and job.items[job.next_item].shape == shape
            ]
            if not ready:
                break
            job = min(ready, key=self._place)
            batch.append(BatchItem(job, job.next_item))
            self._serve(job)
            job.next_item += 1
            if job.next_item == len(job.items):
                self.remove(job)
        self._latest_px = max(self._latest_px, *(time.next_px for time in self._times.values()))
        self._times = {account: time for account, time in self._times.items() if time.jobs}
        return batch

    def _place(self, job: Job) -> tuple[float, float, float]:
        """The place of a job's next item: of its class, of its client in that, and of the request among the client's."""
        flow = job.flow
        return *self._shares.place(flow.account), _finish_px(job)

    def _serve(self, job: Job) -> None:
        """Charge a job's next item."""
        flow, pixels = job.flow, job.items[job.next_item].pixels
        flow.clock_px = _finish_px(job)
        flow.served_px += pixels
        flows = {other.flow for other in self._jobs if other.flow.account == flow.account}
        self._times[flow.account].next_px += pixels / len(flows)
        self._shares.serve(flow.account, pixels)


def _finish_px(job: Job) -> float:
    """The job's virtual time after its next item."""
    return job.flow.clock_px + job.items[job.next_item].pixels
