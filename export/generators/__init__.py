"""The generators, one file each. A file `<name>.py` with a SPEC in it is all it takes to add one."""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches

from export.spec import Spec
from runtime.errors import InvalidInput


def names() -> list[str]:
    """The names of all generators, which are the names of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Spec:
    """The SPEC of the generator called `name`. Raises InvalidInput with the names there are."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidInput("model", f"got {name!r}, expected one of {', '.join(names())}{hint}")
    return importlib.import_module(f"{__name__}.{name}").SPEC
