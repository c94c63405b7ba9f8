"""PSNR as super-resolution papers state it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.training.data import read_picture
from export.training.metrics import luma, psnr_y_db
from export.training.resize import resize


def test_luma_runs_from_16_to_235() -> None:
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luma(ends), [[16, 235]], atol=0.02)  # BT.601's rounded factors sum to 218.984


def test_a_known_error_gives_a_known_figure_and_the_border_does_not_count() -> None:
    reference = np.full((12, 12, 3), 100, np.uint8)
    image = reference + np.uint8(10)
    image[:4] = image[-4:] = image[:, :4] = image[:, -4:] = 0
    error = 10 * (65.481 + 128.553 + 24.966) / 255
    assert psnr_y_db(image, reference, 4) == pytest.approx(20 * np.log10(255 / error), abs=1e-9)


def test_bicubic_on_set5_gives_the_published_figure(set5: Path) -> None:
    figures = []
    for path in sorted((set5 / "HR").glob("*.png")):
        low = read_picture(set5 / "LR_bicubic/X4" / f"{path.stem}x4.png")
        upscaled = resize(low, 4)
        truth = read_picture(path)[: upscaled.shape[0], : upscaled.shape[1]]
        figures.append(psnr_y_db(upscaled, truth, 4))
    # 28.42 dB in every paper; ours rounds to 8 bits between the passes and gives 28.43.
    assert np.mean(figures) == pytest.approx(28.42, abs=0.02)
