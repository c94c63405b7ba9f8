"""The models of one server: opens bundles on engines and warms them up; finds the model that a request names.

`python -m server` opens them, server/service.py looks them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from runtime import backends, tasks
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BundleError, Cancelled, InvalidInput, ModelNotFound
from runtime.manifest import Manifest
from runtime.scheduler import Scheduler
from runtime.tensors import Precision, TaskName

RGB = 3
LONGEST_ECHO = 80  # characters of a caller's own text that go into a message
# What `make demo` builds. Where several models have a task and no default is named, the first of these is the default.
SHIPPED = ("esrgan-x4", "dcgan", "acgan")


@dataclass(frozen=True)
class Model:
    """A warm engine and the scheduler of its device."""

    engine: Engine
    scheduler: Scheduler

    @property
    def manifest(self) -> Manifest:
        return self.engine.manifest

    @property
    def name(self) -> str:
        return self.manifest.name


class Models:
    """Every model that is served, sorted by name. All models on a device share one scheduler.

    defaults: the name of the model that runs where a request of that task names none. A task that is not in it gets
    its only model, else the first of SHIPPED, else none: then requests must name a model.
    Raises ModelNotFound where a default is not served or has another task.
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
        """Open and warm up every bundle. on_warm: called for each, with a sentence on its backend and why it was taken.

        min_precision: the lowest precision to compute in; None for each bundle's own.
        Raises BundleError, BackendUnavailable or EngineError where one of them cannot be served here, ModelNotFound
        as the class does, and Cancelled where `stopping` returns true before all are warm.
        """
        _defaults([bundle.manifest for bundle in bundles], defaults or {})  # before anything slow
        engines: list[Engine] = []
        try:
            for bundle in bundles:
                if stopping():
                    raise Cancelled("stopped while the models were warming up")
                _check_channels(bundle.manifest)
                engine, reason = backends.open_engine(bundle, backend, device, min_precision=min_precision)
                engines.append(engine)
                engine.warm_up()
                on_warm(reason)
        except BaseException:
            for engine in engines:
                engine.close()
            raise
        return cls(engines, defaults)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, task: TaskName, name: str) -> Model:
        """The model called `name`, or the default of `task` where it is empty.

        Raises ModelNotFound (no such model) or InvalidInput (it has another task, or there is no default).
        """
        of_task = [model for model in self if model.manifest.task == task]
        names = ", ".join(model.name for model in of_task)
        if not name:
            if task in self._defaults:
                return self._models[self._defaults[task]]
            if of_task:
                raise InvalidInput(
                    "model",
                    f"is empty, and none of the models that can {task} is the default; expected one of {names} "
                    f"(the server's flag --default {task}=NAME sets one)",
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
        """Whether it runs where a request of its task names no model."""
        return self._defaults.get(model.manifest.task) == model.name

    def close(self) -> None:
        """Drop what waits, finish what runs, free the engines."""
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


def _check_channels(manifest: Manifest) -> None:
    """Raises BundleError where a network of pictures does not take and give RGB, which is what they are decoded to."""
    if tasks.of(manifest).source != "picture":
        return
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.shape[1] != RGB:
            raise BundleError(
                f"{manifest.name}: {spec.name!r} has {spec.shape[1]} channels, this server serves networks of {RGB}"
            )


def shown(text: str) -> str:
    """A caller's own text as it goes into a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= LONGEST_ECHO else text[: LONGEST_ECHO - 1] + "…")
