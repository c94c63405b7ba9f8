"""The shape of a task: what a request of it becomes, as data.

A request becomes items, and the scheduler runs batches of items:

    "tiles"    windows of one picture, of a few fixed shapes; batched with those of other requests
    "whole"    one picture as it is, of whatever size; a batch of its own, unless another has exactly that shape
    "samples"  one latent (and label) each, all of one shape; batched with those of other requests
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from runtime.manifest import Manifest
from runtime.tensors import TaskName

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
    if len(manifest.inputs) != 1:
        yield "inputs"
    if manifest.tiled and manifest.max_whole_px:
        yield "max_whole_px"
    if not manifest.tiled and manifest.max_whole_px < 1:
        yield "max_whole_px"
    if not manifest.tiled and manifest.tile_sizes:
        yield "tile_sizes"
    if not manifest.tiled and manifest.halo:
        yield "halo"
