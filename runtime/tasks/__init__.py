"""The tasks (upscale, translate, generate), one file each, and the table of them.

A task is data (see task.py). Tiler, backends, bundle, build, evaluation and server get it with `of(manifest)` or
`get(name)`, so that nothing outside this package branches on a task's name.
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
    """The task called `name`. Raises InvalidInput listing the known names."""
    if name not in ALL:
        raise InvalidInput("task", f"got {name!r}, expected one of {', '.join(ALL)}")
    return ALL[name]


def of(manifest: Manifest) -> Task:
    """The task of a bundle's model."""
    return get(manifest.task)


def items_of(manifest: Manifest) -> ItemKind:
    """What a request to this bundle is cut into: "tiles", "whole" pictures, or "samples"."""
    return of(manifest).items(tiled=manifest.tiled)
