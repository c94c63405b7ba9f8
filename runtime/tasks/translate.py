"""The task translate: takes a picture, gives a picture of the same size or the model's scale times as large.

Transparency does not go through the network, which was trained without it; it is interpolated to the answer's size.
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
