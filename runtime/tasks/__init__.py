"""The tasks, one file each, and the table of them. Nothing outside this package branches on a task's name.

A task is data (see task.py): who needs to know what a request becomes asks `of(manifest)` or `get(name)`.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.tasks.generate import GENERATE
from runtime.tasks.task import ItemKind, Task
from runtime.tasks.translate import TRANSLATE
from runtime.tasks.upscale import UPSCALE
from runtime.tensors import TaskName

__all__ = ["ALL", "ItemKind", "Task", "get", "items_of", "of"]

ALL: Mapping[TaskName, Task] = {task.name: task for task in (UPSCALE, TRANSLATE, GENERATE)}


def get(name: TaskName) -> Task:
    """The task called `name`. Raises InvalidInput with the names there are."""
    if name not in ALL:
        raise InvalidInput("task", f"got {name!r}, expected one of {', '.join(ALL)}")
    return ALL[name]


def of(manifest: Manifest) -> Task:
    """The task that a bundle is for."""
    return get(manifest.task)


def items_of(manifest: Manifest) -> ItemKind:
    """What a request to this bundle is cut into: "tiles", "whole" pictures, or "samples"."""
    return of(manifest).items(tiled=manifest.tiled)
