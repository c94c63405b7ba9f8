"""Models that come and go: a scheduler grows for a model with more slots, and says when an engine may be closed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from runtime.scheduler import Scheduler
from tests.runtime.gated_engine import TIMEOUT_S, UNTIL_NOTHING_S, Echo, Gated, job, scheduling, served_by


def drained(scheduler: Scheduler, engine: Echo) -> threading.Event:
    """Set once the scheduler has nothing of the engine."""
    done = threading.Event()

    def wait() -> None:
        scheduler.drain(engine)
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    return done


def test_a_scheduler_grows_for_a_model_with_more_slots() -> None:
    engine = Gated()
    with scheduling(engine, slots=1) as scheduler:
        for number in range(3):
            scheduler.submit(job(engine, number))
        engine.held()
        assert engine.nothing_comes()
        scheduler.grow(3)
        engine.held()
        engine.held()


def test_a_scheduler_never_shrinks() -> None:
    engine = Gated()
    with scheduling(engine, slots=2) as scheduler:
        scheduler.grow(1)
        for number in range(2):
            scheduler.submit(job(engine, number))
        engine.held()
        engine.held()


def test_an_engine_without_jobs_is_drained_at_once() -> None:
    engine = Echo()
    with scheduling(engine) as scheduler:
        served_by(scheduler, engine)
        assert drained(scheduler, engine).wait(TIMEOUT_S)


def end(scheduler: Scheduler, request: object) -> None:
    scheduler.cancel(request)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [lambda scheduler, request: None, end])
def test_an_engine_is_drained_after_its_last_batch(ending: Callable[[Scheduler, object], None]) -> None:
    """A cancelled job's batch is still on the device."""
    engine, other = Gated(), Echo()
    with scheduling(engine, slots=2) as scheduler:
        request = job(engine)
        scheduler.submit(request)
        engine.held()
        ending(scheduler, request)
        done = drained(scheduler, engine)
        served_by(scheduler, other)
        assert not done.wait(UNTIL_NOTHING_S)
        engine.let_go()
        assert done.wait(TIMEOUT_S)


def test_an_engine_with_waiting_jobs_is_not_drained() -> None:
    engine, old = Gated(), Echo()
    with scheduling(engine, slots=1) as scheduler:
        scheduler.submit(job(engine))
        engine.held()
        waiting = job(old)
        scheduler.submit(waiting)
        done = drained(scheduler, old)
        assert not done.wait(UNTIL_NOTHING_S)
        scheduler.cancel(waiting)
        assert done.wait(TIMEOUT_S)


def test_the_speed_of_a_drained_engine_is_forgotten() -> None:
    engine = Echo()
    with scheduling(engine) as scheduler:
        served_by(scheduler, engine)
        assert scheduler.seconds_per_px(engine) is not None
        scheduler.drain(engine)
        assert scheduler.seconds_per_px(engine) is None
