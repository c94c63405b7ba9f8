"""Several devices behind one queue, whatever happens in whatever order: no item is lost, none is delivered twice.

A batch stays on its fake device until the test says how it ends: it finishes, fails, fails and leaves its engine broken, or
hangs until the watchdog gives it up and brings its result later.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from runtime.errors import Cancelled, EngineError, NotReady
from runtime.healing import HealingEngine, Way
from runtime.jobs import Item, Job
from runtime.scheduler import Scheduler
from runtime.tensors import Array
from tests.runtime.fake_devices import TIMEOUT_S, Doubler
from tests.server.conftest import until

DEVICES = {"cuda:0": 2, "cuda:1": 1}


@dataclass
class Held:
    """A batch on a device."""

    engine: Scripted
    verdict: queue.Queue[str] = field(default_factory=queue.Queue)


class Scripted(Doubler):
    """Holds each batch until its verdict. Good inputs, all zeros, pass at once unless the engine is broken."""

    def __init__(self, device: str, held: list[Held]) -> None:
        super().__init__(device, "float32", max_batch=3)
        self.slots = DEVICES[device]
        self.broken = False
        self._held = held

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if inputs["latent"].any():
            batch = Held(self)
            self._held.append(batch)
            verdict = batch.verdict.get(timeout=TIMEOUT_S)
            self.broken = self.broken or verdict == "break"
            if verdict != "finish":
                raise EngineError(verdict)
        elif self.broken:
            raise EngineError("broken")
        return super()._run(inputs)


@settings(max_examples=40, stateful_step_count=40, deadline=None)
class Devices(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[Held] = []
        self.hung: list[Held] = []
        self.gone = threading.Event()
        self.numbers = 0
        self.jobs: dict[int, Job] = {}
        self.delivered = Counter[tuple[int, int]]()
        self.engine = HealingEngine(
            {device: (Scripted(device, self.held), self._ways(device)) for device in DEVICES},
            pause=lambda seconds: self.gone.wait(0.01) if seconds >= 10 else self.gone.is_set(),
        )
        self.engine.warm_up()
        self.scheduler = Scheduler(slots=dict(self.engine.slots_by_device), watch_every_s=1000)

    def _ways(self, device: str) -> list[Way]:
        return [Way("a fresh engine", "fresh engine", lambda: Scripted(device, self.held))]

    @rule(items=st.integers(1, 7))
    def submit(self, items: int) -> None:
        number = self.numbers = self.numbers + 1

        def deliver(index: int, outputs: dict[str, Any]) -> None:
            assert outputs["sample"].ravel().tolist() == [2 * number, 2 * index]
            self.delivered[number, index] += 1

        job = Job(
            self.engine,
            [Item((), 1)] * items,
            inputs=lambda index: {"latent": np.array([number, index], np.float32)},
            deliver=deliver,
        )
        with suppress(NotReady):  # both devices may be out
            self.scheduler.submit(job)
            self.jobs[number] = job

    @rule(number=st.integers(1, 20))
    def cancel(self, number: int) -> None:
        if number in self.jobs:
            self.scheduler.cancel(self.jobs[number])

    # What is on the devices depends on the threads, so these rules draw a number and not a batch.

    @rule(which=st.integers(0, 2), verdict=st.sampled_from(["finish", "finish", "finish", "fail", "break"]))
    def end_a_batch(self, which: int, verdict: str) -> None:
        with suppress(AssertionError):  # nothing may be on a device, so it waits only a little
            until(lambda: bool(self.held), 0.003)
        if self.held:
            self.held.pop(which % len(self.held)).verdict.put(verdict)

    @rule()
    def give_up_what_hangs(self) -> None:
        before = list(self.held)
        self.scheduler.watch(1e9)
        for batch in before:
            self.held.remove(batch)
            self.hung.append(batch)

    @rule(verdict=st.sampled_from(["finish", "fail"]))
    def bring_a_result_too_late(self, verdict: str) -> None:
        if self.hung:
            self.hung.pop().verdict.put(verdict)

    def teardown(self) -> None:
        def all_done() -> bool:
            while self.held:
                self.held.pop().verdict.put("finish")
            return all(job.done.done() for job in self.jobs.values())

        try:
            until(all_done, TIMEOUT_S)
            for number, job in self.jobs.items():
                counts = [self.delivered[number, index] for index in range(len(job.items))]
                error = job.done.exception(0)
                assert max(counts) <= 1
                assert isinstance(error, Cancelled | EngineError | NotReady | None)
                assert error is not None or min(counts) == 1
            assert self.scheduler.stats().jobs_waiting == 0
        finally:
            for batch in (*self.held, *self.hung):
                batch.verdict.put("finish")
            self.gone.set()
            self.scheduler.close(5)
            self.engine.close()


TestDevices = Devices.TestCase
