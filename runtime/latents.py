"""Draws latents and labels from a seed. Server, build and evaluation call it, so they all draw the same samples.

Sample k of seed s is always the same, whatever the count and the batch size: every sample has its own stream of the
counter-based Philox generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key holds the
seed and the purpose (latent or label), the counter holds the sample's number. Normal values are computed from raw
64-bit words through the inverse distribution function, so they do not depend on numpy's algorithms.

Drawing holds Python's lock, for which other requests wait, so most values are computed for all samples at once. They are
those of `statistics.NormalDist`, before they are rounded to float32.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

LATENT, LABEL = 0, 1  # the purpose of a stream
NORMAL = NormalDist()
# Wichura 1988, "Algorithm AS 241: the percentage points of the normal distribution", as statistics.NormalDist: for levels
# within CENTRE of one half, a quotient of polynomials in CENTRE_SQUARED - distance²; highest power first.
CENTRE, CENTRE_SQUARED = 0.425, 0.180625
NUMERATOR = (
    2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
    1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
)  # fmt: skip
DENOMINATOR = (
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
)  # fmt: skip
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
    uniform = np.empty((count, size))
    for row in range(count):
        uniform[row] = _uniform(seed, LATENT, first + row, size)
    return normal(np.minimum(low + uniform * (high - low), LARGEST_BELOW_ONE)).astype(np.float32)


def draw_labels(seed: int, first: int, count: int, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw labels uniformly: [count] int64 in 0 … classes - 1. seed, first, count: as for `draw`."""
    uniform = [_uniform(seed, LABEL, first + row, 1)[0] for row in range(count)]
    return (np.array(uniform) * classes).astype(np.int64)


def normal(levels: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values below which a standard normal variable lies with these probabilities, strictly between 0 and 1."""
    distance = levels - 0.5
    squared = CENTRE_SQUARED - distance * distance
    values = _polynomial(NUMERATOR, squared) * distance / _polynomial(DENOMINATOR, squared)
    tails = np.abs(distance) > CENTRE
    values[tails] = [NORMAL.inv_cdf(level) for level in levels[tails].tolist()]
    return values


def _polynomial(
    coefficients: tuple[float, ...], values: np.ndarray[Any, np.dtype[np.float64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.full_like(values, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * values + coefficient
    return total


def _uniform(seed: int, purpose: int, sample: int, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[size] float64 strictly between 0 and 1."""
    # As arrays: numpy converts a list with a 64-bit number to float64, which makes neighbouring seeds equal.
    key, counter = np.array([seed, purpose], np.uint64), np.array([0, 0, sample, 0], np.uint64)
    generator = np.random.Philox(key=key, counter=counter)
    words = generator.random_raw(size)
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
