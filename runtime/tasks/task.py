"""Task: the dataclass that describes a task, with the checks that the tasks' files share.

A request becomes items, and the scheduler runs batches of items. There are three kinds:

    "tiles"    windows of one picture, in a few fixed shapes; batched with those of other requests
    "whole"    one whole picture of any size; batched only with pictures of exactly the same shape
    "samples"  one latent (and label) each, all of one shape; batched with those of other requests

Code that depends on the kind (an engine's batch sizes, the steps of a build) has a table keyed by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from runtime.manifest import Manifest
from runtime.tensors import TaskName, TensorSpec

ItemKind = Literal["tiles", "whole", "samples"]
# What a request contains.
Source = Literal["picture", "latents"]


@dataclass(frozen=True)
class Task:
    """A task, as data.

    source: what a request contains: one picture, or latents (and labels).
    alpha: how transparency is processed: "network" runs it through the network like a colour; "beside" interpolates it
        to the answer's size without the network.
    colours: "kept": the answer has the colour channels of the input, so grey stays grey; "model": those of the model.
    outscale: whether the caller may ask for another output size than the model's own.
    usual_name: default name of a bundle; {model} and {scale} are replaced by the family's name and the model's scale.
    problems: returns the names of the manifest's fields whose values no model of this task can have.
    """

    name: TaskName
    source: Source
    alpha: Literal["network", "beside"]
    colours: Literal["kept", "model"]
    outscale: bool
    usual_name: str
    problems: Callable[[Manifest], Iterator[str]]

    def items(self, *, tiled: bool) -> ItemKind:
        """The kind of items that a request becomes. tiled: whether the model's pictures are tiled (`Manifest.tiled`)."""
        if self.source == "latents":
            return "samples"
        return "tiles" if tiled else "whole"

    def bundle_name(self, model: str, scale: int) -> str:
        """The default name of a bundle of the family `model`."""
        return self.usual_name.format(model=model, scale=scale)


def picture_problems(manifest: Manifest) -> Iterator[str]:
    """The names of fields with values that no task with one picture as input and output can have."""
    any_size = [spec for spec in manifest.inputs if holds_pictures(spec) and spec.shape[2:] == ("H", "W")]
    if len(any_size) != 1 or len(manifest.inputs) != 1:
        yield "inputs"
    if manifest.latent_size:
        yield "latent_size"
    if manifest.classes:
        yield "classes"
    if manifest.outputs and not holds_pictures(manifest.outputs[0]):
        yield "outputs"
    if bool(manifest.tile_sizes) != manifest.tiled:
        yield "tile_sizes"
    if not manifest.tiled and manifest.halo:
        yield "halo"
    if manifest.max_whole_px < 0 or bool(manifest.max_whole_px) == manifest.tiled:
        yield "max_whole_px"


def holds_pictures(spec: TensorSpec) -> bool:
    """Whether a tensor is [N, C, H, W] float32 with a fixed C and a range (black, white)."""
    has_range = spec.range is not None and spec.range[0] < spec.range[1]
    has_channels = len(spec.shape) == 4 and isinstance(spec.shape[1], int)
    return spec.dtype == "float32" and has_range and has_channels
