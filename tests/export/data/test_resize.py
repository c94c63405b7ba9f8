"""Tests that bicubic resizing equals MATLAB's, by hand and on published pictures, and a part that of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.data.pictures import read_picture
from export.data.resize import contributions, resize, resized_part


def test_an_edge_is_reduced_as_worked_out_by_hand() -> None:
    """At 1/2 the taps lie 0.25, 0.75, 1.25 and 1.75 away on each side: 0.4336, 0.1133, -0.0352, -0.0117."""
    edge = np.repeat(np.array([0, 0, 0, 0, 255, 255, 255, 255], np.uint8)[None, :, None], 2, axis=0)
    assert resize(edge, 1 / 2)[0, :, 0].tolist() == [0, 17, 238, 255]


@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4])
def test_weights_sum_to_one_and_taps_lie_inside(scale: float) -> None:
    weights, taps = contributions(7, scale)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)  # float64 rounding only
    assert taps.min() >= 0
    assert taps.max() < 7


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(8, 1 / 4, 2), (9, 1 / 4, 3), (1, 1 / 4, 1), (3, 4, 12)]
)
def test_a_flat_picture_stays_flat_at_the_expected_size(side: int, scale: float, expected: int) -> None:
    flat = np.full((side, side, 3), 200, np.uint8)
    np.testing.assert_array_equal(resize(flat, scale), np.full((expected, expected, 3), 200, np.uint8))


@given(st.data())
def test_a_part_is_reduced_as_the_whole_is_to_the_last_bit(data: st.DataObject) -> None:
    scale = data.draw(st.sampled_from([1, 2, 3, 4, 5, 8]), "scale")
    height, width = (data.draw(st.integers(1, 24), name) for name in ("height", "width"))
    starts = [data.draw(st.integers(0, length - 1), "start") for length in (height, width)]
    stops = [
        data.draw(st.integers(start + 1, length), "stop")
        for start, length in zip(starts, (height, width), strict=True)
    ]
    # Few levels, so that sums fall on halves often: there, the last bit of a float decides.
    levels = np.array(
        data.draw(st.sampled_from([(0, 255), (0, 128, 255), tuple(range(256))]), "levels"), np.uint8
    )
    random = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    image = random.choice(levels, (height * scale, width * scale, 3))
    whole = resize(image, 1 / scale)
    assert whole.shape[:2] == (height, width)
    rows, columns = (range(*ends) for ends in zip(starts, stops, strict=True))
    np.testing.assert_array_equal(
        resized_part(image, 1 / scale, rows, columns),
        whole[rows.start : rows.stop, columns.start : columns.stop],
    )


def test_set5_is_reduced_bit_for_bit(set5: Path) -> None:
    for path in sorted((set5 / "HR").glob("*.png")):
        published = read_picture(set5 / "LR_bicubic/X4" / f"{path.stem}x4.png")
        height, width = (4 * side for side in published.shape[:2])
        np.testing.assert_array_equal(
            resize(read_picture(path)[:height, :width], 1 / 4), published, path.stem
        )
