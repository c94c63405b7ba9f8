"""Prepares training batches in advance, in threads. A batch depends only on the run's seed and on its own number.

The training loop takes its batches from a Prefetcher; recipes draw a batch's random numbers from `generator`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch

T = TypeVar("T")


def generator(seed: int, number: int) -> torch.Generator:
    """The random generator for batch `number` (0 or more) of a run with `seed`.

    It does not depend on earlier batches, so a resumed run continues with the same batches and has no state to save.
    """
    sequence = np.random.SeedSequence([seed % 2**64, number])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


class Prefetcher(Generic[T]):
    """Calls `make(number)` in threads, from `first` on, while the caller uses earlier results.

    A context manager, which stops the threads. depth: how many results are made ahead of the caller; at least one per
    worker. waited_s: how long take() has blocked so far, in seconds. If that is much of the run, loading is the bottleneck.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        first: int,
        depth: int = 2,
        workers: int = 1,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.make, self.clock_s, self.waited_s = make, clock_s, 0.0
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self.under_way: deque[Future[T]] = deque()
        self.next = first
        for number in range(first, first + max(depth, workers)):
            self.under_way.append(self.pool.submit(make, number))

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for running calls and cancel those that have not begun."""
        self.pool.shutdown(cancel_futures=True)

    def take(self, number: int) -> T:
        """The result of `make(number)`; raises what it raised. Numbers must be taken in order, from `first` on."""
        if number != self.next:
            raise ValueError(f"took number {number}, expected {self.next}: they are made in order")
        future = self.under_way.popleft()
        self.next += 1
        self.under_way.append(self.pool.submit(self.make, number + 1 + len(self.under_way)))
        if not future.done():
            started_s = self.clock_s()
            future.exception()  # waits
            self.waited_s += self.clock_s() - started_s
        return future.result()
