"""Stats: what a scheduler has done so far, and Meter, which counts it.

runtime/scheduler.py counts with a Meter, with its lock held. The server logs `Stats` at the end, metrics read it at each
scrape, and admission asks for the seconds per pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.jobs import Runner

# Decay of the running average of seconds per pixel, per batch.
DECAY = 0.9


@dataclass(frozen=True)
class Stats:
    """Counts since the start. items_dropped: items whose job ended before they ran. jobs_waiting: now.

    busy_s: seconds of all batches, failed ones included; with several slots, more than one a second. batch_sizes: how
    many batches had 1, 2, … items.
    """

    batches: int
    items: int
    pixels: int
    items_dropped: int
    jobs_waiting: int
    busy_s: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)

    @property
    def mean_batch(self) -> float:
        """Items per batch; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


class Meter:
    """Counts for `Stats`, and the running average of each engine's speed."""

    def __init__(self) -> None:
        self.items_dropped = 0
        self.busy_s = 0.0
        self._pixels = 0
        self._batch_sizes = Counter[int]()
        # Engine → decayed sums of its batches' seconds and pixels.
        self._spent: dict[Runner, tuple[float, float]] = {}

    def ran(self, engine: Runner, *, items: int, pixels: int, seconds: float) -> None:
        """Count a batch that succeeded."""
        pixels = max(1, pixels)
        self._batch_sizes[items] += 1
        self._pixels += pixels
        # Sums, not a mean of rates: the rate of a one-pixel picture says nothing about other requests.
        seconds_before, pixels_before = self._spent.get(engine, (0.0, 0.0))
        self._spent[engine] = (DECAY * seconds_before + seconds, DECAY * pixels_before + pixels)

    def seconds_per_px(self, engine: Runner) -> float | None:
        """Running average of an engine's device time per pixel, in seconds; None before its first batch."""
        seconds, pixels = self._spent.get(engine, (0.0, 0.0))
        return seconds / pixels if pixels else None

    def forget(self, engine: Runner) -> None:
        """Forget the speed of an engine that is closed."""
        self._spent.pop(engine, None)

    def stats(self, *, jobs_waiting: int) -> Stats:
        """The counts so far."""
        return Stats(
            batches=self._batch_sizes.total(),
            items=sum(size * count for size, count in self._batch_sizes.items()),
            pixels=self._pixels,
            items_dropped=self.items_dropped,
            jobs_waiting=jobs_waiting,
            busy_s=self.busy_s,
            batch_sizes=dict(self._batch_sizes),
        )
