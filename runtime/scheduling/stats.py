"""Stats: what a scheduler has done so far, and Meter, which counts it.

runtime/scheduler.py counts with a Meter, with its lock held. The server logs `Stats` at the end, metrics read it at each
scrape, and admission asks for the seconds per pixel.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from runtime.estimates import Speed
from runtime.jobs import Runner


@dataclass(frozen=True)
class Stats:
    """Counts since the start. items_dropped: items whose job ended before they ran. jobs_waiting: now.

    busy_s: seconds of all batches, failed ones included; with several slots, more than one a second. busy_by_slot_s: the
    same for each slot of each device, named "cuda:0/1". batch_sizes: how many batches had 1, 2, … items.
    retries: items that ran again after a failure, by what was done: "same engine", "fresh engine", "another device",
    "wider precision", "next backend". slots_replaced: workers that were given up because their batch hung.
    """

    batches: int
    items: int
    pixels: int
    items_dropped: int
    jobs_waiting: int
    busy_s: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    busy_by_slot_s: Mapping[str, float] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    slots_replaced: int = 0

    @property
    def mean_batch(self) -> float:
        """Items per batch; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


class Meter:
    """Counts for `Stats`, and the estimated speed of each engine. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.items_dropped = self.slots_replaced = 0
        self.retries = Counter[str]()
        self._pixels = 0
        self._batch_sizes = Counter[int]()
        self._busy_s: dict[str, float] = {}
        self._speeds: WeakKeyDictionary[Runner, Speed] = WeakKeyDictionary()

    def was_busy(self, slot: str, seconds: float) -> None:
        """Count the time of a batch, failed or not."""
        self._busy_s[slot] = self._busy_s.get(slot, 0.0) + seconds

    def ran(self, engines: Iterable[Runner], *, items: int, pixels: int, seconds: float) -> None:
        """Count a batch that succeeded. engines: the model's, and the one among its engines that really ran."""
        pixels = max(1, pixels)
        self._batch_sizes[items] += 1
        self._pixels += pixels
        for engine in engines:
            self._speeds.setdefault(engine, Speed()).learn(pixels // items, seconds, pixels, self._clock())

    def expect(self, engine: Runner, seconds_per_px: float) -> None:
        """Take the warm-up's speed for an engine's until its first batch has run."""
        self._speeds.setdefault(engine, Speed(seconds_per_px))

    def seconds_per_px(self, engine: Runner, item_px: int | None = None) -> float | None:
        """Estimated seconds of an engine's device for each pixel; None if nothing is known.

        item_px: of items of this size; None for all.
        """
        speed = self._speeds.get(engine)
        return speed.value(self._clock(), item_px) if speed else None

    def forget(self, engine: Runner) -> None:
        """Forget the speed of an engine that is closed."""
        self._speeds.pop(engine, None)

    def stats(self, *, jobs_waiting: int) -> Stats:
        """The counts so far."""
        return Stats(
            batches=self._batch_sizes.total(),
            items=sum(size * count for size, count in self._batch_sizes.items()),
            pixels=self._pixels,
            items_dropped=self.items_dropped,
            jobs_waiting=jobs_waiting,
            busy_s=sum(self._busy_s.values()),
            batch_sizes=dict(self._batch_sizes),
            busy_by_slot_s=dict(self._busy_s),
            retries=dict(self.retries),
            slots_replaced=self.slots_replaced,
        )
