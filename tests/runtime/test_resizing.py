"""A picture resized band by band is the picture that libvips resizes as a whole, and the bands do not show."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.pictures.formats import Encoding, PixelFormat
from runtime.pictures.reading import open_picture
from runtime.pictures.resizing import Axis, resized_down
from runtime.pictures.scaling import scaled
from runtime.pictures.writing import Output, as_image
from runtime.tensors import Array

# Of a grey level: sums of floats in another order.
ROUNDING = 1e-3


def noise(height: int, width: int, channels: int = 3) -> Array:
    return np.random.default_rng(height).random((height, width, channels), np.float32)


def bands_of(pixels: Array, rows: int) -> Callable[[], Array]:
    left: Iterator[Array] = iter([pixels[start : start + rows] for start in range(0, len(pixels), rows)])
    return lambda: next(left)


def resized(pixels: Array, to_size: int, rows: int) -> Array:
    return np.concatenate(
        [part.copy() for part in resized_down(bands_of(pixels, rows), len(pixels), to_size)]
    )


@settings(max_examples=150)
@given(size=st.integers(1, 400), to_size=st.integers(1, 400), rows=st.integers(1, 400))
def test_bands_are_resized_as_libvips_resizes_the_whole(size: int, to_size: int, rows: int) -> None:
    pixels = noise(size, 5)
    answer = resized(pixels, to_size, rows)
    wanted = scaled(as_image(pixels, PixelFormat(bits=32)), 5, to_size).numpy().reshape(to_size, 5, 3)
    assert np.abs(answer - wanted).max() * 255 <= ROUNDING
    np.testing.assert_array_equal(answer, resized(pixels, to_size, size))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("factor", [0.13, 0.5, 0.97, 1.3, 2.4])
def test_an_answer_is_what_libvips_makes_of_the_whole(factor: float, channels: int) -> None:
    """Both ways across and down, with colours weighted by alpha where the picture grows."""
    pixels = noise(90, 700, channels)
    width, height = round(700 * factor), round(90 * factor)
    pixel_format = PixelFormat(3, channels == 4, 32)
    output = Output(700, 90, pixel_format, width, height, 8, Encoding("png"))
    answer = open_picture(output.to_memory(pixels), max_pixels=10**6).rows().read(0, height)
    whole = scaled(as_image(pixels, pixel_format), width, height).clamp()
    wanted = whole.numpy().transpose(2, 0, 1)
    assert np.abs(answer - wanted).max() * 255 <= 0.5 + ROUNDING


@pytest.mark.parametrize(
    ("size", "to_size"), [(24_192, 3_024), (12_000, 6_000), (4_000_000, 7), (300, 9_000)]
)
def test_only_few_rows_are_in_work(size: int, to_size: int) -> None:
    """Whatever the factor: of an answer's row that 570,000 rows are a part of, only the sum is kept."""
    axis = Axis(size, to_size)
    assert axis.block_rows <= 32
    assert axis.rows_begun <= max(40, 12 * to_size / size)


def test_no_block_begins_more_rows_than_the_bound_says() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        size, to_size = (int(each) for each in random.integers(1, 500, 2))
        axis = Axis(size, to_size)
        firsts, lasts = axis.firsts(0, to_size), axis.lasts(0, to_size)
        for low in range(0, size, axis.block_rows):
            begun = ((firsts < low + axis.block_rows) & (lasts >= low)).sum()
            assert begun <= axis.rows_begun, (size, to_size)
