"""Faults for engines: tests put them into any real or fake Engine, and change them while it runs.

    faults = Faults()
    inject(engine, faults)
    faults.add(Fault("nan", times=1))            # the next batch gives NaN
    faults.add(Fault("hang", device="cuda:1"))   # each batch on that device hangs, until `faults.clear()`

The faults strike inside `Engine._run`, so that the engine's own checks of its outputs see them as they would see a real
device's. tests/chaos/faulty_server.py does the same to the engines of a server's process, with the faults in a file.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runtime.backends.base import Engine
from runtime.errors import EngineError
from runtime.tensors import Array

Kind = Literal["late", "shape", "nan", "raise", "hang", "memory", "unloadable"]
Outputs = dict[str, Array]


@dataclass
class Fault:
    """What goes wrong, and when.

    kind: "late" (the batch takes `late_s` longer), "shape" (an output is cropped), "nan", "raise", "hang" (until the
    faults are cleared), "memory" (out of memory), "unloadable" (strikes when an engine is opened, not when it runs).
    times: how often it strikes, None for always. every: strikes each so-many-th batch. device, model, backend, precision:
    only there, None for anywhere.
    """

    kind: Kind
    times: int | None = None
    every: int = 1
    device: str | None = None
    model: str | None = None
    backend: str | None = None
    precision: str | None = None
    late_s: float = 0.5
    seen: int = 0

    def fits(self, engine: Engine) -> bool:
        """Whether it concerns this engine."""
        return self.fits_names(engine.manifest.name, engine.backend, engine.device, engine.precision)

    def fits_names(self, model: str, backend: str, device: str | None, precision: str | None) -> bool:
        """As `fits`, for an engine that is not open yet. None: not known yet."""
        pairs = (
            (self.model, model),
            (self.backend, backend),
            (self.device, device),
            (self.precision, precision),
        )
        return all(wanted is None or wanted == actual for wanted, actual in pairs)

    def strikes(self) -> bool:
        """Whether it strikes the batch that comes now. Counts the batch."""
        self.seen += 1
        due = self.seen % self.every == 0
        return due and (self.times is None or self.seen // self.every <= self.times)


class Faults:
    """The faults of some engines. Thread-safe. path: a JSON file with a list of faults, read again when it changes.

    hanging: batches that hang now.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._path, self._read = path, ""
        self._faults: list[Fault] = []
        self._hangs = threading.Condition(self._lock)
        self.hanging = 0

    def add(self, fault: Fault) -> None:
        """Add a fault, from the next batch on."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults, and let hanging batches go on."""
        with self._hangs:
            self._faults.clear()
            self._hangs.notify_all()

    def strike(self, engine: Engine, outputs: Callable[[], Outputs]) -> Outputs:
        """Run a batch with `outputs`, with the faults that strike it."""
        with self._lock:
            self._reload()
            kinds = [
                fault for fault in self._faults
                if fault.kind != "unloadable" and fault.fits(engine) and fault.strikes()
            ]  # fmt: skip
        for fault in kinds:
            self._before(fault)
        results = outputs()
        for fault in kinds:
            results = _spoilt(fault, results)
        return results

    def refuse_to_load(self, model: str, backend: str, device: str | None) -> None:
        """Raises EngineError if an engine shall not open."""
        with self._lock:
            self._reload()
            refused = any(
                fault.kind == "unloadable" and fault.fits_names(model, backend, device, None) and fault.strikes()
                for fault in self._faults
            )  # fmt: skip
        if refused:
            raise EngineError(f"{model}: the plan does not load (injected)")

    def _before(self, fault: Fault) -> None:
        if fault.kind == "raise":
            raise EngineError("the device failed (injected)")
        if fault.kind == "memory":
            raise MemoryError("out of device memory (injected)")
        if fault.kind == "late":
            threading.Event().wait(fault.late_s)
        if fault.kind == "hang":
            with self._hangs:
                self.hanging += 1
                while fault in self._faults:
                    self._hangs.wait(0.05)
                    self._reload()
                self.hanging -= 1

    def _reload(self) -> None:
        """Read the file again if it changed. Called with the lock held."""
        if self._path is None:
            return
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        if text != self._read:
            self._read = text
            self._faults = [Fault(**each) for each in json.loads(text or "[]")]


def _spoilt(fault: Fault, outputs: Outputs) -> Outputs:
    if fault.kind == "nan":
        return {name: np.full_like(array, np.nan) for name, array in outputs.items()}
    if fault.kind == "shape":
        return {name: array[..., :-1] for name, array in outputs.items()}
    return outputs


def write(path: Path, *faults: Fault) -> None:
    """Replace the faults in a file, at once."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps([asdict(fault) for fault in faults]), encoding="utf-8")
    new.replace(path)


def inject(engine: Engine, faults: Faults) -> Engine:
    """Make an engine's batches go through `faults`. Returns the engine."""
    run: Callable[[dict[str, Array]], Outputs] = engine._run

    def faulty(inputs: dict[str, Array]) -> Outputs:
        return faults.strike(engine, lambda: run(inputs))

    engine._run = faulty  # type: ignore[method-assign]
    return engine


def inject_into_backends(faults: Faults) -> None:
    """Make every engine that this process opens from now on go through `faults`: for a server's process of its own."""
    from runtime import backends

    load = backends.load

    def loaded(name: str) -> Any:
        return _FaultyBackend(load(name), faults)

    backends.load = loaded


class _FaultyBackend:
    """A backend's module whose engines go through `faults`."""

    def __init__(self, module: Any, faults: Faults) -> None:
        self._module, self._faults = module, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def open_engine(self, bundle: Any, device: str | None = None, **options: Any) -> Engine:
        self._faults.refuse_to_load(bundle.manifest.name, self._module.NAME, device)
        return inject(self._module.open_engine(bundle, device, **options), self._faults)
