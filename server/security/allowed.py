"""Keeps callers to the models that they may use. server/core/shared.py asks for each request."""

from __future__ import annotations

from runtime.errors import PermissionDenied
from runtime.tensors import TaskName
from server.models.catalog import Catalog
from server.security.callers import Caller


def allowed_name(catalog: Catalog, task: TaskName, name: str, caller: Caller) -> str:
    """The name to look up in the catalog for a request that names the model so; empty for the task's default.

    Raises PermissionDenied, naming the models that the caller may use, if this is none of them. A caller that may use
    some only is not told which others there are: any other name is denied, served or not.
    """
    if caller.models is None:
        return name
    if not name:
        name = catalog.defaults.get(task, "")
        if not caller.may_use(name):
            raise PermissionDenied(
                f"model: is empty, and the default is none that {caller.name} may use; "
                f"name one of {', '.join(sorted(caller.models))}"
            )
    caller.check_model(name)
    return name
