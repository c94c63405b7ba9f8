"""Tests of the load generators against a real server, and of the percentiles, rates and turns that they give."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from benchmarks.load import (
    Duration,
    Measured,
    arrivals,
    at_once,
    beside,
    direct,
    generate_call,
    picture_call,
    summary,
    through_server,
)
from benchmarks.served import crowd_sizes
from benchmarks.turns import in_turns, order_share
from runtime import pixels
from runtime.tasks.upscale import UPSCALE
from tests.server import conftest as servers

loop, serve, served = servers.loop, servers.serve, servers.served

SHORT = Duration(0.0, min_calls=3)


def test_percentiles_are_stated_only_of_enough_answers() -> None:
    spans = [(float(i), i + 0.001 * (i + 1)) for i in range(100)]
    few, some, many = (summary(spans[:count], 1) for count in (9, 99, 100))
    assert (few.p90_ms, few.p99_ms) == (None, None)
    assert some.p90_ms is not None
    assert some.p99_ms is None
    assert many.p50_ms == pytest.approx(50.5)
    assert many.p90_ms == pytest.approx(90.1)
    assert many.p99_ms == pytest.approx(99.01)
    assert many.report()["p99_ms"] == 99.01
    assert few.report()["p99_ms"] is None


def test_the_rate_is_answers_a_second_whatever_the_number_of_callers() -> None:
    # Two callers, each of whom gets an answer every half second, both at the same time: four a second.
    spans = [(i / 2, (i + 1) / 2) for i in range(40) for _ in range(2)]
    assert summary(spans, 2).per_s == pytest.approx(4, rel=0.05)
    assert summary(spans[:4], 2).per_s == pytest.approx(4)
    assert summary([], 2).calls == 0


def measured(per_s: float, callers: int = 1) -> Measured:
    return Measured(callers, 10, per_s, 1.0, None, None)


def test_each_level_is_compared_with_the_raw_rate_before_and_after_it() -> None:
    raw_rates, order = iter((10.0, 20.0, 40.0)), []

    def raw() -> Measured:
        order.append("raw")
        return measured(next(raw_rates))

    def served_at(level: int) -> Measured:
        order.append(str(level))
        return measured(30.0, level)

    shown: list[float] = []
    turns = in_turns((1, 4), raw=raw, served=served_at, on_turn=lambda turn: shown.append(turn.of_raw))
    assert order == ["raw", "1", "raw", "4", "raw"]
    assert [turn.raw_per_s for turn in turns] == [15, 30]
    assert shown == [turn.of_raw for turn in turns] == [2, 1]


def test_order_share_is_of_pairs_and_not_of_the_order_of_sending() -> None:
    assert order_share([3, 1, 2], [30, 10, 20]) == 1
    assert order_share([3, 1, 2], [10, 30, 20]) == 0
    assert order_share([1, 2, 3], [10, 30, 20]) == pytest.approx(2 / 3)
    assert order_share([1, 1, 2], [30, 10, 40]) == 1  # a pair of one size says nothing


def test_a_crowd_is_not_sent_in_the_order_of_size() -> None:
    areas = [height * width for height, width in crowd_sizes()]
    assert len(set(areas)) == 16
    sending = list(range(16))
    assert 0.3 < order_share(areas, sending) < 0.7


def test_direct_calls_from_as_many_threads_as_callers() -> None:
    together = threading.Barrier(3, timeout=60)
    assert direct(together.wait, callers=3, duration=Duration(0.0, min_calls=0)).calls == 0  # warm-up only
    assert direct(lambda: None, callers=2, duration=SHORT).calls >= 3


def test_every_load_generator_gets_answers(served: servers.Served) -> None:
    small = pixels.encode(np.zeros((20, 30, 3), np.uint8), "png")
    upscale, generate = picture_call(UPSCALE, "upscaler", small), generate_call("generator", 2)
    assert through_server(served.address, upscale, callers=2, duration=SHORT).calls >= 3
    assert through_server(served.address, generate, callers=1, duration=SHORT).callers == 1
    assert len(at_once(served.address, [upscale, generate, upscale])) == 3
    assert beside(served.address, generate, [], duration=SHORT).calls >= 3
    open_loop = arrivals(served.address, upscale, per_s=200.0, calls=20)
    assert (open_loop.callers, open_loop.calls) == (0, 20)


def test_the_open_loop_counts_from_when_a_request_was_due() -> None:
    """Requests that could not even be sent, because the machine was busy, waited all the same."""
    calls, per_s = 30, 500.0
    due_s = np.cumsum(np.random.default_rng(1).exponential(1 / per_s, calls))
    answered = 0

    async def call(stub: object) -> None:
        nonlocal answered
        answered += 1
        if answered == 2:  # the first connects; this one keeps the event loop busy until the last is due
            until_s = time.perf_counter() + due_s[-1]
            while time.perf_counter() < until_s:
                pass

    # No RPC is made, so that no server need be there.
    open_loop = arrivals("127.0.0.1:1", call, per_s=per_s, calls=calls, seed=1)
    assert answered == calls + 1
    assert open_loop.p50_ms >= 1e3 * np.median(due_s[-1] - due_s)
