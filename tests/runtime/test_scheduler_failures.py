"""The scheduler: a request, an engine or a caller that fails stops neither the workers nor other requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from runtime.errors import EngineError
from tests.runtime.gated_engine import (
    TIMEOUT_S,
    Echo,
    Gated,
    job,
    scheduling,
    served_by,
)


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
