"""Transparency: `fill` gives hidden pixels the colours of their neighbours, `enlarge` resizes an alpha channel.

Nobody sees the colour under full transparency, but a network that enlarges the picture would spread it over the edges.
runtime/tiling/tiled_picture.py calls both.
"""

from __future__ import annotations

import numpy as np

from runtime.tensors import Array

LEVELS = 5
# Squares of the coarsest level, in px. Where nothing visible is in a hidden pixel's square or in those around it, the
# pixel becomes black: it is further away than networks look.
SQUARE_PX = 2**LEVELS


def rows_seen(start: int, stop: int, height: int) -> tuple[int, int]:
    """[first, last) of the rows that `fill` must be given, so that [start, stop) come out as from the whole picture."""
    return max(0, (start // SQUARE_PX - 1) * SQUARE_PX), min(height, (-(-stop // SQUARE_PX) + 1) * SQUARE_PX)


def fill(colour: Array, alpha: Array) -> Array:
    """[C, H, W] float32, the colours under alpha = 0 (alpha: [H, W]) replaced by those of visible pixels near by.

    The picture is halved again and again; a hidden pixel gets the mean of the visible squares around it, of the finest
    size that has any. No value of a hidden pixel is looked at, so whatever is stored there, the visible colours come
    out the same. After "The pull-push algorithm revisited" (Kraus, 2009), with only so many levels, so that the rows
    of a picture can be filled band by band.
    """
    visible = alpha > 0
    if visible.all():
        return colour
    return _filled(np.where(visible, colour, np.float32(0)), visible, LEVELS)


def _filled(colour: Array, visible: Array, levels: int) -> Array:
    """colour: 0 where nothing is visible."""
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
    """[..., 2·H, 2·W] → [..., H, W]: the sums of squares of four."""
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
    """[H, W] float32 → [S·H, S·W], linear; pixels' centres keep their places, and a value all over stays exactly so."""
    for axis in (0, 1):
        rows = np.moveaxis(alpha, axis, 0)
        before, after = np.concatenate((rows[:1], rows[:-1])), np.concatenate((rows[1:], rows[-1:]))
        enlarged = np.empty((len(rows), scale, rows.shape[1]), np.float32)
        for index in range(scale):
            offset = np.float32((index + 0.5) / scale - 0.5)  # of the new pixel's centre from the old one's
            enlarged[:, index] = rows + abs(offset) * ((after if offset > 0 else before) - rows)
        alpha = np.moveaxis(enlarged.reshape(-1, rows.shape[1]), 0, axis)
    return alpha
