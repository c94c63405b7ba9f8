"""Tests of the Prefetcher: results come in order, threads end, errors are raised where the result is taken."""

from __future__ import annotations

import threading
from itertools import count

import pytest
import torch

from export.data.batches import Prefetcher, generator

LONG_S = 60.0  # a wait this long has failed


def numbers(seed: int, number: int) -> list[float]:
    return torch.rand(4, generator=generator(seed, number)).tolist()


def test_random_numbers_are_those_of_seed_and_number() -> None:
    assert numbers(3, 8) == numbers(3, 8)
    assert len({tuple(numbers(seed, number)) for seed in (-1, 0, 1, 2**40) for number in range(10)}) == 40


@pytest.mark.parametrize("workers", [1, 3])
def test_numbers_come_in_order_from_the_first(workers: int) -> None:
    with Prefetcher(lambda number: number**2, 5, depth=2, workers=workers) as ahead:
        assert [ahead.take(number) for number in range(5, 25)] == [number**2 for number in range(5, 25)]
        with pytest.raises(ValueError, match="took number 24, expected 25"):
            ahead.take(24)


def test_no_more_than_the_depth_is_made_ahead_while_the_caller_computes() -> None:
    made = {number: threading.Event() for number in range(9)}

    def make(number: int) -> int:
        made[number].set()
        return number

    with Prefetcher(make, 0, depth=3) as ahead:
        assert made[2].wait(LONG_S)  # before anything was taken
        assert len(ahead.under_way) == 3
        assert ahead.take(0) == 0
        assert made[3].wait(LONG_S)
        assert len(ahead.under_way) == 3
    assert not any(made[number].is_set() for number in range(4, 9))


def test_workers_make_several_at_once() -> None:
    together = threading.Barrier(2)
    with Prefetcher(lambda number: together.wait(LONG_S), 0, workers=2) as ahead:
        assert {ahead.take(0), ahead.take(1)} == {0, 1}
        ahead.take(2)
        ahead.take(3)
        together.abort()  # whoever waits for a partner now


def test_an_error_is_raised_where_it_is_taken_and_the_next_is_made() -> None:
    def make(number: int) -> int:
        if number == 1:
            raise OSError("the disk is gone")
        return number

    with Prefetcher(make, 0) as ahead:
        assert ahead.take(0) == 0
        with pytest.raises(OSError, match="the disk is gone"):
            ahead.take(1)
        assert ahead.take(2) == 2


def test_only_blocked_time_is_counted() -> None:
    """The clock goes on by a second a look. The first look lets the batch through that it waits for."""
    gate, ticks = threading.Event(), count()

    def clock_s() -> float:
        gate.set()
        return float(next(ticks))

    done = threading.Event()

    def make(number: int) -> int:
        if number == 0:
            assert gate.wait(LONG_S)
        if number == 2:
            done.set()
        return number

    with Prefetcher(make, 0, clock_s=clock_s) as ahead:
        assert ahead.take(0) == 0
        assert ahead.waited_s == 1
        assert done.wait(LONG_S)  # one worker: number 1 is made
        assert ahead.take(1) == 1
        assert ahead.waited_s == 1


def test_threads_end_with_the_context() -> None:
    def make(number: int) -> str:
        return threading.current_thread().name

    before = set(threading.enumerate())
    with Prefetcher(make, 0, workers=2) as ahead:
        assert ahead.take(0).startswith("batches")
    assert set(threading.enumerate()) <= before
