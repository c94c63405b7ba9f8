"""Transparency: `fill` replaces the colours of fully transparent pixels, `enlarge` resizes an alpha channel.

Colours under full transparency are invisible, but a network that enlarges the picture would let them bleed into visible
pixels. runtime/tiling/tiled_picture.py calls both functions.
"""

from __future__ import annotations

import numpy as np

from runtime.tensors import Array

LEVELS = 5
# Side of a square of the coarsest level. A hidden pixel without a visible one in its own or a neighbouring square becomes
# black: it is outside the receptive field of visible pixels.
SQUARE_PX = 2**LEVELS
# At most so many rows beyond those to fill are looked at, above and below.
ROWS_SEEN_BEYOND = 2 * SQUARE_PX
# Columns that are filled at a time: copies of them are many, and of the whole width they would need much memory.
STRIPE_PX = 32 * SQUARE_PX


def rows_seen(start: int, stop: int, height: int) -> tuple[int, int]:
    """[first, last) of the rows that `fill` needs to fill rows [start, stop) as it would in the whole picture.

    height: of the whole picture.
    """
    return max(0, (start // SQUARE_PX - 1) * SQUARE_PX), min(height, (-(-stop // SQUARE_PX) + 1) * SQUARE_PX)


def fill(colour: Array, alpha: Array) -> Array:
    """Replace the colours of fully transparent pixels by those of visible pixels nearby.

    colour: [C, H, W] float32. alpha: [H, W], 0 for hidden pixels. Returns [C, H, W] float32.
    The picture is halved repeatedly; a hidden pixel gets the mean of the visible squares around it, at the finest level
    that has any. The old colours of hidden pixels have no influence. After "The pull-push algorithm revisited" (Kraus,
    2009), but with a fixed number of levels, so that a picture can be filled band by band.
    """
    visible = alpha > 0
    if visible.all():
        return colour
    width = colour.shape[2]
    filled = np.empty_like(colour)
    for left in range(0, width, STRIPE_PX):
        right = min(left + STRIPE_PX, width)
        first, last = rows_seen(left, right, width)  # the same holds across
        seen = visible[:, first:last]
        stripe = _filled(np.where(seen, colour[:, :, first:last], np.float32(0)), seen, LEVELS)
        filled[:, :, left:right] = stripe[:, :, left - first : right - first]
    return filled


def _filled(colour: Array, visible: Array, levels: int) -> Array:
    """One level of `fill`. colour: 0 in hidden pixels. visible: [H, W] bool. levels: how many coarser ones follow."""
    if levels == 0 or visible.all() or not visible.any():
        return colour
    height, width = visible.shape
    odd = ((0, height % 2), (0, width % 2))
    counts = _quartered(np.pad(visible, odd).astype(np.float32))
    means = _quartered(np.pad(colour, ((0, 0), *odd))) / np.maximum(counts, 1)
    seen = counts > 0
    filled = _filled(means, seen, levels - 1).repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
    weights = _doubled(seen.astype(np.float32))[:height, :width]
    near = weights > 0
    around = _doubled(means)[:, :height, :width]
    np.divide(around, weights, out=filled, where=near)
    np.copyto(filled, colour, where=visible)
    return filled


def _quartered(values: Array) -> Array:
    """[..., 2·H, 2·W] → [..., H, W]: sums over squares of 2×2 pixels."""
    return values[..., ::2, ::2] + values[..., 1::2, ::2] + values[..., ::2, 1::2] + values[..., 1::2, 1::2]


def _doubled(values: Array) -> Array:
    """[..., H, W] → [..., 2·H, 2·W]: bilinear, with zeros beyond the edge."""
    for axis in (-1, -2):
        twice = np.repeat(values * np.float32(0.75), 2, axis=axis)
        into, quarter = np.moveaxis(twice, axis, 0), np.moveaxis(values * np.float32(0.25), axis, 0)
        into[2::2] += quarter[:-1]
        into[1:-1:2] += quarter[1:]
        values = twice
    return values


def enlarge(alpha: Array, scale: int) -> Array:
    """Enlarge an alpha channel linearly: [H, W] float32 → [S·H, S·W]. A constant channel keeps its exact value."""
    for axis in (0, 1):
        rows = np.moveaxis(alpha, axis, 0)
        before, after = np.concatenate((rows[:1], rows[:-1])), np.concatenate((rows[1:], rows[-1:]))
        enlarged = np.empty((len(rows), scale, rows.shape[1]), np.float32)
        for index in range(scale):
            offset = np.float32((index + 0.5) / scale - 0.5)  # of the new pixel's centre from the old one's
            enlarged[:, index] = rows + abs(offset) * ((after if offset > 0 else before) - rows)
        alpha = np.moveaxis(enlarged.reshape(-1, rows.shape[1]), 0, axis)
    return alpha
