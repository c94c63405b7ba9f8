"""The scheduler: what a request gets, and batches that never keep an idle device waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import wait as wait_for
from typing import Any

import pytest

from runtime.stopwatch import Stopwatch, Times
from tests.clock import Clock
from tests.runtime.gated_engine import (
    TILE_PX,
    TIMEOUT_S,
    Echo,
    Gated,
    job,
    scheduling,
)

# What a request gets.


@pytest.mark.parametrize(("slots", "max_batch"), [(1, 1), (1, 4), (3, 4)])
def test_every_item_is_delivered_once_with_its_own_output(slots: int, max_batch: int) -> None:
    engine = Echo(max_batch)
    got: list[tuple[int, int]] = []
    with scheduling(engine, slots=slots) as scheduler:

        def deliver_to(number: int) -> Callable[[int, dict[str, Any]], None]:
            def deliver(index: int, outputs: dict[str, Any]) -> None:
                assert outputs["y"].tolist() == [2 * number, 2 * index]
                got.append((number, index))

            return deliver

        jobs = [job(engine, n, n + 1, deliver=deliver_to(n)) for n in range(12)]
        for each in jobs:
            scheduler.submit(each)
        for each in jobs:
            assert each.done.result(TIMEOUT_S) is None
    assert sorted(got) == [(n, i) for n in range(12) for i in range(n + 1)]


def test_a_request_without_items_is_done_at_once() -> None:
    engine = Echo()
    with scheduling(engine) as scheduler:
        empty = job(engine, items=0)
        scheduler.submit(empty)
        assert empty.done.result(0) is None


def test_done_comes_after_the_last_delivery() -> None:
    engine, last = Echo(4), list[object]()
    with scheduling(engine, deliverers=4) as scheduler:
        request = job(engine, items=50, deliver=lambda index, outputs: last.append(index))
        request.done.add_done_callback(lambda done: last.append("done"))
        scheduler.submit(request)
        request.done.result(TIMEOUT_S)
    assert last[-1] == "done"
    assert len(last) == 51


def test_times_are_wall_time_of_waiting_and_of_the_device() -> None:
    clock, engine = Clock(), Gated(2)
    with scheduling(engine, clock=clock) as scheduler:
        first, watch = job(engine, 1), Stopwatch(clock)
        scheduler.submit(first, watch)
        engine.held()
        pair, watches = [job(engine, 2), job(engine, 3)], [Stopwatch(clock), Stopwatch(clock)]
        for each, its in zip(pair, watches, strict=True):
            scheduler.submit(each, its)
        clock.now_s += 2.0
        engine.let_go()
        assert len(engine.held()) == 2
        clock.now_s += 4.0
        engine.let_go()
        for each in (first, *pair):
            each.done.result(TIMEOUT_S)
        assert watch.times() == Times(queue_s=0.0, inference_s=2.0, codec_s=0.0, total_s=6.0)
        assert [its.times() for its in watches] == [Times(2.0, 4.0, 0.0, 6.0)] * 2
        assert scheduler.seconds_per_px(Echo()) is None
        assert scheduler.seconds_per_px(engine) == pytest.approx(2.0 / TILE_PX)


def test_items_of_a_request_that_overlap_on_the_device_count_once() -> None:
    clock, engine = Clock(), Gated()
    with scheduling(engine, clock=clock, slots=2) as scheduler:
        jobs, watch = [job(engine, n, 1) for n in range(2)], Stopwatch(clock)
        for each in jobs:
            scheduler.submit(each, watch)
        engine.held(), engine.held()  # both on the device
        clock.now_s += 3.0
        engine.let_go()
        engine.let_go()
        for each in jobs:
            each.done.result(TIMEOUT_S)
        assert watch.times() == Times(queue_s=0.0, inference_s=3.0, codec_s=0.0, total_s=3.0)


def test_a_request_that_is_cancelled_waits_no_longer() -> None:
    clock, engine = Clock(), Gated()
    with scheduling(engine, clock=clock) as scheduler:
        running, waiting, watch = job(engine, 1), job(engine, 2, 3), Stopwatch(clock)
        scheduler.submit(running)
        engine.held()
        scheduler.submit(waiting, watch)
        clock.now_s += 1.0
        scheduler.cancel(waiting)
        clock.now_s += 5.0
        assert watch.times() == Times(queue_s=1.0, inference_s=0.0, codec_s=0.0, total_s=6.0)
        engine.let_go()


def test_a_tiny_request_hardly_moves_the_estimate() -> None:
    """A batch of one pixel takes nearly as long as one of a tile: its rate is no other request's."""
    engine, clock = Gated(4), Clock()
    with scheduling(engine, clock=clock) as scheduler:
        for pixels in (TILE_PX, 1):
            request = job(engine, pixels=pixels)
            scheduler.submit(request)
            engine.held()
            clock.now_s += 2.0
            engine.let_go()
            request.done.result(TIMEOUT_S)
        estimate = scheduler.seconds_per_px(engine)
        assert estimate is not None
        assert estimate < 3 * 2.0 / TILE_PX


def test_stats_count_what_ran_and_what_was_dropped() -> None:
    engine = Gated(4)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0))
        engine.held()
        gone, whole = job(engine, 1, 7), job(engine, 2, 7)
        scheduler.submit(gone)
        scheduler.submit(whole)
        assert scheduler.stats().jobs_waiting == 2
        scheduler.cancel(gone)
        engine.let_go(3)
        whole.done.result(TIMEOUT_S)
        stats = scheduler.stats()
        assert (stats.batches, stats.items, stats.pixels) == (3, 8, 8 * TILE_PX)
        assert (stats.items_dropped, stats.jobs_waiting) == (7, 0)
        assert stats.mean_batch == pytest.approx(8 / 3)
        assert stats.batch_sizes == {1: 1, 3: 1, 4: 1}
        assert stats.busy_s > 0


# Work-conserving batches.


def test_an_idle_device_starts_at_once_and_items_that_arrive_meanwhile_form_a_batch() -> None:
    engine = Gated(8)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0))
        assert engine.held() == [(0, 0)]
        jobs = [job(engine, number) for number in range(1, 9)]
        for each in jobs:
            scheduler.submit(each)
        engine.let_go()
        assert sorted(engine.step()) == [(number, 0) for number in range(1, 9)]
        wait_for([each.done for each in jobs], TIMEOUT_S)
        assert scheduler.stats().mean_batch == pytest.approx(9 / 2)


def test_a_batch_holds_one_shape_of_one_engine() -> None:
    engine, other = Gated(8), Gated(8)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0))
        engine.held()
        for number, shape in enumerate(("tile", "strip", "tile", "strip"), start=1):
            scheduler.submit(job(engine, number, shape=shape))
        scheduler.submit(job(other, 5))
        other.let_go()
        engine.let_go()
        batches = [sorted(engine.step()), sorted(engine.step())]
        assert sorted(batches) == [[(1, 0), (3, 0)], [(2, 0), (4, 0)]]
        assert other.held() == [(5, 0)]


def test_all_slots_work_while_there_is_something_to_do() -> None:
    engine = Gated(1)
    with scheduling(engine, slots=3) as scheduler:
        scheduler.submit(job(engine, 1, 5))
        assert sorted(engine.held() for _ in range(3)) == [[(1, 0)], [(1, 1)], [(1, 2)]]


def test_outputs_that_wait_for_delivery_stop_the_device_before_they_pile_up() -> None:
    slots, deliverers, items = 2, 2, 40
    engine, gate = Gated(1), threading.Event()

    def slow(index: int, outputs: dict[str, Any]) -> None:
        assert gate.wait(TIMEOUT_S)

    with scheduling(engine, slots=slots, deliverers=deliverers) as scheduler:
        request = job(engine, items=items, deliver=slow)
        scheduler.submit(request)
        for _ in range(slots + deliverers):
            engine.step()  # its output is being delivered, or waits for it
        assert engine.nothing_comes()
        gate.set()
        engine.let_go(items)
        assert request.done.result(TIMEOUT_S) is None
    assert len(engine.batches) == items
