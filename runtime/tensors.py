"""Describes what a graph takes and gives: name, dtype, shape and range of each tensor. Every room uses it.

Axis letters used in every shape comment of the project:
N batch, C channels, H height, W width, Z latent size, S scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Dtype = Literal["float32", "int64"]
TaskName = Literal["upscale", "translate", "generate"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
# For records that are read from JSON by pydantic: no field may be unknown, and no value is converted to a field's type.
STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; part of a bundle's manifest.

    name: the tensor's name in the graph.
    dtype: "float32" (images, latents, outputs) or "int64" (labels).
    shape: one entry an axis; an int is fixed, a str names an axis that varies, e.g. ("N", 3, "H", "W").
    range: (lowest, highest) value that means something: (0, 1) or (-1, 1) for images, (0, classes - 1) for
        labels; None where any finite value does (latents).
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]
    range: tuple[float, float] | None = None

    __pydantic_config__ = STRICT

    def concrete_shape(self, *, batch: int, height: int = 1, width: int = 1) -> tuple[int, ...]:
        """The shape of an input with its free axes set: the first is the batch, "H" and "W" are in pixels."""
        sizes = {"H": height, "W": width}
        return batch, *(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape[1:])


def zero_inputs(
    specs: Sequence[TensorSpec], *, batch: int = 1, height: int = 1, width: int = 1
) -> dict[str, Array]:
    """An array of zeros for every input, by name: for warm-up and for probing what a graph does.

    height, width: in pixels, for inputs that have these axes free.
    """
    return {
        spec.name: np.zeros(spec.concrete_shape(batch=batch, height=height, width=width), spec.dtype)
        for spec in specs
    }
