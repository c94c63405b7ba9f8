"""TensorRT engines that heal, on a GPU made of host memory: a device error, and a plan that no longer loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.healing import HealingEngine, Way
from runtime.jobs import Item, Job
from runtime.scheduler import Scheduler
from runtime.stopwatch import Stopwatch
from runtime.tensors import Array
from tests.runtime.fake_gpu import Code, FakeCudart
from tests.runtime.test_tensorrt_backend import MANIFEST, make_engine

FAILING = "cudaGraphLaunch"


class OnCPU(Engine):
    backend = "onnxruntime"

    def __init__(self) -> None:
        super().__init__(
            Bundle(Path("nowhere"), MANIFEST), device="CPU", precision="float32", slots=1, batch_sizes=(1,)
        )

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"upscaled": inputs["image"].repeat(2, axis=2).repeat(2, axis=3)}


def upscaled(cudart: FakeCudart, open_again: Callable[[], Engine]) -> tuple[Array, Stopwatch]:
    """A tile's answer, whose first run meets a device error. open_again: what a fresh engine is."""
    ways = [
        Way("a fresh engine", "fresh engine", open_again),
        Way("onnxruntime on CPU instead of tensorrt", "next backend", OnCPU, elsewhere=True),
    ]
    engine = HealingEngine({"cuda:0": (make_engine(cudart), ways)})
    engine.warm_up()
    got: list[Any] = []
    image = np.random.default_rng(0).random((3, 8, 8), np.float32)[: MANIFEST.inputs[0].shape[1]]
    job = Job(
        engine,
        [Item((8, 8), 64)],
        inputs=lambda index: {"image": image},
        deliver=lambda index, outputs: got.append(outputs["upscaled"]),
    )
    stopwatch, scheduler = Stopwatch(), Scheduler(slots=dict(engine.slots_by_device))
    cudart.fail[FAILING] = Code.cudaErrorIllegalState
    scheduler.submit(job, stopwatch)
    assert job.done.result(30) is None
    scheduler.close()
    cudart.fail.clear()
    engine.close()
    np.testing.assert_array_equal(got[0], image.repeat(2, axis=1).repeat(2, axis=2))
    return got[0], stopwatch


def test_a_device_error_is_healed_by_a_fresh_engine() -> None:
    cudart = FakeCudart()

    def open_again() -> Engine:
        cudart.fail.clear()  # the device has recovered
        return make_engine(cudart)

    _, stopwatch = upscaled(cudart, open_again)
    assert list(stopwatch.ran.recovered) == ["retried on a fresh engine"]
    assert (stopwatch.ran.backend, stopwatch.ran.device) == ("tensorrt", "cuda:0")


def test_a_plan_that_no_longer_loads_is_left_for_the_next_backend() -> None:
    def open_again() -> Engine:
        raise EngineError("the plan was built for another GPU")

    _, stopwatch = upscaled(FakeCudart(), open_again)
    assert list(stopwatch.ran.recovered) == ["onnxruntime on CPU instead of tensorrt"]
    assert (stopwatch.ran.backend, stopwatch.ran.device) == ("onnxruntime", "CPU")
