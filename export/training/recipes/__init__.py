"""The recipes, one file each, named as the generator they train. A file with a TRAINER in it is all it takes."""

from __future__ import annotations

import importlib
import pkgutil

from export.training.recipe import Trainer
from runtime.errors import InvalidInput


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(model: str) -> type[Trainer]:
    """The trainer of the generator called `model`. Raises InvalidInput with the names there are."""
    if model not in names():
        raise InvalidInput("model", f"no recipe trains {model!r}, expected one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{model}").TRAINER
