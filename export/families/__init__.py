"""Finds the model families: every folder `export/models/<name>/` whose `generator.py` defines a SPEC. There is no list.

A family may also have `recipes.py` (RECIPES: how it is trained, by name, the default first) and `checkpoints.py` (NAMINGS:
the names that other code bases give to its tensors). They are imported only when they are asked for, so that this package
depends on no family. Other files and folders in `export/models/` are helpers, not families.

Called by the build, training, the checkpoint readers, the benchmarks and the tests.
"""

from __future__ import annotations

import ast
import importlib
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from export.families.spec import Spec
from runtime.errors import InvalidInput

PACKAGE = "export.models"
FOLDER = Path(__file__).resolve().parents[1] / "models"


def names() -> list[str]:
    """The names of all families, which are the names of their folders, in alphabetical order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/generator.py") if _defines_spec(path))


def get(name: str) -> Spec:
    """The SPEC of the family called `name`. Raises InvalidInput that lists the names there are."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidInput("model", f"got {name!r}, expected one of {', '.join(names())}{hint}")
    return importlib.import_module(f"{PACKAGE}.{name}.generator").SPEC


def part(name: str, file: str) -> ModuleType | None:
    """The module `file` ("recipes" or "checkpoints") of the family `name`; None if it has none."""
    module = f"{PACKAGE}.{name}.{file}"
    return importlib.import_module(module) if find_spec(module) else None


def trainable() -> list[str]:
    """The families that have recipes."""
    return [name for name in names() if find_spec(f"{PACKAGE}.{name}.recipes")]


@cache
def _defines_spec(path: Path) -> bool:
    """Whether a module assigns SPEC at its top level; read from the source, since importing it may take seconds."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "SPEC" for target in targets):
            return True
    return False
