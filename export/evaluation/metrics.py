"""PSNR and SSIM of 8-bit pictures as super-resolution papers compute them, in float64.

restoration.py and the ESRGAN recipes call these functions; they give the scale as the border to leave out on each side, as
papers do. Luma is that of BT.601, unrounded, as in BasicSR. torchmetrics has both figures, but its SSIM mirrors a picture at
its edges, where papers leave out the pixels whose window does not fit.
"""

from __future__ import annotations

import numpy as np

from runtime.errors import InvalidInput
from runtime.tensors import Array

LUMA = np.array([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, studio range: 16 to 235
PEAK = 255.0
# The least mean square error: equal pictures would have an infinite PSNR, which JSON cannot hold.
LEAST_ERROR = 1e-10
# Of SSIM: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
WINDOW_PX, SIGMA_PX = 11, 1.5


def luma(image: Array) -> Array:
    """[H, W, 3] uint8 RGB → [H, W] float64 in [16, 235]."""
    return image.astype(np.float64) @ LUMA + 16


def inside(image: Array, border_px: int) -> Array:
    """[H, W, …] without `border_px` pixels on each side."""
    return image[border_px : image.shape[0] - border_px, border_px : image.shape[1] - border_px]


def psnr_db(image: Array, reference: Array, border_px: int) -> float:
    """PSNR in dB between two arrays [H, W] or [H, W, C] of values in [0, 255], peak 255, over all channels at once."""
    error = inside(image, border_px).astype(np.float64) - inside(reference, border_px)
    return float(10 * np.log10(PEAK**2 / max(float(np.mean(error**2)), LEAST_ERROR)))


def psnr_y_db(image: Array, reference: Array, border_px: int) -> float:
    """PSNR in dB between the luma of two [H, W, 3] uint8 pictures."""
    return psnr_db(luma(image), luma(reference), border_px)


def ssim(image: Array, reference: Array, border_px: int) -> float:
    """SSIM in [-1, 1] of two arrays [H, W] or [H, W, C] of values in [0, 255]: the mean over channels and pixels.

    With an 11×11 gaussian window, σ 1.5, at all places where it lies inside the picture. Raises InvalidInput if there is none.
    """
    a, b = (inside(picture, border_px).astype(np.float64) for picture in (image, reference))
    if min(a.shape[:2]) < WINDOW_PX:
        raise InvalidInput(
            "hr",
            f"a picture is {image.shape[1]}×{image.shape[0]} px, too small for SSIM: expected at least "
            f"{WINDOW_PX + 2 * border_px} px a side",
        )
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_a, mean_b = blurred(a), blurred(b)
    variances = blurred(a * a) - mean_a**2 + blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (variances + c2)))


def blurred(image: Array) -> Array:
    """[H, W, …] → [H - 10, W - 10, …]: the weighted mean under SSIM's window, computed along one axis after the other."""
    place = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(place**2) / (2 * SIGMA_PX**2))
    weights /= weights.sum()
    height, width = (side - WINDOW_PX + 1 for side in image.shape[:2])
    tall = sum(weight * image[first : first + height] for first, weight in enumerate(weights))
    return sum(weight * tall[:, first : first + width] for first, weight in enumerate(weights))
