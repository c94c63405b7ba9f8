"""Translate: a picture in, another picture of it out, of the same size or the model's scale times as large.

A network that translates knows nothing of transparency: it goes beside the network, interpolated where sizes differ.
"""

from __future__ import annotations

from runtime.tasks.task import Task, picture_problems

TRANSLATE = Task(
    name="translate",
    source="picture",
    alpha="beside",
    colours="model",
    outscale=False,
    usual_name="{model}",
    problems=picture_problems,
)
