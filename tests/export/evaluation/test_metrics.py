"""Tests of PSNR and SSIM against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from export.evaluation.metrics import luma, psnr_db, psnr_y_db, ssim
from runtime.errors import InvalidInput
from runtime.tensors import Array


def noisy(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_luma_runs_from_16_to_235() -> None:
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luma(ends), [[16, 235]], atol=0.02)  # BT.601's rounded factors sum to 218.984


def test_a_known_error_gives_a_known_figure_and_the_border_does_not_count() -> None:
    reference = np.full((12, 12, 3), 100, np.uint8)
    image = reference + np.uint8(10)
    image[:4] = image[-4:] = image[:, :4] = image[:, -4:] = 0
    error = 10 * (65.481 + 128.553 + 24.966) / 255
    assert psnr_y_db(image, reference, 4) == pytest.approx(20 * np.log10(255 / error), abs=1e-9)
    assert psnr_db(image, reference, 4) == pytest.approx(20 * np.log10(255 / 10), abs=1e-9)


def test_equal_pictures_have_the_largest_figures() -> None:
    image = noisy((20, 20, 3))
    assert psnr_db(image, image, 0) == pytest.approx(148.13, abs=0.01)  # 10·log10(255² / 1e-10)
    assert ssim(image, image, 0) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_the_formula_over_every_whole_window(channels: int) -> None:
    """Wang et al. 2004, written out window by window."""
    image, reference = noisy((19, 23, channels)), noisy((19, 23, channels), seed=1)
    image = (0.5 * image + 0.5 * reference).astype(np.uint8)
    place = np.arange(11) - 5
    line = np.exp(-(place**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(channels):
        for top in range(2, 19 - 2 - 10):
            for left in range(2, 23 - 2 - 10):
                window = (slice(top, top + 11), slice(left, left + 11), channel)
                a, b = image[window].astype(np.float64), reference[window].astype(np.float64)
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * a * a).sum() - mean_a**2, (weights * b * b).sum() - mean_b**2
                both = (weights * a * b).sum() - mean_a * mean_b
                structure = (2 * both + c2) / (var_a + var_b + c2)
                values.append((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure)
    # float64 arithmetic in another order
    assert ssim(image, reference, 2) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_is_the_librarys_where_its_padding_does_not_reach() -> None:
    image, reference = noisy((40, 31, 3)), noisy((40, 31, 3), seed=1)
    first, second = (
        torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float64))
        for picture in (image, reference)
    )
    _, similarity = structural_similarity_index_measure(
        first, second, data_range=255.0, return_full_image=True
    )
    expected = float(similarity[..., 5:-5, 5:-5].mean())
    assert ssim(image, reference, 0) == pytest.approx(expected, abs=1e-9)  # float64 in another order


def test_a_picture_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"18×20 px, too small for SSIM: expected at least 19 px a side"):
        ssim(noisy((20, 18, 3)), noisy((20, 18, 3)), 4)
