"""Compares two arrays by PSNR and largest difference. verify.py and tiles.py call `difference` and get a Difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from export.families.spec import Tolerance
from runtime.tensors import Array, TensorSpec

# The PSNR of equal arrays would be infinite, which JSON cannot hold. Rounding to float32 alone gives about 150 dB.
EQUAL_DB = 200.0


@dataclass(frozen=True)
class Difference:
    """psnr_db: PSNR with the width of the output's range as peak, at most 200. max_abs: the largest absolute difference of
    one value, in units of the output.
    """

    psnr_db: float
    max_abs: float

    def within(self, tolerance: Tolerance) -> bool:
        return self.psnr_db >= tolerance.psnr_db and self.max_abs <= tolerance.max_abs

    def worst(self, other: Difference) -> Difference:
        return Difference(min(self.psnr_db, other.psnr_db), max(self.max_abs, other.max_abs))

    def __str__(self) -> str:
        return f"{self.psnr_db:.1f} dB, at most {self.max_abs:.2g} off"


NONE = Difference(EQUAL_DB, 0.0)


def difference(actual: Array, expected: Array, *, peak: float) -> Difference:
    """Compare two arrays of one shape, in float64. Raises ValueError where the shapes differ."""
    if actual.shape != expected.shape:
        raise ValueError(f"shapes differ: {actual.shape} and {expected.shape}")
    off = np.abs(actual.astype(np.float64) - expected)
    mean_square = float(np.mean(off * off))
    psnr = EQUAL_DB if mean_square == 0 else min(EQUAL_DB, 10 * math.log10(peak * peak / mean_square))
    return Difference(round(psnr, 2), float(off.max()))


def peak(spec: TensorSpec) -> float:
    """The width of an output's range."""
    low, high = spec.range or (0.0, 1.0)
    return high - low
