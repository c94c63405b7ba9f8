"""Tests of the degradation of photographs: kernels by formula, each option's effect, and that a seed decides all."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from export.data import kernels
from export.data.degradation import Degradation, DegradationOptions
from export.data.resize import resize
from runtime.errors import InvalidInput

SCALE = 4
# No stage does anything but the last resize.
OFF = DegradationOptions(
    blur=0, second_blur=0, noise=0, jpeg=0, final_sinc=0, resize="0,0,1", second_resize="0,0,1"
)


def waves(finest_px: float) -> np.ndarray:
    """A picture of waves, [160, 192, 3] uint8."""
    down, across = np.mgrid[0:160, 0:192]
    planes = [np.sin(down / 7), np.cos(across / 11), np.sin((down + across) / finest_px)]
    return (np.stack(planes, axis=2) * 120 + 128).astype(np.uint8)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return waves(finest_px=3)


def crop(image: np.ndarray, options: DegradationOptions, seed: int = 0) -> np.ndarray:
    return options.reduction(SCALE)(image, range(9, 29), range(12, 32), seed)


def differs(first: np.ndarray, second: np.ndarray) -> bool:
    return not np.array_equal(first, second)


@given(
    sigma=st.tuples(st.floats(0.3, 4), st.floats(0.3, 4)),
    turn=st.floats(-math.pi, math.pi),
    beta=st.floats(0.5, 4),
    half=st.integers(3, 10),
)
@settings(max_examples=50, deadline=None)
def test_kernels_are_the_papers_formulas(
    sigma: tuple[float, float], turn: float, beta: float, half: int
) -> None:
    """Equations 2 and 3 of Real-ESRGAN, with the covariance matrix written out."""
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    inverse = np.linalg.inv(rotation @ np.diag(np.square(sigma)) @ rotation.T)
    expected = {name: np.zeros((2 * half + 1, 2 * half + 1)) for name in kernels.PROFILES}
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            power = np.array([j, i]) @ inverse @ np.array([j, i])
            expected["gaussian"][i + half, j + half] = math.exp(-0.5 * power)
            expected["generalised"][i + half, j + half] = math.exp(-0.5 * power**beta)
            expected["plateau"][i + half, j + half] = 1 / (1 + power**beta)
    for name, values in expected.items():
        made = kernels.blur(name, 2 * half + 1, sigma, turn, beta).numpy()
        assert np.allclose(made, values / values.sum(), atol=1e-6), name


def test_a_sinc_kernel_passes_what_is_below_its_cutoff_and_stops_the_rest() -> None:
    kernel = kernels.sinc(21, math.pi / 2).double()
    response = torch.fft.fft2(F.pad(kernel, (0, 107, 0, 107))).abs()  # 128 frequencies along each axis
    assert math.isclose(float(kernel.sum()), 1, abs_tol=1e-6)
    assert float(response[0, 16]) == pytest.approx(1, abs=0.1)  # π/4
    assert float(response[0, 48]) == pytest.approx(0, abs=0.1)  # 3π/4
    assert float(kernel.min()) < 0  # it rings


def test_a_seed_decides_a_crop(image: np.ndarray) -> None:
    options = DegradationOptions()
    assert np.array_equal(crop(image, options, 3), crop(image, options, 3))
    assert differs(crop(image, options, 3), crop(image, options, 4))


@given(seed=st.integers(0, 2**62), top=st.integers(0, 39), left=st.integers(0, 47), side=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_a_crop_has_its_size_wherever_it_lies(
    image: np.ndarray, seed: int, top: int, left: int, side: int
) -> None:
    rows, columns = range(top, min(top + side, 40)), range(left, min(left + side, 48))
    made = DegradationOptions(plain=0.3).reduction(SCALE)(image, rows, columns, seed)
    assert made.shape == (len(rows), len(columns), 3)
    assert made.dtype == np.uint8


def test_a_plain_crop_is_matlabs_reduction(image: np.ndarray) -> None:
    plain = DegradationOptions(plain=1, plain_jpeg=0)
    assert np.array_equal(crop(image, plain), resize(image, 1 / SCALE)[9:29, 12:32])
    smooth = waves(finest_px=17)
    saved = crop(smooth, DegradationOptions(plain=1, plain_jpeg=1, jpeg_quality="40,40"))
    error = np.abs(saved.astype(float) - crop(smooth, plain)).mean()
    assert 0.5 < error < 15  # as JPEG of this quality does, and the crop is the same place


def test_with_every_stage_off_a_crop_is_only_resized(image: np.ndarray) -> None:
    """By one of the three methods, not antialiased but for "area", which is the mean of 4×4 pixels."""
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
    ways = [
        F.interpolate(x, scale_factor=1 / SCALE, mode="area"),
        F.interpolate(x, scale_factor=1 / SCALE, mode="bilinear"),
        F.interpolate(x, scale_factor=1 / SCALE, mode="bicubic"),
    ]
    expected = [
        way[0].permute(1, 2, 0).round().clamp(0, 255).numpy()[9:29, 12:32].astype(int) for way in ways
    ]
    met = set()
    for seed in range(12):
        made = crop(image, OFF, seed).astype(int)
        near = [number for number, way in enumerate(expected) if np.abs(made - way).max() <= 1]
        assert near, seed
        met |= set(near)
    assert met == {0, 1, 2}


@pytest.mark.parametrize(
    "change",
    [
        {"blur": 1, "blur_sigma": "2,3"},
        {"second_blur": 1, "second_blur_sigma": "2,3"},
        {"blur": 1, "sinc": 1},
        {"noise": 1, "gaussian": 1, "second": 0},
        {"noise": 1, "gaussian": 0, "poisson": "2,3", "second": 0},
        {"resize": "0,1,0", "resize_range": "0.2,0.3"},
        {"second_resize": "0,1,0", "second_resize_range": "0.2,0.3"},
        {"jpeg": 1, "second": 0},
        {"final_sinc": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_stage_does_something(image: np.ndarray, change: dict[str, Any]) -> None:
    """Any one of the three resizes gives another crop when this stage alone is on."""
    without = [crop(image, OFF, seed) for seed in range(12)]
    made = crop(image, replace(OFF, **change), 5).astype(int)
    assert all(np.abs(made - plain).max() > 2 for plain in without)


@pytest.mark.parametrize("grey", [0, 1])
def test_noise_has_the_strength_and_colour_asked_for(grey: int) -> None:
    flat = np.full((400, 400, 3), 128, np.uint8)
    options = replace(OFF, noise=1, gaussian=1, grey_noise=grey, noise_sigma="20,20", second=0)
    means = []
    for seed in range(6):
        made = options.reduction(1)(flat, range(400), range(400), seed).astype(float) - 128
        means.append(made.std())
        alike = np.abs(made[..., 0] - made[..., 1]).max()
        assert (alike == 0) == bool(grey)
    assert max(means) == pytest.approx(20, rel=0.03)


def test_poisson_noise_grows_with_the_light() -> None:
    """Its variance is proportional to the value (equation 5's photon noise)."""
    steps = np.repeat(np.repeat(np.linspace(10, 250, 16).astype(np.uint8), 32)[None], 256, axis=0)
    ramp = np.repeat(steps[..., None], 3, axis=2)
    options = replace(OFF, noise=1, gaussian=0, grey_noise=0, poisson="0.5,0.5", second=0)
    made = options.reduction(1)(ramp, range(256), range(512), 1).astype(float)
    variance = (made - ramp).reshape(256, 16, 32, 3).transpose(1, 0, 2, 3).reshape(16, -1).var(axis=1)
    assert variance[8] / variance[2] == pytest.approx(steps[0, 8 * 32] / steps[0, 2 * 32], rel=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur": 1.5}, "blur: got 1.5, expected a probability between 0 and 1"),
        ({"plain": -0.1}, "plain: got -0.1"),
        ({"jpeg_quality": "0,95"}, "jpeg_quality: got '0,95', expected two numbers from 1 to 100, rising"),
        ({"jpeg_quality": "95,30"}, "jpeg_quality: got '95,30'"),
        ({"blur_sigma": "0.2"}, "blur_sigma: got '0.2', expected 2 numbers separated by commas"),
        ({"resize": "0.2,x,0.1"}, "resize: got '0.2,x,0.1', expected 3 numbers"),
        ({"second_resize": "0,0,0"}, "second_resize: got '0,0,0', expected 3 shares of 0 or more, not all 0"),
        ({"kernel_shapes": "1,1,1,1,1,-1"}, "kernel_shapes: got"),
        ({"poisson": "nan,nan"}, "poisson: got 'nan,nan'"),
    ],
)
def test_an_impossible_option_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        DegradationOptions(**change).reduction(SCALE)
    assert message in str(caught.value)


def test_every_option_is_checked() -> None:
    """None is left out of what Degradation parses: each with a value that no option can have is refused."""
    for field in fields(DegradationOptions):
        wrong: Any = -1.0 if isinstance(field.default, float) else "-1"
        with pytest.raises(InvalidInput, match=field.name):
            Degradation(replace(DegradationOptions(), **{field.name: wrong}), SCALE)


def test_a_round_may_be_left_out(image: np.ndarray) -> None:
    """Without the second round its blur has no effect."""
    without = [crop(image, OFF, seed).astype(int) for seed in range(12)]
    blurred = replace(OFF, second=0, second_blur=1, second_blur_sigma="2,3")
    made = crop(image, blurred, 5).astype(int)
    assert any(np.abs(made - plain).max() <= 2 for plain in without)
