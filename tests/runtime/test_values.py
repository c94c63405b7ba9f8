"""Conversion of pixel values between [0, 1], a model's range and the levels of a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.errors import EngineError
from runtime.tensors import TensorSpec
from runtime.values import from_model, to_levels, to_model

floats = arrays.arrays(np.float32, st.integers(1, 9), elements=st.floats(0, 1, width=32))
ranges = st.tuples(st.integers(-300, 0), st.integers(1, 300))


def spec(low: float, high: float) -> TensorSpec:
    return TensorSpec("image", "float32", ("N", 3, "H", "W"), (low, high))


def test_black_and_white_become_the_ends_of_the_range_and_come_back() -> None:
    values = np.array([0.0, 0.25, 1.0], np.float32)
    assert to_model(values, spec(-1, 1)).tolist() == [-1.0, -0.5, 1.0]
    assert to_model(values, spec(0, 255)).tolist() == [0.0, 63.75, 255.0]
    assert from_model(np.array([-1.0, -0.5, 1.0], np.float32), spec(-1, 1)).tolist() == [0.0, 0.25, 1.0]
    assert from_model(np.array([0, 63.75, 255], np.float32), spec(0, 255)).tolist() == [0.0, 0.25, 1.0]


@given(floats, ranges)
def test_converting_to_the_model_and_back_keeps_the_value(
    values: np.ndarray, limits: tuple[int, int]
) -> None:
    there = to_model(values, spec(*limits))
    assert there.dtype == np.float32
    back = from_model(there, spec(*limits))
    # One rounding of float32 at the range's own size, each way.
    size = max(map(abs, limits)) / (limits[1] - limits[0])
    np.testing.assert_allclose(back, values, atol=4 * size * 2.0**-23 + 1e-7)


def test_values_beyond_the_range_are_not_clipped() -> None:
    assert from_model(np.array([-3.0, 3.0], np.float32), spec(-1, 1)).tolist() == [-1.0, 2.0]


def test_where_the_range_is_zero_to_one_nothing_is_copied() -> None:
    values = np.zeros(4, np.float32)
    assert to_model(values, spec(0, 1)) is values
    assert from_model(values, spec(0, 1)) is values


def test_the_caller_s_array_stays_as_it_was() -> None:
    values = np.full(4, 0.5, np.float32)
    to_model(values, spec(-1, 1))
    from_model(values, spec(-1, 1))
    to_levels(values, np.uint8)
    assert (values == 0.5).all()


def test_a_tensor_without_a_range_is_refused() -> None:
    latent = TensorSpec("latent", "float32", ("N", 16))
    with pytest.raises(EngineError, match="latent: has no range"):
        to_model(np.zeros(1, np.float32), latent)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0)])
def test_every_level_comes_back_through_the_model_s_range(dtype: type, limits: tuple[float, float]) -> None:
    levels: np.ndarray = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    values = to_model(levels.astype(np.float32) / np.float32(np.iinfo(dtype).max), spec(*limits))
    np.testing.assert_array_equal(to_levels(values, dtype, *limits), levels)
