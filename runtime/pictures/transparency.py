"""Colour under transparency. Nobody sees it, but a network that enlarges the picture would spread it over the edges."""

from __future__ import annotations

import numpy as np

from runtime.tensors import Array


def fill(colour: Array, alpha: Array) -> Array:
    """[C, H, W] float32, the colours under alpha = 0 (alpha: [H, W]) replaced by those of the nearest visible pixels.

    The means of ever larger squares: what lies in a square with visible pixels gets their mean. No value of a hidden
    pixel is looked at, so whatever is stored there, the visible colours come out the same. Where nothing is visible
    the result is black.
    """
    visible = alpha > 0
    if visible.all():
        return colour
    return _filled(np.where(visible, colour, np.float32(0)), visible)


def _filled(colour: Array, visible: Array) -> Array:
    height, width = visible.shape
    if visible.all() or height * width == 1:
        return colour
    odd = ((0, height % 2), (0, width % 2))
    weights = _quartered(np.pad(visible, odd).astype(np.float32))
    sums = _quartered(np.pad(colour, ((0, 0), *odd)))
    coarse = _filled(sums / np.maximum(weights, 1), weights > 0)
    enlarged = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
    return np.where(visible, colour, enlarged)


def _quartered(values: Array) -> Array:
    """[..., 2·H, 2·W] → [..., H, W]: the sums of squares of four."""
    return values[..., ::2, ::2] + values[..., 1::2, ::2] + values[..., ::2, 1::2] + values[..., 1::2, 1::2]
