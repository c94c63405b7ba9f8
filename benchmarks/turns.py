"""Two things measured in turns: raw, served, raw, served, …, raw. A machine's speed drifts, and their ratio must not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.load import Measured

Level = TypeVar("Level")


@dataclass(frozen=True)
class Turn(Generic[Level]):
    """A level of load through the server, with the raw rate just before and after it. raw_per_s: their mean."""

    level: Level
    served: Measured
    raw_per_s: float

    @property
    def of_raw(self) -> float:
        """The served rate as a share of the raw one."""
        return self.served.per_s / self.raw_per_s


def in_turns(
    levels: Sequence[Level],
    *,
    raw: Callable[[], Measured],
    served: Callable[[Level], Measured],
    on_turn: Callable[[Turn[Level]], None] = lambda _: None,
) -> list[Turn[Level]]:
    """`served` at each of `levels`, between two runs of `raw`; `on_turn` is called with each turn as it ends."""
    turns = []
    before = raw()
    for level in levels:
        measured, after = served(level), raw()
        turns.append(Turn(level, measured, statistics.mean((before.per_s, after.per_s))))
        on_turn(turns[-1])
        before = after
    return turns


def order_share(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The share of the pairs of different size in which the smaller has the shorter time; one half would be chance."""
    pairs = [
        (times[i] < times[j]) == (sizes[i] < sizes[j])
        for i in range(len(sizes))
        for j in range(i)
        if sizes[i] != sizes[j]
    ]
    return statistics.mean(pairs)
