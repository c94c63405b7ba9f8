"""HealingEngine: a model on one device or several, as one engine whose parts are replaced when they fail.

server/models/opening.py makes one for each model and passes it on as the model's engine. The scheduler recognises it, asks `on`
for the engine of the device that is free, and says when that engine fails or hangs (runtime/replicas.py then replaces it).
Everything else sees an Engine: its manifest, and the backend and precision that run now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from runtime.backends.base import Engine
from runtime.errors import NotReady
from runtime.open_engines import Event, OpenEngine, Way, seconds_per_px
from runtime.replicas import Replica
from runtime.tensors import Array

__all__ = ["Event", "HealingEngine", "OpenEngine", "Way"]


class HealingEngine(Engine):
    """One model on one or several devices. Thread-safe.

    engines: for each device the engine that is open, and the ways to run the model there (the first opens such an engine
    again). on_event: called, from any thread, with everything that happens to the engines. devices_out: the devices that
    cannot run the model now.
    """

    def __init__(
        self,
        engines: Mapping[str, tuple[Engine, Sequence[Way]]],
        *,
        on_event: Callable[[Event], None] = lambda event: None,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        first = next(iter(engines.values()))[0]
        super().__init__(
            first.bundle,
            device=",".join(engines),
            precision=first.precision,
            slots=sum(engine.slots for engine, _ in engines.values()),
            batch_sizes=first.batch_sizes,
            min_precision=first.precision,
        )
        self.backend = first.backend
        self._on_event = on_event
        self._serving = True
        self._telling = threading.RLock()
        self._listeners: set[Callable[[HealingEngine], None]] = set()
        self._replicas = {
            device: Replica(
                device,
                engine,
                ways,
                changed=self._changed,
                tell=self._tell,
                alone=self._is_alone,
                pause=pause,
            )
            for device, (engine, ways) in engines.items()
        }

    @property
    def slots_by_device(self) -> Mapping[str, int]:
        """How many batches may be in flight at once, on each device."""
        return {device: replica.slots for device, replica in self._replicas.items()}

    @property
    def warm_seconds_per_px(self) -> float | None:
        """The mean of the devices."""
        running = [opened for replica in self._replicas.values() if (opened := replica.now()) is not None]
        timed = [opened.seconds_per_px for opened in running if opened.seconds_per_px]
        return sum(timed) / len(timed) if timed else None

    @property
    def devices_out(self) -> tuple[str, ...]:
        """The devices that cannot run the model now."""
        return tuple(device for device, replica in self._replicas.items() if replica.state == "out")

    def on(self, device: str, way: int) -> OpenEngine | None:
        """The engine of a device, for items that may run from this way on; None if there is none now."""
        replica = self._replicas.get(device)
        return None if replica is None else replica.engine(way)

    def hopeless(self, way: int) -> str | None:
        """Why no device can run items from this way on; None if one may, now or after it was healed."""
        if any(replica.may_run(way) for replica in self._replicas.values()):
            return None
        return "; ".join(
            filter(None, (replica.tried() or replica.reason for replica in self._replicas.values()))
        )

    @property
    def unavailable(self) -> str | None:
        """Why no device can run the model now; None if one can, or is being healed."""
        replicas = self._replicas.values()
        if any(replica.state != "out" for replica in replicas):
            return None
        reasons = "; ".join(f"{replica.device}: {replica.reason}" for replica in replicas)
        return f"its engine failed and could not be replaced ({reasons})"

    def listen(self, changed: Callable[[HealingEngine], None]) -> None:
        """Call `changed`, from any thread, whenever an engine was replaced, or is ready, or none is left."""
        self._listeners.add(changed)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch on the first device that can, without healing. See `Engine.run`."""
        return self._first().run(inputs)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(self._first().run(inputs))

    def warm_up(self) -> None:
        """Warm up each device's engine, and time it."""
        for replica in self._replicas.values():
            if (opened := replica.now()) is not None:
                opened.engine.warm_up()
        self.measure()

    def measure(self) -> None:
        """Time each device's warm engine: the first estimate of how long a batch takes. Raises EngineError."""
        for replica in self._replicas.values():
            if (opened := replica.now()) is not None:
                opened.seconds_per_px = seconds_per_px(opened.engine)

    def close(self) -> None:
        """Close the engines of all devices."""
        super().close()
        for replica in self._replicas.values():
            replica.close()

    def _first(self) -> Engine:
        running = (replica.now() for replica in self._replicas.values())
        opened = next((each for each in running if each is not None), None)
        if opened is None:
            raise NotReady(
                f"{self.manifest.name} cannot run now: {self.unavailable or 'its engine is replaced'}"
            )
        return opened.engine

    def _is_alone(self, replica: Replica) -> bool:
        return all(other is replica or other.state != "serving" for other in self._replicas.values())

    def _changed(self) -> None:
        running = [opened for replica in self._replicas.values() if (opened := replica.now()) is not None]
        if running:
            self.backend, self.precision = running[0].engine.backend, running[0].engine.precision
        for changed in tuple(self._listeners):
            changed(self)

    def _tell(self, what: str, reason: str, device: str) -> None:
        """Report an event, and when it makes the model unavailable or available again, that too."""
        name = self.manifest.name
        with self._telling:
            unavailable = None if self._closed else self.unavailable
            serving = unavailable is None
            events = [Event(name, device, what, reason, serving)]
            if serving != self._serving:
                self._serving = serving
                word = "model available" if serving else "model unavailable"
                events.append(Event(name, self.device, word, unavailable or reason, serving))
            for event in events:
                with suppress(Exception):  # whoever listens must not stop the healing
                    self._on_event(event)
