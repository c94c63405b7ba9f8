"""Measures an engine and the server in turns (raw, served, raw, …, raw), so that their ratio holds while the machine's
speed drifts. served.py calls it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.load import Measured

Level = TypeVar("Level")


@dataclass(frozen=True)
class Turn(Generic[Level]):
    """The server's result at one level of load. raw_per_s: the mean of the engine's rates just before and after."""

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
    """Call `served` with each of `levels`, and `raw` before and after each. Returns a Turn for each level.

    on_turn: called with each Turn when it ends.
    """
    turns = []
    before = raw()
    for level in levels:
        measured, after = served(level), raw()
        turns.append(Turn(level, measured, statistics.mean((before.per_s, after.per_s))))
        on_turn(turns[-1])
        before = after
    return turns


def order_share(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Of all pairs of different sizes, the share in which the smaller took less time; 0.5 would be chance."""
    pairs = [
        (times[i] < times[j]) == (sizes[i] < sizes[j])
        for i in range(len(sizes))
        for j in range(i)
        if sizes[i] != sizes[j]
    ]
    return statistics.mean(pairs)
