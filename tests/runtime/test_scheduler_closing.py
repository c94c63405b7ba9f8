"""The scheduler: closing finishes what runs, cancels what waits and leaves no thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from runtime.errors import Cancelled
from runtime.jobs import Job
from runtime.scheduler import Scheduler
from tests.runtime.gated_engine import (
    TIMEOUT_S,
    Echo,
    Gated,
    job,
    scheduling,
    served_by,
)


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
