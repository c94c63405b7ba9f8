"""How super-resolution papers measure: PSNR on BT.601 luma, without the border, in float64."""

from __future__ import annotations

import numpy as np

LUMA = np.array([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, studio range: 16 to 235


def luma(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 RGB → [H, W] float64 in [16, 235]."""
    return image.astype(np.float64) @ LUMA + 16


def psnr_y_db(image: np.ndarray, reference: np.ndarray, border_px: int) -> float:
    """PSNR in dB between two [H, W, 3] uint8 pictures, peak 255, without `border_px` pixels on each side."""
    inside = (slice(border_px, -border_px or None),) * 2
    error = luma(image)[inside] - luma(reference)[inside]
    return float(10 * np.log10(255**2 / max(np.mean(error**2), 1e-10)))
