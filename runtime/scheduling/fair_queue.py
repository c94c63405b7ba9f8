"""FairQueue: the waiting jobs of a scheduler, and which of their items form the next batch.

Fair by pixels: weighted fair queuing (Demers et al. 1989) picks the item that would finish first if all requests ran side
by side. A thumbnail is therefore next however many posters wait, and a flood of thumbnails does not starve a poster.
runtime/scheduler.py calls it with its lock held; nothing here locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.jobs import Job


@dataclass(frozen=True)
class BatchItem:
    """Item number `index` of a job, in a batch."""

    job: Job
    index: int

    @property
    def pixels(self) -> int:
        """The item's cost."""
        return self.job.items[self.index].pixels


class FairQueue:
    """The jobs that have waiting items, with their virtual time."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        # Virtual time: pixels that each waiting job would have been served by now if all ran side by side. Before and
        # after the latest batch.
        self._virtual_px = self._next_virtual_px = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    def add(self, job: Job) -> None:
        """Queue a job with waiting items. A newcomer starts at the current virtual time."""
        job.flow.clock_px = max(job.flow.clock_px, self._virtual_px)
        self._jobs.append(job)

    def remove(self, job: Job) -> None:
        """Forget a job that has no waiting items left, or whose items are dropped."""
        self._jobs.remove(job)
        job.stopwatch.end("queue")

    def expired(self, now_s: float) -> list[Job]:
        """The jobs whose deadline has passed."""
        return [job for job in self._jobs if job.deadline_s is not None and job.deadline_s <= now_s]

    def take(self) -> list[BatchItem]:
        """Take the items of the next batch out of the queue: of one engine and shape. Call it with a job waiting."""
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
                self.remove(job)
        return batch


def _finish_px(job: Job) -> float:
    """The job's virtual time after its next item."""
    return job.flow.clock_px + job.items[job.next_item].pixels
