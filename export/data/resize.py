"""Bicubic resizing as MATLAB's `imresize` does it, by which super-resolution papers make their inputs (`resize`).

The kernel is Keys' cubic with a = -0.5 (1981, "Cubic Convolution Interpolation for Digital Image Processing"), stretched
when reducing, for antialiasing. Rows are resized first, then columns, with rounding to 8 bits in between; so the result
equals the published low-resolution pictures bit for bit. crops.py, pairs.py and the bicubic baseline of the evaluation call it.
"""

from __future__ import annotations

import math

import numpy as np

SUPPORT = 4.0  # input pixels under the kernel at scale 1


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """[H, W, C] uint8 → [ceil(scale·H), ceil(scale·W), C] uint8."""
    rows, columns = (range(math.ceil(length * scale)) for length in image.shape[:2])
    return resized_part(image, scale, rows, columns)


def resized_part(image: np.ndarray, scale: float, rows: range, columns: range) -> np.ndarray:
    """`resize(image, scale)[rows, columns]`, bit for bit, computed only from the pixels that it depends on.

    image: [H, W, C] uint8. rows, columns: contiguous ranges of the result.
    """
    row_weights, row_taps = contributions(image.shape[0], scale, rows)
    column_weights, column_taps = contributions(image.shape[1], scale, columns)
    top, left = row_taps.min(), column_taps.min()
    under = image[top : row_taps.max() + 1, left : column_taps.max() + 1]
    tall = along_rows(under, row_weights, row_taps - top)
    return along_rows(tall.swapaxes(0, 1), column_weights, column_taps - left).swapaxes(0, 1)


def along_rows(image: np.ndarray, weights: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Resize along the rows: [H, W, C] uint8 → [out, W, C] uint8. weights, taps: [out, P], as `contributions` gives them."""
    values = image.astype(np.float64, order="C").reshape(len(image), -1)
    resized = np.zeros((len(weights), values.shape[1]))
    term = np.empty_like(resized)
    # Not a matrix product: its order of summation, and so its rounding, would depend on the part's size.
    for tap in np.flatnonzero(weights.any(axis=0)):
        np.take(
            values, taps[:, tap], axis=0, out=term, mode="clip"
        )  # the default mode copies `out` once more
        term *= weights[:, tap, None]
        resized += term
    resized += 0.5
    np.floor(resized, out=resized)
    return resized.clip(0, 255, out=resized).astype(np.uint8).reshape(-1, *image.shape[1:])


def contributions(length: int, scale: float, outputs: range | None = None) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel, the weights of the input pixels it depends on and their indices: [out, P] float64 and int64.

    length: of the input. outputs: the output pixels to compute, by default all.
    """
    outputs = range(math.ceil(length * scale)) if outputs is None else outputs
    stretch = min(scale, 1.0)
    width = SUPPORT / stretch
    centres = (np.arange(outputs.start, outputs.stop) + 0.5) / scale - 0.5
    first = np.floor(centres - width / 2).astype(np.int64)
    taps = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = cubic((centres[:, None] - taps) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])  # the border pixel is repeated
    return weights, mirrored[taps % (2 * length)]


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel, a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
