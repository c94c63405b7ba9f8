"""The shipped photographs as arrays (`crop`). The tile search, verification, preview and benchmarks run models on them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from runtime.pixels import decode, to_float
from runtime.tensors import Array

ASSETS = Path(__file__).resolve().parents[1] / "assets"
NAMES = ("astronaut.jpg", "rocket.jpg")
# Where crops are centred, on the picture's subject, as shares of its height and width.
CENTRES = {"astronaut.jpg": (0.22, 0.44), "rocket.jpg": (0.5, 0.5)}


@cache
def _pixels(name: str) -> Array:
    return to_float(decode((ASSETS / name).read_bytes(), max_pixels=1 << 20))


def crop(height: int, width: int, *, channels: int = 3, name: str = NAMES[0]) -> Array:
    """A crop around the picture's subject, mirrored beyond its edges: [channels, height, width] float32 in [0, 1].

    One channel is the mean of R, G and B; more than three repeat them. name: one of NAMES.
    """
    colours = _pixels(name)
    picture = colours.mean(axis=0, keepdims=True) if channels == 1 else colours[np.arange(channels) % 3]
    rows, columns = (
        _window(length, wanted, centre)
        for length, wanted, centre in zip(picture.shape[1:], (height, width), CENTRES[name], strict=True)
    )
    return np.ascontiguousarray(picture[:, rows][:, :, columns])


def _window(length: int, wanted: int, centre: float) -> Array:
    """Indices of `wanted` pixels of an axis of `length` around `centre`, reflected at its ends."""
    start = round(centre * length) - wanted // 2
    start = min(max(start, 0), max(length - wanted, 0))
    folded = (np.arange(wanted) + start) % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)
