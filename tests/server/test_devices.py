"""One model on two devices behind one queue: both compute, callers take turns, and one that fails is done without."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from protos import ganforge_pb2 as pb
from runtime.healing import HealingEngine, Way
from runtime.tensors import Array
from tests.faulty_engine import Fault, Faults, inject
from tests.server.conftest import (
    FakeUpscaler,
    Serve,
    Served,
    decoded,
    expected,
    levels_apart,
    picture,
    png,
    until,
)


class Devices:
    """An upscaler on two fake devices, whose gates a test may close."""

    def __init__(self, serve: Serve) -> None:
        self.faults = Faults()
        self.sides: dict[str, list[int]] = {"cuda:0": [], "cuda:1": []}  # of each batch's tiles, in px
        self.fakes = {device: self._open(device) for device in ("cuda:0", "cuda:1")}
        ways = {
            device: [Way("a fresh engine", "fresh engine", lambda device=device: self._open(device))]  # type: ignore[misc]
            for device in self.fakes
        }
        self.engine = HealingEngine({device: (fake, ways[device]) for device, fake in self.fakes.items()})
        self.engine.warm_up()
        self.served: Served = serve(self.engine)

    def _open(self, device: str) -> FakeUpscaler:
        fake = FakeUpscaler()
        fake.device = device
        inject(fake, self.faults)
        run = fake._run

        def noted(inputs: dict[str, Array]) -> dict[str, Array]:
            self.sides[device].append(inputs["image"].shape[-1])
            return run(inputs)

        fake._run = noted  # type: ignore[method-assign]
        return fake

    def upscale(self) -> pb.UpscaleResponse:
        answer = self.served.stub.Upscale(pb.UpscaleRequest(image=png(300, 200)), timeout=60)
        assert levels_apart(decoded(answer.image), expected(picture(300, 200))) <= 1
        return answer


@pytest.fixture
def devices(serve: Serve) -> Iterator[Devices]:
    made = Devices(serve)
    yield made
    made.faults.clear()
    for fake in made.fakes.values():
        fake.gate.set()


def test_a_picture_is_computed_on_both(devices: Devices) -> None:
    for fake in devices.fakes.values():
        fake.entered.clear()
        fake.gate.clear()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(devices.upscale)
        for fake in devices.fakes.values():
            assert fake.entered.wait(30)  # tiles are on both devices at the same time
            fake.gate.set()
        timing = answer.result().timing
    assert set(timing.device.split(",")) == {"cuda:0", "cuda:1"}
    (scheduler,) = devices.served.models.schedulers.values()
    assert set(scheduler.stats().busy_by_slot_s) == {"cuda:0/0", "cuda:1/0"}


def test_a_device_that_hangs_or_fails_is_done_without(devices: Devices) -> None:
    devices.faults.add(Fault("hang", device="cuda:0", times=1))
    (scheduler,) = devices.served.models.schedulers.values()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(devices.upscale)
        until(lambda: devices.faults.hanging == 1)
        scheduler.watch(1e6)
        assert answer.result().timing.recovered
    devices.faults.add(Fault("raise", device="cuda:1"))
    until(lambda: bool(devices.upscale() and devices.engine.devices_out))
    assert devices.engine.devices_out == ("cuda:1",)
    answers = [devices.upscale().timing for _ in range(3)]
    assert {timing.device for timing in answers} == {"cuda:0"}
    assert not any(timing.recovered for timing in answers)


def test_a_thumbnail_does_not_wait_for_posters_on_either(devices: Devices) -> None:
    (scheduler,) = devices.served.models.schedulers.values()
    free, busy = devices.fakes["cuda:1"], devices.fakes["cuda:0"]
    for fake in (free, busy):
        fake.entered.clear()
        fake.gate.clear()
    with ThreadPoolExecutor() as pool:
        posters = [pool.submit(devices.upscale) for _ in range(4)]
        until(lambda: scheduler.stats().jobs_waiting == 4 and free.entered.is_set() and busy.entered.is_set())
        request = pb.UpscaleRequest(image=png(20, 20))
        thumbnail = pool.submit(lambda: devices.served.stub.Upscale(request, timeout=60))
        until(lambda: scheduler.stats().jobs_waiting == 5)
        before = len(devices.sides["cuda:1"]), busy.items_run
        free.gate.set()  # one device is enough
        thumbnail.result()
        first = devices.sides["cuda:1"][before[0] :][:2]
        assert first[1] == 20  # after the batch that was there already
        assert busy.items_run == before[1]
        busy.gate.set()
        for poster in posters:
            poster.result()
