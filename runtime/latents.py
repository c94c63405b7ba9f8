"""Draws latents and labels from a seed. Server, build and evaluation call it, so that they draw the same samples.

The numbers are counter-based: sample k of seed s is the same however many are drawn and however they are batched.

Every sample has its own stream of the Philox generator (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"): the key holds the seed and what is drawn, the counter holds the sample's number. Normal values come from
raw 64-bit words through the inverse distribution function, so they do not depend on numpy's own algorithms.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

LATENT, LABEL = 0, 1  # what a stream is for
NORMAL = NormalDist()
LARGEST_BELOW_ONE = 1 - 2.0**-53  # what a sum that rounds up to 1, where the inverse is infinite, is held at


def draw(
    seed: int, first: int, count: int, size: int, truncation: float | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[count, size] float32, standard normal: samples first … first + count - 1 of `seed` (0 … 2⁶⁴ - 1).

    truncation: draw from the normal distribution cut off at ±truncation (BigGAN's truncation trick).
    """
    low, high = (0.0, 1.0) if truncation is None else (NORMAL.cdf(-truncation), NORMAL.cdf(truncation))
    latents = np.empty((count, size), np.float32)
    for row in range(count):
        uniform = _uniform(seed, LATENT, first + row, size)
        levels = (min(low + value * (high - low), LARGEST_BELOW_ONE) for value in uniform.tolist())
        latents[row] = [NORMAL.inv_cdf(level) for level in levels]
    return latents


def draw_labels(seed: int, first: int, count: int, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[count] int64 in 0 … classes - 1, uniform."""
    uniform = [_uniform(seed, LABEL, first + row, 1)[0] for row in range(count)]
    return (np.array(uniform) * classes).astype(np.int64)


def _uniform(seed: int, purpose: int, sample: int, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[size] float64 strictly between 0 and 1."""
    # As arrays: numpy makes float64 of a list with a number of 64 bits in it, and neighbouring seeds the same.
    key, counter = np.array([seed, purpose], np.uint64), np.array([0, 0, sample, 0], np.uint64)
    generator = np.random.Philox(key=key, counter=counter)
    words = generator.random_raw(size)
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
