"""Upscale: a picture in, the same picture enlarged out; transparency is enlarged by the network as colours are."""

from __future__ import annotations

from runtime.tasks.task import Task, picture_problems

UPSCALE = Task(
    name="upscale",
    source="picture",
    alpha="network",
    colours="kept",
    outscale=True,
    usual_name="{model}-x{scale}",
    problems=picture_problems,
)
