"""The models of one server: bundles opened on engines, warmed up, and found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from runtime import backends
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BundleError, Cancelled, InvalidInput, ModelNotFound
from runtime.manifest import Manifest
from runtime.scheduler import Scheduler
from runtime.tensors import Precision, TaskName

RGB = 3
LONGEST_ECHO = 80  # characters of a caller's own text that go into a message


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
    """Every model that is served, by name. All models on a device share one scheduler."""

    def __init__(self, engines: Sequence[Engine]) -> None:
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
        backend: str = "auto",
        device: str | None = None,
        min_precision: Precision | None = None,
        say: Callable[[str], None] = lambda sentence: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Open and warm up every bundle, telling `say` which backend each got and why.

        min_precision: the lowest precision to compute in; None for each bundle's own.
        Raises BundleError, BackendUnavailable or EngineError where one cannot be served here: a server with half its
        models is none.
        Raises Cancelled where `stopping` comes true in between.
        """
        engines: list[Engine] = []
        try:
            for bundle in bundles:
                if stopping():
                    raise Cancelled("stopped while the models were warming up")
                _check_channels(bundle.manifest)
                engine, reason = backends.open_engine(bundle, backend, device, min_precision=min_precision)
                engines.append(engine)
                engine.warm_up()
                say(reason)
        except BaseException:
            for engine in engines:
                engine.close()
            raise
        return cls(engines)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, task: TaskName, name: str) -> Model:
        """The model called `name`, or the only one of `task` where it is empty.

        Raises ModelNotFound (no such model) or InvalidInput (it has another task, or several could be meant).
        """
        of_task = [model for model in self if model.manifest.task == task]
        names = ", ".join(model.name for model in of_task)
        if not name:
            if len(of_task) == 1:
                return of_task[0]
            if of_task:
                raise InvalidInput("model", f"is empty, and several models {task}; expected one of {names}")
            raise ModelNotFound(f"model: no model that can {task} is served here; {self._served()}")
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"model: {shown(name)} is not served here; {self._served()}")
        if model.manifest.task != task:
            other = f"expected one of {names}" if names else f"no model here can {task}"
            raise InvalidInput("model", f"{shown(name)} can {model.manifest.task}, not {task}; {other}")
        return model

    def close(self) -> None:
        """Drop what waits, finish what runs, free the engines."""
        for scheduler in self.schedulers.values():
            scheduler.close()
        for model in self:
            model.engine.close()

    def _served(self) -> str:
        return "there are " + ", ".join(f"{model.name} ({model.manifest.task})" for model in self)


def _check_channels(manifest: Manifest) -> None:
    """Raises BundleError where an upscaler does not take and give RGB, which is what images are decoded to."""
    for spec in (*manifest.inputs, *manifest.outputs) if manifest.task == "upscale" else ():
        if spec.shape[1] != RGB:
            raise BundleError(
                f"{manifest.name}: {spec.name!r} has {spec.shape[1]} channels, this server upscales images of {RGB}"
            )


def shown(text: str) -> str:
    """A caller's own text as it goes into a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= LONGEST_ECHO else text[: LONGEST_ECHO - 1] + "…")
