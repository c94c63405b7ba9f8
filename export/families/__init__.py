"""Finds the model families. A folder `export/models/<name>/` whose `generator.py` has a SPEC is one; nothing is listed.

Beside `generator.py` a family may have `recipes.py` (RECIPES, by name, the default first: how it is trained) and
`checkpoints.py` (DIALECTS: other code bases' names for its tensors). They are imported when they are asked for, so
that nothing here depends on a family.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from export.families.spec import Spec
from runtime.errors import InvalidInput

PACKAGE = "export.models"
FOLDER = Path(__file__).resolve().parents[1] / "models"


def names() -> list[str]:
    """The names of all families, which are the names of their folders."""
    return sorted(path.parent.name for path in FOLDER.glob("*/generator.py"))


def get(name: str) -> Spec:
    """The SPEC of the family called `name`. Raises InvalidInput with the names there are."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidInput("model", f"got {name!r}, expected one of {', '.join(names())}{hint}")
    return importlib.import_module(f"{PACKAGE}.{name}.generator").SPEC


def part(name: str, file: str) -> ModuleType | None:
    """The module `file` of a family, "recipes" or "checkpoints"; None where the family has none."""
    module = f"{PACKAGE}.{name}.{file}"
    return importlib.import_module(module) if find_spec(module) else None


def trainable() -> list[str]:
    """The families that have recipes."""
    return [name for name in names() if (FOLDER / name / "recipes.py").exists()]
