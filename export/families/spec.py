"""Spec: what a model family declares about its generator, as data. It is the SPEC in `export/models/<name>/generator.py`.

The build, training, evaluation and checkpoint readers read it (`families.get`) and never branch on a family's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from runtime.tensors import Padding, Precision, TaskName, TensorSpec


@dataclass(frozen=True)
class Tolerance:
    """How far a bundle's output may lie from float32 torch before its build fails.

    psnr_db: the least PSNR, in dB, with the output's range as peak.
    max_abs: the largest absolute difference of one value, in units of the output.
    reason: where the figures come from.
    """

    psnr_db: float
    max_abs: float
    reason: str


@dataclass(frozen=True)
class Signature:
    """What one configuration of a generator takes and gives.

    scale: output pixels per input pixel along a side; 1 for a generator of samples.
    size_multiple: height and width must be multiples of this many pixels; more than 1 where a pixel-unshuffle comes first.
    least_side_px: and not below this many; more than 1 where reflection padding or an instance norm needs more than a pixel.
    padding: how pictures of other sizes grow to one that the network takes, at the bottom and on the right: "edge" repeats
    the last row and column, "reflect" mirrors the picture at them, as reflection padding inside a network does.
    tiled: whether pictures may be cut into tiles; False for networks with global statistics, which need whole pictures.
    latent_size: values in a latent; 0 if it takes none. classes: number of classes; 0 if it takes no labels.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scale: int = 1
    size_multiple: int = 1
    latent_size: int = 0
    classes: int = 0
    tiled: bool = True
    least_side_px: int = 1
    padding: Padding = "edge"


@dataclass(frozen=True)
class Spec:
    """A generator. `export/models/<name>/generator.py` holds exactly one, called SPEC.

    task: what it is served for. config: a frozen dataclass of the module's options; every field has a default.
    module: builds the nn.Module from a config; its forward takes the signature's inputs by position, in order.
    signature: what a config takes and gives.
    tiny: a config small enough for a test to run in milliseconds.
    tolerances: per precision; a build beyond them fails.
    """

    task: TaskName
    config: type[Any]
    module: Callable[[Any], nn.Module]
    signature: Callable[[Any], Signature]
    tiny: Any
    tolerances: Mapping[Precision, Tolerance]
