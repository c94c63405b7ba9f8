"""Converts pixel values: [0, 1] to a model's own range and back, and floats to 8- or 16-bit levels.

Pictures are float32 in [0, 1] everywhere in the project except inside a network, whose SPEC states the ranges of its
input and output, such as [-1, 1]. Tiler, samples, build and evaluation all convert here and nowhere else.
"""

from __future__ import annotations

import numpy as np

from runtime.errors import EngineError
from runtime.tensors import Array, TensorSpec

UNIT = (0.0, 1.0)


def value_range(spec: TensorSpec) -> tuple[float, float]:
    """The values of black and white in a picture's tensor. Raises EngineError if the tensor has no range."""
    if spec.range is None:
        raise EngineError(f"{spec.name}: has no range, expected the values of black and of white")
    return spec.range


def to_model(values: Array, spec: TensorSpec) -> Array:
    """float32 in [0, 1] of any shape → float32 in the range of `spec`. Returns `values` itself if that is [0, 1]."""
    low, high = value_range(spec)
    if (low, high) == UNIT:
        return values
    scaled = values * np.float32(high - low)
    scaled += np.float32(low)
    return scaled


def from_model(values: Array, spec: TensorSpec) -> Array:
    """float32 in the range of `spec`, of any shape → float32, not clipped, in which black is 0 and white is 1.

    Returns `values` itself if the range is [0, 1].
    """
    low, high = value_range(spec)
    if (low, high) == UNIT:
        return values
    scaled = values - np.float32(low)
    scaled *= np.float32(1 / (high - low))
    return scaled


def to_levels(values: Array, dtype: np.typing.DTypeLike, low: float = 0.0, high: float = 1.0) -> Array:
    """float32 of any shape → a new array of `dtype` (uint8 or uint16), clipped and rounded. low, high: black and white."""
    most = float(np.iinfo(np.dtype(dtype)).max)
    scaled = values - np.float32(low) if low else values.copy()
    scaled *= np.float32(most / (high - low))
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, most, out=scaled).astype(dtype, copy=False)
