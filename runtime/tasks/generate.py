"""The task generate: takes latents (and labels), gives one picture for each, in the size of the model's output."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.manifest import Manifest
from runtime.tasks.task import Task, holds_pictures


def _problems(manifest: Manifest) -> Iterator[str]:
    if manifest.outputs and not holds_pictures(manifest.outputs[0]):
        yield "outputs"
    if manifest.tile_sizes:
        yield "tile_sizes"
    if manifest.max_whole_px:
        yield "max_whole_px"


GENERATE = Task(
    name="generate",
    source="latents",
    alpha="beside",
    colours="model",
    outscale=False,
    usual_name="{model}",
    problems=_problems,
)
