"""The catalog: which models a server has, and which of them are the defaults. Immutable; server/models/models.py swaps it.

So whoever looks at it sees one moment of a server whose models come and go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runtime import tasks
from runtime.errors import InvalidInput, ModelNotFound
from runtime.manifest import Manifest
from runtime.tensors import TaskName
from server.models.entry import Entry

LONGEST_ECHO = 80  # characters of a caller's text that are repeated in an error message
# What `make demo` builds. The first of them is the default of a task with several models, unless --default names one.
SHIPPED = ("esrgan-x4", "esrgan-photo", "style", "dcgan", "acgan")


@dataclass(frozen=True)
class Catalog:
    """The models of a server at one moment.

    entries: by name, sorted. defaults: for each task that has one, the name of the model for requests that name none.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    defaults: Mapping[TaskName, str] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Mapping[str, Entry], named: Mapping[TaskName, str]) -> Catalog:
        """The catalog of these entries. named: the operator's defaults; a task whose is not served has none."""
        manifests = [entry.manifest for entry in entries.values()]
        return cls(dict(sorted(entries.items())), _defaults(manifests, named))

    def find(self, task: TaskName, name: str) -> Entry:
        """The model called `name`, or the default of `task` if `name` is empty.

        Raises ModelNotFound if there is no such model, InvalidInput if it has another task or the task has no default.
        """
        names = ", ".join(entry.name for entry in self.entries.values() if entry.manifest.task == task)
        if not name:
            if task in self.defaults:
                return self.entries[self.defaults[task]]
            if names:
                raise InvalidInput(
                    "model",
                    f"is empty, and {task} has no default model on this server; expected one of {names} "
                    f"(the server's flag --default {task}=NAME sets the default)",
                )
            raise ModelNotFound(f"model: no model that can {task} is served here; {self._served()}")
        entry = self.entries.get(name)
        if entry is None:
            raise ModelNotFound(f"model: {shown(name)} is not served here; {self._served()}")
        if entry.manifest.task != task:
            other = f"expected one of {names}" if names else f"no model here can {task}"
            raise InvalidInput("model", f"{shown(name)} can {entry.manifest.task}, not {task}; {other}")
        return entry

    def is_default(self, entry: Entry) -> bool:
        """Whether it is the model for requests of its task that name none."""
        return self.defaults.get(entry.manifest.task) == entry.name

    def _served(self) -> str:
        served = [f"{entry.name} ({entry.manifest.task})" for entry in self.entries.values()]
        return "there are " + ", ".join(served) if served else "there is none yet"


def check_defaults(manifests: Sequence[Manifest], named: Mapping[TaskName, str]) -> None:
    """Raises ModelNotFound if a default is not among these models or has another task."""
    for task, name in named.items():
        names = [manifest.name for manifest in manifests if manifest.task == task]
        if name not in names:
            served = ", ".join(names) or "none here"
            raise ModelNotFound(f"--default {task}={name}: the models that can {task} are {served}")


def _defaults(manifests: Sequence[Manifest], named: Mapping[TaskName, str]) -> dict[TaskName, str]:
    """The default of each task that has one. A model that the operator named but that is gone has no substitute."""
    defaults: dict[TaskName, str] = {}
    for task in tasks.ALL:
        candidates = [manifest.name for manifest in manifests if manifest.task == task]
        shipped = [name for name in SHIPPED if name in candidates]
        if task in named:
            if named[task] in candidates:
                defaults[task] = named[task]
        elif len(candidates) == 1:
            defaults[task] = candidates[0]
        elif shipped:
            defaults[task] = shipped[0]
    return defaults


def shown(text: str) -> str:
    """A caller's text for an error message: quoted, and truncated if it is long."""
    return repr(text if len(text) <= LONGEST_ECHO else text[: LONGEST_ECHO - 1] + "…")
