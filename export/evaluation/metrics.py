"""How super-resolution papers measure: PSNR and SSIM of 8-bit pictures, without the border, in float64.

Border: as many pixels as the scale, on each side. Luma: BT.601, unrounded, as BasicSR computes it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from runtime.backends.base import Array
from runtime.errors import InvalidInput

LUMA = np.array([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, studio range: 16 to 235
PEAK = 255.0
# Equal pictures have no finite PSNR, which JSON cannot say; 10·log10(255² / 1e-10) stands for it.
LEAST_ERROR = 1e-10
WINDOW_PX, SIGMA_PX = (
    11,
    1.5,
)  # Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity"


def luma(image: Array) -> Array:
    """[H, W, 3] uint8 RGB → [H, W] float64 in [16, 235]."""
    return image.astype(np.float64) @ LUMA + 16


def inside(image: Array, border_px: int) -> Array:
    """[H, W, …] without `border_px` pixels on each side."""
    return image[border_px : image.shape[0] - border_px, border_px : image.shape[1] - border_px]


def psnr_db(image: Array, reference: Array, border_px: int) -> float:
    """PSNR in dB between two arrays [H, W] or [H, W, C] of values in [0, 255], peak 255, over all channels at once."""
    error = inside(image, border_px).astype(np.float64) - inside(reference, border_px)
    return float(10 * np.log10(PEAK**2 / max(np.mean(error**2), LEAST_ERROR)))


def psnr_y_db(image: Array, reference: Array, border_px: int) -> float:
    """PSNR in dB between the luma of two [H, W, 3] uint8 pictures."""
    return psnr_db(luma(image), luma(reference), border_px)


def ssim(image: Array, reference: Array, border_px: int) -> float:
    """SSIM in [-1, 1] of two arrays [H, W] or [H, W, C] of values in [0, 255]: the mean over channels and pixels.

    An 11×11 gaussian window, σ 1.5, where it lies wholly inside the picture. Raises InvalidInput where that is nowhere.
    """
    # Here, so that training, which takes PSNR from this file, starts without the library.
    from torchmetrics.functional.image import structural_similarity_index_measure

    cropped = inside(image, border_px)
    if min(cropped.shape[:2]) < WINDOW_PX:
        raise InvalidInput(
            "hr",
            f"a picture of {image.shape[1]}×{image.shape[0]} px has less than {WINDOW_PX} px a side without its "
            f"border of {border_px} px; SSIM needs them",
        )
    pictures = planes(cropped), planes(inside(reference, border_px))
    similarity = structural_similarity_index_measure(
        *pictures, sigma=SIGMA_PX, kernel_size=WINDOW_PX, data_range=PEAK, return_full_image=True
    )
    margin = WINDOW_PX // 2  # the library pads by reflection; what the padding reached is left out
    return float(similarity[1][..., margin:-margin, margin:-margin].mean())


def planes(image: Array) -> Tensor:
    """[H, W] or [H, W, C] → [1, C, H, W] float64."""
    stacked = image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(stacked, np.float64))[None]
