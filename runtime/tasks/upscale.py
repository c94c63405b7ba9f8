"""The task upscale: takes a picture, gives it enlarged. The network enlarges transparency as it does the colours."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.manifest import Manifest
from runtime.tasks.task import Task, picture_problems


def _problems(manifest: Manifest) -> Iterator[str]:
    yield from picture_problems(manifest)
    channels = {spec.shape[1:2] for spec in (*manifest.inputs, *manifest.outputs)}
    if len(channels) > 1:
        yield "outputs"


UPSCALE = Task(
    name="upscale",
    source="picture",
    alpha="network",
    colours="kept",
    outscale=True,
    usual_name="{model}-x{scale}",
    problems=_problems,
)
