"""The task generate: takes latents (and labels), gives one picture for each, in the size of the model's output."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.manifest import Manifest
from runtime.tasks.task import Task, holds_pictures


def _problems(manifest: Manifest) -> Iterator[str]:
    # Latents are the float32 input, [N, Z], and labels the int64 one, [N]: sample_work.py tells them apart so.
    latents = [spec.shape[1:] for spec in manifest.inputs if spec.dtype == "float32"]
    labels = [(spec.shape[1:], spec.range) for spec in manifest.inputs if spec.dtype == "int64"]
    if manifest.latent_size < 1 or latents != [(manifest.latent_size,)]:
        yield "latent_size"
    if labels != ([((), (0, manifest.classes - 1))] if manifest.classes else []):
        yield "classes"
    if not all(holds_pictures(spec) and _is_fixed(spec.shape[1:]) for spec in manifest.outputs):
        yield "outputs"
    if manifest.tile_sizes:
        yield "tile_sizes"
    if manifest.max_whole_px:
        yield "max_whole_px"


def _is_fixed(shape: tuple[int | str, ...]) -> bool:
    return all(isinstance(axis, int) and axis > 0 for axis in shape)


GENERATE = Task(
    name="generate",
    source="latents",
    alpha="beside",
    colours="model",
    outscale=False,
    usual_name="{model}",
    problems=_problems,
)
