"""The shape of a task: what a request of it becomes, as data.

A request becomes items, and the scheduler runs batches of items:

    "tiles"    windows of one picture, of a few fixed shapes; batched with those of other requests
    "whole"    one picture as it is, of whatever size; a batch of its own, unless another has exactly that shape
    "samples"  one latent (and label) each, all of one shape; batched with those of other requests

Whoever needs to know more of an item's kind (an engine's batch sizes, a build's steps) keeps a table by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from runtime.manifest import Manifest
from runtime.tensors import TaskName, TensorSpec

ItemKind = Literal["tiles", "whole", "samples"]
# A caller's picture in, a picture out; or latents in, pictures out.
Source = Literal["picture", "latents"]


@dataclass(frozen=True)
class Task:
    """One task.

    source: what a request brings: one picture, or latents (and labels).
    alpha: what becomes of a picture's transparency: the "network" enlarges it as it does the colours, or it goes
        "beside" it, interpolated where the answer has another size.
    colours: "kept", so that grey stays grey; or the answer has those that the "model" gives.
    outscale: whether the caller may ask for another size than the model's own.
    usual_name: of a bundle, where {model} and {scale} stand for the family and the model's scale.
    problems: the names of the manifest's fields that no model of this task can have.
    """

    name: TaskName
    source: Source
    alpha: Literal["network", "beside"]
    colours: Literal["kept", "model"]
    outscale: bool
    usual_name: str
    problems: Callable[[Manifest], Iterator[str]]

    def items(self, *, tiled: bool) -> ItemKind:
        """What a request is cut into. tiled: whether the model allows it (`Manifest.tiled`)."""
        if self.source == "latents":
            return "samples"
        return "tiles" if tiled else "whole"

    def bundle_name(self, model: str, scale: int) -> str:
        """What a bundle of the family `model` is called where the user gives no name."""
        return self.usual_name.format(model=model, scale=scale)


def picture_problems(manifest: Manifest) -> Iterator[str]:
    """Fields that contradict a task which takes one picture and gives one."""
    if len(manifest.inputs) != 1 or not holds_pictures(manifest.inputs[0]):
        yield "inputs"
    if manifest.outputs and not holds_pictures(manifest.outputs[0]):
        yield "outputs"
    if bool(manifest.tile_sizes) != manifest.tiled:
        yield "tile_sizes"
    if not manifest.tiled and manifest.halo:
        yield "halo"
    if manifest.max_whole_px < 0 or bool(manifest.max_whole_px) == manifest.tiled:
        yield "max_whole_px"


def holds_pictures(spec: TensorSpec) -> bool:
    """Whether a tensor is [N, C, …, …] float32 with a value for black and a higher one for white."""
    has_range = spec.range is not None and spec.range[0] < spec.range[1]
    has_channels = len(spec.shape) == 4 and isinstance(spec.shape[1], int)
    return spec.dtype == "float32" and has_range and has_channels
