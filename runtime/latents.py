"""Draws latents and labels from a seed. Server, build and evaluation call it, so they all draw the same samples.

Sample k of seed s is always the same, whatever the count and the batch size: every sample has its own stream of the
counter-based Philox generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key holds the
seed and the purpose (latent or label), the counter holds the sample's number. Normal values are computed from raw
64-bit words through the inverse distribution function, so they do not depend on numpy's algorithms.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

LATENT, LABEL = 0, 1  # the purpose of a stream
NORMAL = NormalDist()
LARGEST_BELOW_ONE = 1 - 2.0**-53  # sums that round up to 1 are clamped to it: the inverse of 1 is infinite


def draw(
    seed: int, first: int, count: int, size: int, truncation: float | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw standard normal latents.

    seed: 0 to 2⁶⁴ - 1. first, count: draw samples first … first + count - 1 of the seed. size: values per latent.
    truncation: draw from the normal distribution truncated to ±truncation (BigGAN's truncation trick); None: no limit.
    Returns [count, size] float32.
    """
    low, high = (0.0, 1.0) if truncation is None else (NORMAL.cdf(-truncation), NORMAL.cdf(truncation))
    latents = np.empty((count, size), np.float32)
    for row in range(count):
        uniform = _uniform(seed, LATENT, first + row, size)
        levels = (min(low + value * (high - low), LARGEST_BELOW_ONE) for value in uniform.tolist())
        latents[row] = [NORMAL.inv_cdf(level) for level in levels]
    return latents


def draw_labels(seed: int, first: int, count: int, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw labels uniformly: [count] int64 in 0 … classes - 1. seed, first, count: as for `draw`."""
    uniform = [_uniform(seed, LABEL, first + row, 1)[0] for row in range(count)]
    return (np.array(uniform) * classes).astype(np.int64)


def _uniform(seed: int, purpose: int, sample: int, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[size] float64 strictly between 0 and 1."""
    # As arrays: numpy converts a list with a 64-bit number to float64, which makes neighbouring seeds equal.
    key, counter = np.array([seed, purpose], np.uint64), np.array([0, 0, sample, 0], np.uint64)
    generator = np.random.Philox(key=key, counter=counter)
    words = generator.random_raw(size)
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
