"""Engines that heal: what a request gets when an engine fails, gives nonsense, hangs or cannot be opened again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runtime.errors import EngineError, NotReady
from runtime.open_engines import OpenEngine
from runtime.scheduler import Scheduler
from runtime.stopwatch import Stopwatch
from tests.faulty_engine import Kind
from tests.runtime.fake_devices import OVERFLOWS, TIMEOUT_S, Model
from tests.server.conftest import until

KINDS: tuple[Kind, ...] = ("raise", "nan", "shape", "memory")


@contextmanager
def serving(model: Model) -> Iterator[Scheduler]:
    scheduler = Scheduler(slots=dict(model.engine.slots_by_device), watch_every_s=1000)
    try:
        yield scheduler
    finally:
        model.faults.clear()
        scheduler.close(5)
        model.close()


def answered(scheduler: Scheduler, model: Model, number: float = 1, items: int = 1) -> Stopwatch:
    """A request that gets its answer."""
    job, got = model.job(number, items)
    stopwatch = Stopwatch()
    scheduler.submit(job, stopwatch)
    assert job.done.result(TIMEOUT_S) is None
    assert sorted(got) == [(2 * number, 2.0 * index) for index in range(items)]
    return stopwatch


def failing(error: Exception) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def recovered(stopwatch: Stopwatch) -> list[str]:
    return list(stopwatch.ran.recovered)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_passes_is_retried_on_the_same_engine(kind: Kind) -> None:
    model = Model()
    with serving(model) as scheduler:
        model.fails(kind, times=1)
        ran = answered(scheduler, model)
        assert recovered(ran) == ["retried"]
        assert (ran.ran.precision, ran.ran.backend, ran.ran.device) == ("float16", "numpy", "CPU")
        assert scheduler.stats().retries == {"same engine": 1}
        assert not model.events
        assert len(model.opened) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_fails_on_good_input_is_opened_again(kind: Kind) -> None:
    model = Model()
    with serving(model) as scheduler:
        model.fails(kind, times=2)  # the request, and the good input after it
        assert recovered(answered(scheduler, model)) == ["retried on a fresh engine"]
        assert model.opened[0].was_closed.wait(TIMEOUT_S)
        assert len(model.opened) == 2
        assert [event.what for event in model.events] == ["engine failed", "engine replaced"]
        assert scheduler.stats().retries == {"fresh engine": 1}
        assert recovered(answered(scheduler, model)) == []


def test_a_precision_that_always_fails_is_left_for_a_wider_one() -> None:
    model = Model()
    with serving(model) as scheduler:
        model.fails("nan", precision="float16")
        ran = answered(scheduler, model)
        assert recovered(ran) == ["float32 instead of float16"]
        assert ran.ran.precision == model.engine.precision == "float32"
        opened = len(model.opened)
        assert recovered(answered(scheduler, model)) == []  # it stays there
        assert len(model.opened) == opened


def test_a_backend_that_always_fails_is_left_for_the_next() -> None:
    model = Model()
    with serving(model) as scheduler:
        model.fails("raise", backend="numpy")
        ran = answered(scheduler, model)
        assert recovered(ran) == ["other instead of numpy"]
        assert ran.ran.backend == model.engine.backend == "other"
        assert scheduler.stats().retries == {"next backend": 1}


def test_an_engine_that_no_longer_loads_is_left_for_the_next_way() -> None:
    model = Model()
    with serving(model) as scheduler:
        model.fails("nan", times=2)
        model.fails("unloadable", times=1)
        assert recovered(answered(scheduler, model)) == ["float32 instead of float16"]
        assert "does not load" in model.said("engine failed")[1].reason


def test_a_request_that_overflows_alone_goes_to_the_wider_precision_alone() -> None:
    model = Model(max_batch=4)
    with serving(model) as scheduler:
        jobs = [model.job(number) for number in (1, OVERFLOWS, 2)]
        stopwatches = [Stopwatch() for _ in jobs]
        for (job, _), stopwatch in zip(jobs, stopwatches, strict=True):
            scheduler.submit(job, stopwatch)
        for job, _ in jobs:
            assert job.done.result(TIMEOUT_S) is None
        assert jobs[1][1] == [(2 * OVERFLOWS, 0.0)]
        assert recovered(stopwatches[1]) == ["float32 instead of float16"]
        assert stopwatches[1].ran.precision == "float32"
        assert not model.said("engine failed")
        assert not model.opened[0].was_closed.is_set()
        assert model.engine.precision == "float16"  # for the others nothing changed
        assert answered(scheduler, model).ran.precision == "float16"


def test_a_request_that_fails_in_every_engine_fails_alone_and_says_what_was_tried() -> None:
    model = Model()
    with serving(model) as scheduler:
        bad, _ = model.job(float("nan"))
        scheduler.submit(bad)
        with pytest.raises(EngineError, match=r"(?s)numpy \(CPU\) in float16.*in float32.*other \(CPU\)"):
            bad.done.result(TIMEOUT_S)
        assert not model.said("engine failed")
        assert not model.opened[0].was_closed.is_set()
        answered(scheduler, model)


def test_an_engine_is_not_opened_again_and_again() -> None:
    model = Model()
    with serving(model) as scheduler:
        for _ in range(3):
            model.fails("raise", times=2)
            assert recovered(answered(scheduler, model)) == ["retried on a fresh engine"]
            model.faults.clear()
        assert model.waits_s == [0.0, 1.0, 4.0]
        model.fails("raise", times=2)
        assert recovered(answered(scheduler, model)) == ["float32 instead of float16"]


def test_a_model_that_cannot_be_healed_is_unavailable_at_once_and_comes_back() -> None:
    model = Model()
    with serving(model) as scheduler:
        model.fails("raise")
        first, waiting = model.job(1)[0], model.job(2)[0]
        scheduler.submit(first)
        scheduler.submit(waiting)
        for job in (first, waiting):
            with pytest.raises(NotReady, match=r"doubler is unavailable.*injected"):
                job.done.result(TIMEOUT_S)
        until(lambda: bool(model.said("model unavailable")))
        assert not model.said("model unavailable")[0].serving
        with pytest.raises(NotReady, match="try again later"):
            scheduler.submit(model.job(3)[0])
        model.faults.clear()
        model.comeback.set()
        until(lambda: bool(model.said("model available")))
        assert recovered(answered(scheduler, model)) == []
        assert model.engine.precision == "float16"  # it begins with the first way again


def test_a_hung_batch_is_given_up_and_its_items_run_on_a_fresh_engine() -> None:
    model = Model(max_batch=1)
    with serving(model) as scheduler:
        job, got = model.job(1, 3)
        model.fails("hang", times=1)
        stopwatch = Stopwatch()
        scheduler.submit(job, stopwatch)
        until(lambda: model.faults.hanging == 1)
        scheduler.watch(4)  # no batch hangs before 5 s
        assert scheduler.stats().slots_replaced == 0
        scheduler.watch(1000)
        assert job.done.result(TIMEOUT_S) is None
        assert sorted(got) == [(2.0, 0.0), (2.0, 2.0), (2.0, 4.0)]
        assert recovered(stopwatch) == ["retried on a fresh engine"]
        assert scheduler.stats().slots_replaced == 1
        assert "longer than 5 s" in model.said("engine failed")[0].reason
        before = scheduler.seconds_per_px(model.engine)
        model.faults.clear()  # the old thread comes back with its result
        until(lambda: model.faults.hanging == 0)
        answered(scheduler, model)
        assert len(got) == 3
        assert before is not None
        assert before < 1  # the time that it hung is no estimate of the next batch


def test_a_request_that_hangs_every_engine_fails_and_the_others_go_on() -> None:
    model = Model(max_batch=1)
    with serving(model) as scheduler:
        bad, _ = model.job(1)
        model.fails("hang", times=1)
        scheduler.submit(bad)
        until(lambda: model.faults.hanging == 1)
        model.fails("hang", every=3, times=1)  # not the two runs with which the fresh engine is warmed up
        scheduler.watch(1000)
        until(lambda: model.faults.hanging == 2 or bad.done.done())
        scheduler.watch(1000)
        with pytest.raises(EngineError, match="given up after 2 runs"):
            bad.done.result(TIMEOUT_S)
        model.faults.clear()
        answered(scheduler, model)


def test_closing_does_not_wait_for_a_device_that_hangs() -> None:
    model = Model(max_batch=1)
    scheduler = Scheduler(slots=dict(model.engine.slots_by_device))
    job, _ = model.job(1)
    model.fails("hang")
    scheduler.submit(job)
    until(lambda: model.faults.hanging == 1)
    start_s = time.monotonic()
    scheduler.close(0.05)
    assert time.monotonic() - start_s < TIMEOUT_S
    with pytest.raises(Exception, match="the device hangs"):
        job.done.result(0)
    model.close()


def test_an_engine_gets_no_more_batches_than_it_has_slots() -> None:
    """The others wait in the queue, where they keep their turns, and not inside the engine, where they seem to hang."""
    model, other = Model(max_batch=1), Model(max_batch=1)
    with serving(model) as scheduler:
        scheduler.grow({"CPU": 3})
        model.fails("hang", times=3)
        jobs = [each.job(number)[0] for number, each in enumerate((model, model, model, other), 1)]
        for job in jobs:
            scheduler.submit(job)
        assert jobs[3].done.result(TIMEOUT_S) is None  # a slot was free for the other model
        assert model.faults.hanging == 1
        assert scheduler.stats().jobs_waiting == 2
        model.faults.clear()
        for job in jobs:
            assert job.done.result(TIMEOUT_S) is None
    other.close()


def test_an_observer_that_raises_does_not_stop_the_healing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()

    def careless(event: object) -> None:
        raise RuntimeError("a careless observer")

    monkeypatch.setattr(model.engine, "_on_event", careless)
    with serving(model) as scheduler:
        model.fails("raise", times=2)
        assert recovered(answered(scheduler, model)) == ["retried on a fresh engine"]


def test_threads_that_cannot_be_started_fail_the_request_and_not_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model()
    with serving(model) as scheduler, monkeypatch.context() as patch:
        model.fails("raise", times=2)
        patch.setattr(OpenEngine, "condemn", failing(RuntimeError("can't start new thread")))
        job, _ = model.job(1)
        scheduler.submit(job)
        with pytest.raises(RuntimeError, match="new thread"):
            job.done.result(TIMEOUT_S)
        answered(scheduler, model)


# Several devices.


def test_a_device_that_fails_is_taken_out_and_its_items_run_elsewhere() -> None:
    model = Model(("cuda:0", "cuda:1"), ways=1, max_batch=1)
    with serving(model) as scheduler:
        model.fails("raise", device="cuda:1")
        while not model.engine.devices_out:
            answered(scheduler, model, items=20)
        assert model.engine.devices_out == ("cuda:1",)
        ran = answered(scheduler, model, items=20)
        assert (ran.ran.device, recovered(ran)) == ("cuda:0", [])
        assert model.said("device out")[0].serving
        assert not model.said("model unavailable")
        model.faults.clear()
        model.comeback.set()
        until(lambda: not model.engine.devices_out)


def test_items_of_a_hung_device_run_on_another() -> None:
    model = Model(("cuda:0", "cuda:1"), max_batch=1)
    with serving(model) as scheduler:
        model.fails("hang", device="cuda:1")
        job, got = model.job(1, 20)
        stopwatch = Stopwatch()
        scheduler.submit(job, stopwatch)
        until(lambda: model.faults.hanging == 1 and len(got) == 19)
        scheduler.watch(1000)
        assert job.done.result(TIMEOUT_S) is None
        assert sorted(got) == [(2.0, 2.0 * index) for index in range(20)]
        assert recovered(stopwatch) == ["retried on another device, cuda:0"]


def test_both_devices_share_one_queue() -> None:
    model = Model(("cuda:0", "cuda:1"), max_batch=1)
    with serving(model) as scheduler:
        model.fails("hang")
        jobs = [model.job(number) for number in (1, 2, 3)]
        for job, _ in jobs:
            scheduler.submit(job)
        until(lambda: model.faults.hanging == 2)
        assert scheduler.stats().jobs_waiting == 1
        model.faults.clear()
        for job, _ in jobs:
            assert job.done.result(TIMEOUT_S) is None
        busy: dict[str, Any] = dict(scheduler.stats().busy_by_slot_s)
        assert sorted(busy) == ["cuda:0/0", "cuda:1/0"]
