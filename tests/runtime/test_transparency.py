"""Colours of transparent pixels: without influence on the answer, and filled from visible pixels nearby."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.pictures.transparency import SQUARE_PX, fill, rows_seen
from runtime.tensors import Array

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 90)


def scene(seed: int, height: int, width: int, shown: float, channels: int = 3) -> tuple[Array, Array]:
    """Random colours, and an alpha in blobs that is above 0 in about `shown` of the picture."""
    random = np.random.default_rng(seed)
    colour = random.random((channels, height, width), np.float32)
    blobs = random.random((height // 9 + 1, width // 9 + 1)).repeat(9, 0).repeat(9, 1)[:height, :width]
    alpha = np.where(blobs < shown, random.random((height, width)) + 0.01, 0).astype(np.float32)
    return colour, alpha


@settings(max_examples=60)
@given(SEEDS, SIDES, SIDES, st.floats(0, 1), st.sampled_from([1, 3]))
def test_colours_of_hidden_pixels_have_no_influence(
    seed: int, height: int, width: int, shown: float, channels: int
) -> None:
    colour, alpha = scene(seed, height, width, shown, channels)
    filled = fill(colour, alpha)
    assert (filled.shape, filled.dtype) == (colour.shape, np.float32)
    for other in (0, 1, np.nan, np.inf):
        changed = np.where(alpha > 0, colour, np.float32(other))
        np.testing.assert_array_equal(fill(changed, alpha), filled)


@settings(max_examples=60)
@given(SEEDS, SIDES, SIDES, st.floats(0, 1))
def test_visible_values_stay_and_the_others_lie_between_them(
    seed: int, height: int, width: int, shown: float
) -> None:
    colour, alpha = scene(seed, height, width, shown)
    before = colour.copy()
    filled = fill(colour, alpha)
    np.testing.assert_array_equal(colour, before)  # what came in is left as it was
    visible = alpha > 0
    np.testing.assert_array_equal(filled[:, visible], colour[:, visible])
    if visible.any():
        rounding = 1e-6
        assert filled.max() <= colour[:, visible].max() + rounding
        assert filled.min() >= 0


def beside(mask: Array, steps: int = 1) -> Array:
    """The pixels within `steps` of those of a mask, diagonals counted."""
    height, width = mask.shape
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = np.any([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return mask


@settings(max_examples=60)
@given(SEEDS, SIDES, SIDES, st.floats(0.05, 0.95))
def test_hidden_pixels_beside_visible_ones_get_their_colour(
    seed: int, height: int, width: int, shown: float
) -> None:
    """A hidden pixel that touches a visible one has a colour from within three pixels, wherever the picture is cut."""
    colour, alpha = scene(seed, height, width, shown)
    # Each pixel's colour is its place: two pixels' distance shows in their colours.
    colour[0], colour[1] = np.mgrid[0:height, 0:width]
    visible = alpha > 0
    filled = fill(colour, alpha)
    edge = beside(visible) & ~visible
    rows, columns = np.nonzero(edge)
    assert np.abs(filled[0, rows, columns] - rows).max(initial=0) <= 3
    assert np.abs(filled[1, rows, columns] - columns).max(initial=0) <= 3


def test_far_from_anything_visible_is_black_and_near_is_not() -> None:
    colour, alpha = np.ones((1, 300, 300), np.float32), np.zeros((300, 300), np.float32)
    alpha[150, 150] = 0.01
    filled = fill(colour, alpha)[0]
    near = beside(alpha > 0, SQUARE_PX // 2)
    np.testing.assert_allclose(filled[near], 1, rtol=1e-6)
    assert not filled[~beside(alpha > 0, 2 * SQUARE_PX)].any()


def test_nothing_visible_is_black_and_everything_visible_is_itself() -> None:
    colour = np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)
    assert not fill(colour, np.zeros((7, 5), np.float32)).any()
    assert fill(colour, np.ones((7, 5), np.float32)) is colour


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 260), st.integers(1, 40), st.floats(0, 1), st.data())
def test_filling_by_bands_equals_filling_the_whole_picture(
    seed: int, height: int, width: int, shown: float, data: st.DataObject
) -> None:
    colour, alpha = scene(seed, height, width, shown)
    start = data.draw(st.integers(0, height - 1))
    stop = data.draw(st.integers(start + 1, height))
    first, last = rows_seen(start, stop, height)
    assert 0 <= first <= start < stop <= last <= height
    part = fill(colour[:, first:last], alpha[first:last])
    np.testing.assert_array_equal(part[:, start - first : stop - first], fill(colour, alpha)[:, start:stop])


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 70), st.integers(1, 700), st.floats(0, 1))
def test_filling_by_stripes_equals_filling_the_whole_width(
    seed: int, height: int, width: int, shown: float
) -> None:
    colour, alpha = scene(seed, height, width, shown)
    whole = fill(colour, alpha)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.pictures.transparency.STRIPE_PX", 3 * SQUARE_PX)
        np.testing.assert_array_equal(fill(colour, alpha), whole)


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (1500, 1500)])
def test_large_hidden_areas_cost_no_more_than_small_ones(shape: tuple[int, int]) -> None:
    """One visible pixel in a large hidden area against every other pixel visible; ten times is far from either."""
    colour = np.ones((3, *shape), np.float32)
    rows, columns = np.indices(shape)
    times_s = []
    for alpha in (rows + columns == 0, (rows + columns) % 2 == 0):
        values = alpha.astype(np.float32)
        times_s.append(min(cpu_seconds(lambda values=values: fill(colour, values)) for _ in range(3)))  # type: ignore[misc]
    assert times_s[0] < 10 * times_s[1]


def cpu_seconds(work: Callable[[], object]) -> float:
    start_s = time.process_time()
    work()
    return time.process_time() - start_s
