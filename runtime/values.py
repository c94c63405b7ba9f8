"""Values of pixels: the one place where [0, 1] becomes a model's own range and comes back, and where levels are rounded.

Pictures are float32 in [0, 1] everywhere in the project, except inside a network: its SPEC says which range its input
and its output have, as [-1, 1]. Build, evaluation, benchmarks and server all convert here.
"""

from __future__ import annotations

import numpy as np

from runtime.errors import EngineError
from runtime.tensors import Array, TensorSpec

UNIT = (0.0, 1.0)


def value_range(spec: TensorSpec) -> tuple[float, float]:
    """The values of black and of white in a picture's tensor. Raises EngineError where there are none."""
    if spec.range is None:
        raise EngineError(f"{spec.name}: has no range, expected the values of black and of white")
    return spec.range


def to_model(values: Array, spec: TensorSpec) -> Array:
    """float32 in [0, 1], any shape → float32 in the range of `spec`; the array itself where that is [0, 1]."""
    low, high = value_range(spec)
    if (low, high) == UNIT:
        return values
    scaled = values * np.float32(high - low)
    scaled += np.float32(low)
    return scaled


def from_model(values: Array, spec: TensorSpec) -> Array:
    """float32 in the range of `spec`, any shape → float32 in [0, 1], not clipped; the array itself where it is there."""
    low, high = value_range(spec)
    if (low, high) == UNIT:
        return values
    scaled = values - np.float32(low)
    scaled *= np.float32(1 / (high - low))
    return scaled


def to_levels(values: Array, dtype: np.typing.DTypeLike, low: float = 0.0, high: float = 1.0) -> Array:
    """float32 in [low, high], clipped and rounded to the levels of `dtype`, uint8 or uint16; any shape, a new array."""
    most = float(np.iinfo(np.dtype(dtype)).max)
    scaled = values - np.float32(low) if low else values.copy()
    scaled *= np.float32(most / (high - low))
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, most, out=scaled).astype(dtype, copy=False)
