"""The scheduler: requests that are cancelled or late lose their remaining items, and end exactly once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from typing import Any

import pytest

from runtime.errors import Cancelled, DeadlineExceeded
from tests.clock import Clock
from tests.runtime.gated_engine import (
    TIMEOUT_S,
    Echo,
    Gated,
    job,
    scheduling,
    served_by,
)

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
