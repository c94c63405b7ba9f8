"""Tests of the comparison with float32 torch, on fake engines with known errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from export.build.compare import Difference, difference
from export.build.reference import TorchEngine
from export.build.verify import Case, OutOfTolerance, cases, verify
from export.families.spec import Signature, Tolerance
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (-1.0, 1.0))
RESULT = TensorSpec("result", "float32", ("N", 3, "H", "W"), (-1.0, 1.0))
TOLERANCE = Tolerance(60.0, 0.01, "what the tests ask for")


class Wrong(Engine):
    """The identity, off by `error`, a function of the input."""

    backend = "wrong"

    def __init__(
        self,
        error: Callable[[Array], Array] = np.zeros_like,
        batch_sizes: tuple[int, ...] = (1, 2),
        device: str = "CPU",
    ) -> None:
        manifest = Manifest("identity", "upscale", "float16", (IMAGE,), (RESULT,))
        super().__init__(
            Bundle(Path(), manifest), device=device, precision="float32", slots=1, batch_sizes=batch_sizes
        )
        self.error = error

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"result": inputs["image"] + self.error(inputs["image"])}


def compared(*tile_sizes: int) -> list[Case]:
    return cases(Wrong(), Signature((IMAGE,), (RESULT,)), tile_sizes)


def one_value(size: float) -> Callable[[Array], Array]:
    def error(image: Array) -> Array:
        off = np.zeros_like(image)
        off[0, 0, -1, -1] = size
        return off

    return error


def test_every_size_and_tile_is_compared_in_the_models_own_range() -> None:
    verified = verify(Wrong(), compared(40, 72), TOLERANCE)
    shapes = [tuple(row.shapes["image"]) for row in verified.rows]
    assert shapes[-2:] == [(1, 3, 40, 40), (1, 3, 72, 72)]
    assert (1, 3, 1, 1) in shapes
    assert (2, 3, 7, 5) in shapes
    assert verified.worst == Difference(200.0, 0.0)
    lowest = min(case.inputs["image"].min() for case in compared())
    assert -1 <= lowest < -0.5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (one_value(0.02), "at most 0.02 off"),  # PSNR of the larger cases stays above 60 dB
        (
            lambda image: np.full_like(image, 0.004),
            "54.0 dB, at most 0.004 off",
        ),  # the peak is 2, from -1 to 1
    ],
)
def test_a_large_error_of_one_value_or_a_small_one_of_all_is_refused(
    error: Callable[[Array], Array], words: str
) -> None:
    with pytest.raises(OutOfTolerance, match=re.escape(words)):
        verify(Wrong(error), compared()[-1:], TOLERANCE)


def test_a_batch_beyond_the_devices_is_left_out_and_a_cpu_runs_any() -> None:
    on_gpu = verify(Wrong(batch_sizes=(1,), device="cuda:0"), compared(), TOLERANCE)
    assert {row.shapes["image"][0] for row in on_gpu.rows} == {1}
    on_cpu = verify(Wrong(batch_sizes=(1,)), compared(), TOLERANCE)
    assert {row.shapes["image"][0] for row in on_cpu.rows} == {1, 2}


def test_a_budget_leaves_out_what_would_take_too_long_but_not_for_a_runs_overhead() -> None:
    class Slow(Wrong):
        now_s = 0.0

        def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
            self.now_s += 0.3 + 1e-4 * inputs["image"].size
            return super()._run(inputs)

    engine = Slow()
    verified = verify(engine, compared(200), TOLERANCE, budget_s=6.0, clock=lambda: engine.now_s)
    sizes = [tuple(row.shapes["image"][2:]) for row in verified.rows]
    assert (33, 48) in sizes  # the overhead of one pixel's run is not taken for its speed
    assert (200, 200) not in sizes
    assert engine.now_s < 6.0


def test_a_size_that_the_network_does_not_take_is_named() -> None:
    engine = TorchEngine(Wrong().bundle, nn.InstanceNorm2d(3))
    with pytest.raises(
        EngineError,
        match=r"identity cannot run inputs \{'image': \[1, 3, 1, 1\]\} in torch: Expected more than 1",
    ):
        cases(engine, Signature((IMAGE,), (RESULT,)), ())


def test_a_tolerance_limits_both_psnr_and_largest_difference() -> None:
    assert Difference(60.0, 0.01).within(TOLERANCE)
    assert not Difference(59.9, 0.01).within(TOLERANCE)
    assert not Difference(60.0, 0.011).within(TOLERANCE)
    assert Difference(70.0, 0.001).worst(Difference(50.0, 0.0001)) == Difference(50.0, 0.001)


def test_psnr_is_relative_to_the_peak() -> None:
    a, b = np.zeros((4, 4), np.float32), np.full((4, 4), 0.1, np.float32)
    assert difference(a, b, peak=1.0).psnr_db == pytest.approx(20.0, abs=0.01)
    assert difference(a, b, peak=2.0).psnr_db == pytest.approx(26.02, abs=0.01)
    assert difference(a, a, peak=1.0).psnr_db == 200.0
    with pytest.raises(ValueError, match="shapes differ"):
        difference(a, b[:2], peak=1.0)
