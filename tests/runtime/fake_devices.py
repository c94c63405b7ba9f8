"""Models on fake devices for tests of healing: engines that compute in numpy, with faults that tests put in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.healing import Event, HealingEngine, Way
from runtime.jobs import Item, Job
from runtime.manifest import Manifest
from runtime.tensors import Array, Precision, TensorSpec
from tests.faulty_engine import Fault, Faults, inject

TIMEOUT_S = 30  # of a wait that ends at once unless the code is wrong
MANIFEST = Manifest(
    "doubler",
    "generate",
    "float32",
    (TensorSpec("latent", "float32", ("N", 2)),),
    (TensorSpec("sample", "float32", ("N", 2, 1, 1), (0, 1)),),
    latent_size=2,
)


class Doubler(Engine):
    """Doubles its inputs, (job, item); infinite in float16 for item POISON, as an overflow is."""

    def __init__(
        self,
        device: str = "CPU",
        precision: Precision = "float16",
        backend: str = "numpy",
        max_batch: int = 4,
    ) -> None:
        sizes = tuple(range(1, max_batch + 1))
        super().__init__(
            Bundle(Path(), MANIFEST),
            device=device,
            precision=precision,
            slots=1,
            batch_sizes=sizes,
            min_precision="float16",
        )
        self.backend = backend
        self.was_closed = threading.Event()

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        rows = inputs["latent"] * 2
        if self.precision == "float16":
            rows = np.where(rows > np.finfo(np.float16).max, np.inf, rows)
        return {"sample": rows.reshape(-1, 2, 1, 1)}

    def close(self) -> None:
        super().close()
        self.was_closed.set()


OVERFLOWS = 40_000.0  # doubled, it is more than float16 holds


class Model:
    """A HealingEngine on fake devices: per device float16, then float32, then another backend.

    faults: of all its engines. events: what it reported. opened: every engine, in order. waits_s: its pauses, which return
    at once, unless `held`.
    """

    def __init__(self, devices: Sequence[str] = ("CPU",), *, ways: int = 3, max_batch: int = 4) -> None:
        self.faults, self.events, self.opened = Faults(), list[Event](), list[Doubler]()
        self.waits_s: list[float] = []
        self.comeback = threading.Event()
        self.gone = threading.Event()
        self._max_batch = max_batch
        self.engine = HealingEngine(
            {device: (self.open(device), self.ways(device)[:ways]) for device in devices},
            on_event=self.events.append,
            pause=self._pause,
        )
        self.engine.warm_up()

    def open(self, device: str, precision: Precision = "float16", backend: str = "numpy") -> Doubler:
        self.faults.refuse_to_load("doubler", backend, device)
        engine = Doubler(device, precision, backend, self._max_batch)
        inject(engine, self.faults)
        self.opened.append(engine)
        return engine

    def ways(self, device: str) -> list[Way]:
        return [
            Way("a fresh engine", "fresh engine", lambda: self.open(device), limit_s=5),
            Way(
                "float32 instead of float16",
                "wider precision",
                lambda: self.open(device, "float32"),
                limit_s=5,
            ),
            Way(
                "other instead of numpy",
                "next backend",
                lambda: self.open(device, "float32", "other"),
                limit_s=5,
            ),
        ]

    def fails(self, kind: Any, **where: Any) -> None:
        self.faults.add(Fault(kind, **where))

    def _pause(self, seconds: float) -> bool:
        """Short pauses pass at once; that of a replica that is out lasts until `comeback`."""
        self.waits_s.append(seconds)
        if seconds >= 10:
            assert self.comeback.wait(TIMEOUT_S)
            self.comeback.clear()
        return self.gone.is_set()

    def close(self) -> None:
        self.gone.set()
        self.comeback.set()
        self.faults.clear()
        self.engine.close()

    def job(self, number: float = 0, items: int = 1, **options: Any) -> tuple[Job, list[tuple[float, float]]]:
        """A job, and the list that its outputs come into."""
        got: list[tuple[float, float]] = []

        def deliver(index: int, outputs: dict[str, Array]) -> None:
            first, second = outputs["sample"].ravel().tolist()
            got.append((first, second))

        job = Job(
            self.engine,
            [Item((), 1)] * items,
            inputs=lambda index: {"latent": np.array([number, index], np.float32)},
            deliver=deliver,
            **options,
        )
        return job, got

    def said(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]
