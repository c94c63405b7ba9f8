"""The scheduler: fair, work-conserving, and not stopped by any failure of a request, an engine or a caller.

Nothing here sleeps. `Gated` is an engine that says which batch it holds and waits to be let go, so a test decides
what is queued at the moment when a worker is free.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import Cancelled, DeadlineExceeded, EngineError
from runtime.jobs import Flow, Item, Job
from runtime.scheduler import Scheduler
from runtime.stopwatch import Stopwatch, Times

UNTIL_NOTHING_S = (
    0.3  # of a wait for something that must not come: too short a wait can hide a fault, not make one
)
TIMEOUT_S = 30  # of a wait that ends at once unless the code is wrong
TILE_PX, THUMBNAIL_PX = 192 * 192, 64 * 64
Batch = list[tuple[int, int]]  # (job, item)


class Echo:
    """An engine that doubles what it gets, and keeps the batches it saw."""

    def __init__(self, max_batch: int = 1) -> None:
        self.max_batch = max_batch
        self.batches: list[Batch] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.batches.append([(int(row[0]), int(row[1])) for row in inputs["x"]])
        return {"y": inputs["x"] * 2}


class Gated(Echo):
    """An engine that holds each batch until `let_go`."""

    def __init__(self, max_batch: int = 1) -> None:
        super().__init__(max_batch)
        self._held: queue.Queue[Batch] = queue.Queue()
        self._permits = threading.Semaphore(0)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = super().run(inputs)
        self._held.put(self.batches[-1])
        assert self._permits.acquire(timeout=TIMEOUT_S)
        return outputs

    def held(self) -> Batch:
        """The next batch that a worker brings. It stays on the device until `let_go`."""
        return self._held.get(timeout=TIMEOUT_S)

    def nothing_comes(self) -> bool:
        """No worker brings a batch. A worker that may bring one does so within microseconds of the last."""
        try:
            self._held.get(timeout=UNTIL_NOTHING_S)
        except queue.Empty:
            return True
        return False

    def let_go(self, batches: int = 1) -> None:
        self._permits.release(batches)

    def step(self) -> Batch:
        batch = self.held()
        self.let_go()
        return batch


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def scheduling(engine: Echo, **options: Any) -> Iterator[Scheduler]:
    """A scheduler that is closed even where the test fails while the engine holds a batch."""
    scheduler = Scheduler(**options)
    try:
        yield scheduler
    finally:
        if isinstance(engine, Gated):
            engine.let_go(100_000)
        scheduler.close()


def job(
    engine: Any,
    number: int = 0,
    items: int = 1,
    *,
    pixels: int = TILE_PX,
    shape: object = "tile",
    deliver: Callable[[int, dict[str, Any]], None] | None = None,
    inputs: Callable[[int], dict[str, Any]] | None = None,
    deadline_s: float | None = None,
    flow: Flow | None = None,
) -> Job:
    return Job(
        engine,
        [Item(shape, pixels)] * items,
        inputs=inputs or (lambda index: {"x": np.array([number, index], np.float32)}),
        deliver=deliver or (lambda index, outputs: None),
        deadline_s=deadline_s,
        flow=flow,
    )


def served_by(scheduler: Scheduler, engine: Any) -> None:
    """Proof that the scheduler still works: one more request is answered."""
    last = job(engine, 99)
    scheduler.submit(last)
    assert last.done.result(TIMEOUT_S) is None


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


# Fair turns.


@pytest.mark.parametrize("posters", [1, 2, 5, 8])
@pytest.mark.parametrize("steps", range(12))
def test_a_thumbnail_gets_the_next_batch_whatever_posters_wait(posters: int, steps: int) -> None:
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 99, pixels=1))
        engine.held()  # so that all posters come before the first of them runs
        for number in range(posters):
            scheduler.submit(job(engine, number, 5000))
        engine.let_go()
        for _ in range(steps):
            engine.step()
        engine.held()
        scheduler.submit(job(engine, 77, pixels=THUMBNAIL_PX, shape="thumbnail"))
        engine.let_go()
        assert engine.held() == [(77, 0)]


def test_a_thumbnail_waits_for_no_more_than_its_own_share_of_a_crowd() -> None:
    posters = 45
    for steps in range(0, 2 * posters, 8):
        engine = Gated(1)
        with scheduling(engine) as scheduler:
            scheduler.submit(job(engine, 99, pixels=1))
            engine.held()  # so that all posters come before the first of them runs
            for number in range(posters):
                scheduler.submit(job(engine, number, 50))
            engine.let_go()
            for _ in range(steps):
                engine.step()
            engine.held()
            scheduler.submit(job(engine, 777, pixels=THUMBNAIL_PX, shape="thumbnail"))
            engine.let_go()
            waited = 0
            while engine.step() != [(777, 0)]:
                waited += 1
            assert waited <= posters * THUMBNAIL_PX / TILE_PX + 1


@settings(max_examples=20)
@given(
    pixels=st.lists(st.integers(1, 50_000), min_size=2, max_size=6),
    max_batch=st.integers(1, 8),
    batches=st.integers(1, 25),
)
def test_waiting_requests_get_equal_shares_by_pixels(pixels: list[int], max_batch: int, batches: int) -> None:
    engine = Gated(max_batch)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 99, pixels=1))
        engine.held()
        for number, each in enumerate(pixels):
            scheduler.submit(job(engine, number, 400, pixels=each))
        engine.let_go()
        served = [0] * len(pixels)
        for _ in range(batches):
            for number, _ in engine.held():
                served[number] += pixels[number]
            if max(served[n] // each for n, each in enumerate(pixels)) >= 400:
                break  # somebody has nothing left, and needs no share
            assert max(served) - min(served) <= max(pixels)
            engine.let_go()


@pytest.mark.parametrize("crowd", [1, 3, 20])
def test_a_flood_of_thumbnails_starves_no_poster(crowd: int) -> None:
    """`crowd` callers who each send the next thumbnail when the last one ran get one share each, and so does a poster."""
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0, 10_000))
        for number in range(1, crowd + 1):
            scheduler.submit(job(engine, number, pixels=THUMBNAIL_PX, shape="thumbnail"))
        poster = thumbnails = 0
        for _ in range(600):
            ((number, _),) = engine.held()
            if number:
                thumbnails += THUMBNAIL_PX
                scheduler.submit(job(engine, number, pixels=THUMBNAIL_PX, shape="thumbnail"))
            else:
                poster += TILE_PX
            engine.let_go()
        assert poster == pytest.approx(thumbnails / crowd, rel=0.25)


def test_jobs_of_the_same_request_share_its_turns() -> None:
    """Two bands of a poster beside another poster: the device's time is halved between the posters."""
    engine, flow = Gated(1), Flow()
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0, pixels=1))
        engine.held()
        for number in (1, 2):
            scheduler.submit(job(engine, number, 100, flow=flow))
        scheduler.submit(job(engine, 3, 100))
        engine.let_go()
        served = [engine.step()[0][0] for _ in range(40)]
        assert served.count(3) == pytest.approx(20, abs=1)
        assert served.count(1) + served.count(2) == pytest.approx(20, abs=1)


def test_new_requests_do_not_delay_waiting_ones() -> None:
    """Five posters at a time, always new ones: each is done after its own share."""
    engine, tiles, others = Gated(1), 12, 5
    with scheduling(engine) as scheduler:
        for number in range(others):
            scheduler.submit(job(engine, number, 3))
        for _ in range(4):
            engine.step()
        scheduler.submit(job(engine, 1000, tiles))
        left, following = tiles, others
        for batches in range(1, 10_000):  # noqa: B007 - counted for the line after the loop
            ((number, index),) = engine.held()
            left -= number == 1000
            if left == 0:
                break
            if number != 1000 and index == 2:
                scheduler.submit(job(engine, following, 3))
                following += 1
            engine.let_go()
        assert batches <= tiles * (others + 1) * 1.25


def test_requests_of_another_model_or_shape_get_their_turns() -> None:
    engine, other = Gated(8), Gated(8)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0, 1000))
        engine.held()
        scheduler.submit(job(engine, 1, shape="strip"))
        scheduler.submit(job(other, 2))
        other.let_go()
        engine.let_go()
        assert engine.step() == [(1, 0)]
        assert other.held() == [(2, 0)]


# Cancellation.


def test_cancelling_drops_what_is_left_before_the_next_batch() -> None:
    engine = Gated(2)
    with scheduling(engine) as scheduler:
        gone = job(engine, 1, 100)
        scheduler.submit(gone)
        engine.held()
        scheduler.cancel(gone)
        with pytest.raises(Cancelled):
            gone.done.result(0)
        scheduler.submit(job(engine, 2))
        engine.let_go()
        assert engine.step() == [(2, 0)]
        assert scheduler.stats().items_dropped == 98
        scheduler.cancel(gone)  # twice does no harm
        assert scheduler.stats().items_dropped == 98


def test_items_on_the_device_when_their_request_is_cancelled_are_not_delivered() -> None:
    engine, delivered = Gated(1), []
    with scheduling(engine) as scheduler:
        gone = job(engine, 1, 3, deliver=lambda index, outputs: delivered.append(index))
        scheduler.submit(gone)
        engine.held()
        gone.done.cancel()
        engine.let_go(1)
        following = job(engine, 2)
        scheduler.submit(following)
        assert engine.step() == [(2, 0)]
        following.done.result(TIMEOUT_S)
    assert delivered == []


def test_cancelling_during_a_delivery_ends_the_request_once() -> None:
    engine = Echo()
    inside, gate = threading.Event(), threading.Event()

    def slow(index: int, outputs: dict[str, Any]) -> None:
        inside.set()
        assert gate.wait(TIMEOUT_S)

    with scheduling(engine) as scheduler:
        gone = job(engine, 1, 1, deliver=slow)
        ends: list[object] = []
        gone.done.add_done_callback(ends.append)
        scheduler.submit(gone)
        assert inside.wait(TIMEOUT_S)
        scheduler.cancel(gone)
        gate.set()
        with pytest.raises(Cancelled):
            gone.done.result(TIMEOUT_S)
        served_by(scheduler, engine)
    assert ends == [gone.done]


def test_a_future_cancelled_by_its_holder_cancels_the_request() -> None:
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        gone = job(engine, 1, 100)
        scheduler.submit(gone)
        engine.held()
        assert gone.done.cancel()
        assert scheduler.stats().items_dropped == 99
        engine.let_go(2)
        served_by(scheduler, engine)
        with pytest.raises(CancelledError):
            gone.done.result(0)


async def test_an_asyncio_task_that_goes_away_cancels_the_request() -> None:
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        gone = job(engine, 1, 100)
        scheduler.submit(gone)
        engine.held()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(gone.done), 0.001)
        await asyncio.sleep(0)
        assert gone.done.cancelled()
        assert scheduler.stats().items_dropped == 99
        engine.let_go(2)
        served_by(scheduler, engine)


def test_a_request_cancelled_before_it_is_submitted_never_runs() -> None:
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0))
        engine.held()
        for items in (0, 3):
            gone = job(engine, 1, items)
            gone.done.cancel()
            scheduler.submit(gone)
        engine.let_go(2)
        served_by(scheduler, engine)
    assert engine.batches == [[(0, 0)], [(99, 0)]]


def test_cancelling_from_a_delivery_or_a_callback_does_not_deadlock() -> None:
    engine = Echo()
    with scheduling(engine) as scheduler:
        other = job(engine, 2, 10_000)
        request = job(engine, 1, 3, deliver=lambda index, outputs: scheduler.cancel(request))
        request.done.add_done_callback(lambda done: scheduler.cancel(other))
        scheduler.submit(other)
        scheduler.submit(request)
        for gone in (request, other):
            with pytest.raises(Cancelled):
                gone.done.result(TIMEOUT_S)
        served_by(scheduler, engine)


def test_requests_cancelled_from_many_threads_while_they_run_all_end_once() -> None:
    engine = Echo(4)
    ends: list[object] = []
    with scheduling(engine, slots=2, deliverers=2) as scheduler:
        jobs = [job(engine, number, 20) for number in range(60)]
        for each in jobs:
            each.done.add_done_callback(ends.append)
            scheduler.submit(each)

        def cancel(start: int) -> None:
            for each in jobs[start::3]:
                if start:
                    scheduler.cancel(each)
                else:
                    each.done.cancel()

        threads = [threading.Thread(target=cancel, args=(start,)) for start in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        not_done = wait_for([each.done for each in jobs], TIMEOUT_S).not_done
        assert not not_done
        served_by(scheduler, engine)
        assert scheduler.stats().jobs_waiting == 0
    assert len(ends) == 60


# Deadlines.


def test_past_its_deadline_a_request_loses_its_remaining_items() -> None:
    clock, engine = Clock(), Gated(1)
    with scheduling(engine, clock=clock) as scheduler:
        late = job(engine, 1, 100, deadline_s=clock.now_s + 5)
        patient = job(engine, 2, 1)
        scheduler.submit(late)
        engine.held()
        scheduler.submit(patient)
        clock.now_s += 5
        engine.let_go()
        assert engine.held() == [(2, 0)]
        with pytest.raises(DeadlineExceeded):
            late.done.result(TIMEOUT_S)
        assert scheduler.stats().items_dropped == 99


def test_a_request_that_comes_too_late_never_runs() -> None:
    clock, engine = Clock(), Echo()
    with scheduling(engine, clock=clock) as scheduler:
        late = job(engine, 1, 3, deadline_s=clock.now_s)
        scheduler.submit(late)
        with pytest.raises(DeadlineExceeded):
            late.done.result(TIMEOUT_S)
        served_by(scheduler, engine)
    assert engine.batches == [[(99, 0)]]


# Failures: of a request, of the engine.


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("what", ["inputs", "deliver"])
def test_a_request_that_fails_fails_alone(what: str) -> None:
    engine, error = Gated(4), RuntimeError("a bad request")
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0))
        engine.held()
        bad = job(
            engine,
            1,
            3,
            inputs=failing(error) if what == "inputs" else None,
            deliver=failing(error) if what == "deliver" else None,
        )
        good = [job(engine, number, 2) for number in (2, 3)]
        for each in (good[0], bad, good[1]):
            scheduler.submit(each)
        engine.let_go(100)
        for each in good:
            assert each.done.result(TIMEOUT_S) is None
        assert bad.done.exception(TIMEOUT_S) is error
        served_by(scheduler, engine)


class Poisoned(Echo):
    """An engine that fails on item 0 of job 13, as a real one does where one item of a batch gives NaN."""

    def __init__(self, max_batch: int, error: Exception) -> None:
        super().__init__(max_batch)
        self.error = error
        self.first = threading.Event()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert self.first.wait(TIMEOUT_S)
        if 13 in inputs["x"][:, 0]:
            raise self.error
        return super().run(inputs)


@pytest.mark.parametrize("error", [EngineError("NaN"), RuntimeError("the library's own"), MemoryError()])
def test_one_bad_item_in_a_batch_fails_only_its_own_request(error: Exception) -> None:
    engine, got = Poisoned(8, error), []
    with scheduling(engine) as scheduler:
        first = job(engine, 0)
        scheduler.submit(first)
        good = [
            job(engine, number, deliver=lambda index, out: got.append(out["y"][0])) for number in (1, 2, 3)
        ]
        bad = job(engine, 13)
        for each in (good[0], bad, *good[1:]):
            scheduler.submit(each)
        engine.first.set()
        for each in (first, *good):
            assert each.done.result(TIMEOUT_S) is None
        assert bad.done.exception(TIMEOUT_S) is error
        served_by(scheduler, engine)
    assert sorted(got) == [2, 4, 6]


def test_an_item_with_other_inputs_fails_alone() -> None:
    engine = Gated(8)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0))
        engine.held()
        odd = [
            job(engine, 1, inputs=lambda index: {"x": np.zeros(())}),
            job(engine, 2, inputs=lambda index: {"wrong": np.zeros(2)}),
        ]
        good = [job(engine, number) for number in (3, 4)]
        for each in (odd[0], good[0], odd[1], good[1]):
            scheduler.submit(each)
        engine.let_go(100)
        for each in good:
            assert each.done.result(TIMEOUT_S) is None
        for each in odd:
            assert each.done.exception(TIMEOUT_S) is not None
        served_by(scheduler, engine)


class Short(Echo):
    """An engine that gives fewer rows than it got."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"][:0]} if inputs["x"][0, 0] == 13 else super().run(inputs)


def test_an_engine_that_gives_too_little_fails_the_request_and_not_the_worker() -> None:
    engine = Short(4)
    with scheduling(engine) as scheduler:
        bad = job(engine, 13)
        scheduler.submit(bad)
        assert bad.done.exception(TIMEOUT_S) is not None
        served_by(scheduler, engine)


def test_an_item_of_no_pixels_does_not_end_the_worker() -> None:
    engine = Echo()
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 1, pixels=0))
        served_by(scheduler, engine)


def test_a_callback_that_raises_does_not_end_the_worker() -> None:
    engine = Echo()
    with scheduling(engine) as scheduler:
        request = job(engine, 1, inputs=failing(ValueError("bad")))
        request.done.add_done_callback(failing(RuntimeError("a careless callback")))
        scheduler.submit(request)
        with pytest.raises(ValueError, match="bad"):
            request.done.result(TIMEOUT_S)
        served_by(scheduler, engine)


# Closing.


def test_close_drops_what_waits_and_finishes_what_runs() -> None:
    engine, scheduler = Gated(1), Scheduler()
    running, waiting = job(engine, 1), job(engine, 2, 10)
    scheduler.submit(running)
    engine.held()
    scheduler.submit(waiting)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    with pytest.raises(Cancelled):
        waiting.done.result(TIMEOUT_S)
    assert not running.done.done()
    engine.let_go()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert running.done.result(0) is None
    assert engine.batches == [[(1, 0)]]
    with pytest.raises(Cancelled):
        scheduler.submit(job(engine, 3))
    scheduler.close()  # twice does no harm


def test_close_waits_for_deliveries() -> None:
    engine, scheduler = Echo(), Scheduler(slots=2, deliverers=1)
    inside, gate = threading.Event(), threading.Event()

    def slow(index: int, outputs: dict[str, Any]) -> None:
        inside.set()
        assert gate.wait(TIMEOUT_S)

    request = job(engine, 1, deliver=slow)
    scheduler.submit(request)
    assert inside.wait(TIMEOUT_S)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    gate.set()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert request.done.result(0) is None


def test_close_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    engine = Echo()
    with scheduling(engine, slots=3, deliverers=3) as scheduler:
        served_by(scheduler, engine)
    assert set(threading.enumerate()) <= before


def test_submitting_while_closing_either_runs_or_says_cancelled() -> None:
    for _ in range(20):
        engine, scheduler = Echo(), Scheduler(slots=2)
        jobs = [job(engine, number, 3) for number in range(30)]
        refused: list[Job] = []
        start = threading.Barrier(2)

        def submit(
            scheduler: Scheduler, jobs: list[Job], refused: list[Job], start: threading.Barrier
        ) -> None:
            start.wait(TIMEOUT_S)
            for each in jobs:
                try:
                    scheduler.submit(each)
                except Cancelled:
                    refused.append(each)

        thread = threading.Thread(target=submit, args=(scheduler, jobs, refused, start))
        thread.start()
        start.wait(TIMEOUT_S)
        scheduler.close()
        thread.join(TIMEOUT_S)
        for each in jobs:
            if each in refused:
                assert not each.done.done()
            else:
                assert isinstance(each.done.exception(TIMEOUT_S), Cancelled | None)
