"""The recipes, a file a generator, named as it is. A file with RECIPES in it is all it takes; its first is the default."""

from __future__ import annotations

import importlib
import pkgutil

from export.training.recipe import Recipe
from runtime.errors import InvalidInput


def models() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def of(model: str) -> dict[str, Recipe]:
    """The recipes of the generator called `model`, by name. Raises InvalidInput with the generators there are."""
    if model not in models():
        raise InvalidInput(
            "model", f"got {model!r}, which no recipe trains; expected one of {', '.join(models())}"
        )
    return importlib.import_module(f"{__name__}.{model}").RECIPES


def get(model: str, name: str | None) -> tuple[str, Recipe]:
    """A recipe and its name; the model's first for None. Raises InvalidInput with the names there are."""
    found = of(model)
    name = name or next(iter(found))
    if name not in found:
        raise InvalidInput("recipe", f"{model} has no recipe {name!r}, expected one of {', '.join(found)}")
    return name, found[name]
