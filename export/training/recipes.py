"""Finds recipes by model and name, in `RECIPES` of export/models/<family>/recipes.py; a family's first is its default.

__main__.py lists them, command.py gets one.
"""

from __future__ import annotations

from export import families
from export.training.recipe import Recipe
from runtime.errors import InvalidInput


def models() -> list[str]:
    """The families that can be trained."""
    return families.trainable()


def of(model: str) -> dict[str, Recipe]:
    """The recipes of the family `model`, by name. Raises InvalidInput, naming families that have some, if it has none."""
    if model not in models():
        raise InvalidInput(
            "model", f"got {model!r}, which no recipe trains; expected one of {', '.join(models())}"
        )
    module = families.part(model, "recipes")
    assert module is not None
    return module.RECIPES


def get(model: str, name: str | None) -> tuple[str, Recipe]:
    """The name and the recipe; the model's default if `name` is None. Raises InvalidInput for an unknown name."""
    recipes = of(model)
    name = name or next(iter(recipes))
    if name not in recipes:
        raise InvalidInput("recipe", f"{model} has no recipe {name!r}, expected one of {', '.join(recipes)}")
    return name, recipes[name]
