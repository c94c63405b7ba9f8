"""Our bicubic reduction is MATLAB's: by hand, and bit for bit on published pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.training.data import read_picture
from export.training.resize import contributions, resize


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


def test_set5_is_reduced_bit_for_bit(set5: Path) -> None:
    for path in sorted((set5 / "HR").glob("*.png")):
        published = read_picture(set5 / "LR_bicubic/X4" / f"{path.stem}x4.png")
        height, width = (4 * side for side in published.shape[:2])
        np.testing.assert_array_equal(
            resize(read_picture(path)[:height, :width], 1 / 4), published, path.stem
        )
