"""TensorSpec: name, dtype, shape and range of one input or output of a graph; and the names of precisions and tasks.

A model's SPEC and a bundle's manifest are made of TensorSpecs. Every room imports this module; it imports none of ours.

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
# How a picture grows to a size that the network takes: its last row and column are repeated, or it is mirrored at them.
Padding = Literal["edge", "reflect"]
# pydantic configuration of records read from JSON: unknown fields and values of another type are errors.
STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; part of a bundle's manifest.

    name: the tensor's name in the graph.
    dtype: "float32" (images, latents, outputs) or "int64" (labels).
    shape: one entry per axis: an int for a fixed length, a str for an axis that varies, e.g. ("N", 3, "H", "W").
    range: (lowest, highest) valid value: (0, 1) or (-1, 1) for images (black and white), (0, classes - 1) for labels;
        None if every finite value is valid (latents).
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]
    range: tuple[float, float] | None = None

    __pydantic_config__ = STRICT

    def concrete_shape(self, *, batch: int, height: int = 1, width: int = 1) -> tuple[int, ...]:
        """The shape with numbers for its varying axes. height, width: in pixels, for axes "H" and "W"."""
        sizes = {"H": height, "W": width}
        return batch, *(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape[1:])


def zero_inputs(
    specs: Sequence[TensorSpec], *, batch: int = 1, height: int = 1, width: int = 1
) -> dict[str, Array]:
    """An array of zeros for every input, by name: for warm-up and for probing a graph.

    height, width: in pixels, for inputs whose "H" and "W" vary.
    """
    return {
        spec.name: np.zeros(spec.concrete_shape(batch=batch, height=height, width=width), spec.dtype)
        for spec in specs
    }
