"""The models of a server: loads bundles into engines, warms them up and finds the model for a request.

`python -m server` calls `Models.open`; server/service.py calls `find` for each request and gets a Model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from runtime import tasks
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import Cancelled, InvalidInput, ModelNotFound
from runtime.manifest import Manifest
from runtime.scheduler import Scheduler
from runtime.tensors import Precision, TaskName
from server.opening import open_warm

LONGEST_ECHO = 80  # characters of a caller's text that are repeated in an error message
# What `make demo` builds. The first of them is the default of a task with several models, unless --default names one.
SHIPPED = ("esrgan-x4", "dcgan", "acgan")


@dataclass(frozen=True)
class Model:
    """A model that is served: its warm engine and the scheduler of the engine's device."""

    engine: Engine
    scheduler: Scheduler

    @property
    def manifest(self) -> Manifest:
        """The manifest of its bundle."""
        return self.engine.manifest

    @property
    def name(self) -> str:
        """The name of its bundle, as requests name it."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version of its bundle's content."""
        return self.engine.bundle.version


class Models:
    """All models of a server; iterates over them sorted by name. Models on the same device share its scheduler.

    engines: warm ones. defaults: for each task, the model for requests that name none. The default of a task that is not
    listed is its only model, else the first of SHIPPED; otherwise it has none, and requests must name a model.
    Raises ModelNotFound if a default is not served or has another task.
    """

    def __init__(self, engines: Sequence[Engine], defaults: Mapping[TaskName, str] | None = None) -> None:
        self._defaults = _defaults([engine.manifest for engine in engines], defaults or {})
        devices = sorted({engine.device for engine in engines})
        self.schedulers = {
            device: Scheduler(slots=max(engine.slots for engine in engines if engine.device == device))
            for device in devices
        }
        self._models = {
            engine.manifest.name: Model(engine, self.schedulers[engine.device])
            for engine in sorted(engines, key=lambda engine: engine.manifest.name)
        }

    @classmethod
    def open(
        cls,
        bundles: Sequence[Bundle],
        *,
        defaults: Mapping[TaskName, str] | None = None,
        backend: str = "auto",
        device: str | None = None,
        min_precision: Precision | None = None,
        on_warm: Callable[[str], None] = lambda sentence: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Load and warm up every bundle.

        backend, device, min_precision: as for `runtime.backends.open_engine`. on_warm: called for each warm model with a
        sentence that says which backend runs it and why. stopping: checked before each bundle.
        Raises BundleError, BackendUnavailable or EngineError if a bundle cannot be served here, ModelNotFound for wrong
        defaults, and Cancelled if `stopping` returns true before all are warm.
        """
        _defaults([bundle.manifest for bundle in bundles], defaults or {})  # check them before the slow part
        engines: list[Engine] = []
        try:
            for bundle in bundles:
                if stopping():
                    raise Cancelled("stopped while the models were warming up")
                engine, reason = open_warm(
                    bundle, backend=backend, device=device, min_precision=min_precision
                )
                engines.append(engine)
                on_warm(reason)
        except BaseException:
            for engine in engines:
                engine.close()
            raise
        return cls(engines, defaults)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, task: TaskName, name: str) -> Model:
        """The model called `name`, or the default of `task` if `name` is empty.

        Raises ModelNotFound if there is no such model, InvalidInput if it has another task or the task has no default.
        """
        of_task = [model for model in self if model.manifest.task == task]
        names = ", ".join(model.name for model in of_task)
        if not name:
            if task in self._defaults:
                return self._models[self._defaults[task]]
            if of_task:
                raise InvalidInput(
                    "model",
                    f"is empty, and {task} has no default model on this server; expected one of {names} "
                    f"(the server's flag --default {task}=NAME sets the default)",
                )
            raise ModelNotFound(f"model: no model that can {task} is served here; {self._served()}")
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"model: {shown(name)} is not served here; {self._served()}")
        if model.manifest.task != task:
            other = f"expected one of {names}" if names else f"no model here can {task}"
            raise InvalidInput("model", f"{shown(name)} can {model.manifest.task}, not {task}; {other}")
        return model

    def is_default(self, model: Model) -> bool:
        """Whether it is the model for requests of its task that name none."""
        return self._defaults.get(model.manifest.task) == model.name

    def close(self) -> None:
        """Cancel the waiting jobs, finish the running batches and close the engines."""
        for scheduler in self.schedulers.values():
            scheduler.close()
        for model in self:
            model.engine.close()

    def _served(self) -> str:
        return "there are " + ", ".join(f"{model.name} ({model.manifest.task})" for model in self)


def _defaults(manifests: Sequence[Manifest], named: Mapping[TaskName, str]) -> dict[TaskName, str]:
    """The default of each task that has one."""
    names = {task: [manifest.name for manifest in manifests if manifest.task == task] for task in tasks.ALL}
    for task, name in named.items():
        if name not in names[task]:
            served = ", ".join(names[task]) or "none here"
            raise ModelNotFound(f"--default {task}={name}: the models that can {task} are {served}")
    defaults: dict[TaskName, str] = {}
    for task, candidates in names.items():
        shipped = [name for name in SHIPPED if name in candidates]
        if task in named:
            defaults[task] = named[task]
        elif len(candidates) == 1:
            defaults[task] = candidates[0]
        elif shipped:
            defaults[task] = shipped[0]
    return defaults


def shown(text: str) -> str:
    """A caller's text for an error message: quoted, and truncated if it is long."""
    return repr(text if len(text) <= LONGEST_ECHO else text[: LONGEST_ECHO - 1] + "…")
