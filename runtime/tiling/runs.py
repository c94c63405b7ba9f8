"""Runs: what a band's job consists of, one run of the network per tile and pass, without a list of them.

runtime/tiling/tiled_picture.py makes the Runs of each band. They are the items of its job, and say which tile and pass
item i is. A band can have a million tiles, so items are computed when the scheduler asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from runtime.jobs import Item
from runtime.tensors import Array
from runtime.tiling.geometry import Band, Tile
from runtime.tiling.passes import Pass


@dataclass(frozen=True)
class TilesOfPass:
    """The tiles of a band that go through the network in one pass. indices: their numbers within the band."""

    pass_: Pass
    indices: range | Array


class Runs(Sequence[Item]):
    """The runs of a band, as the items of a job. parts: the passes, one after the other."""

    def __init__(self, band: Band, parts: Sequence[TilesOfPass]) -> None:
        self.band, self._parts = band, parts
        self._length = sum(len(part.indices) for part in parts)
        # The scheduler asks for the next item of each waiting job again and again. One tuple, so that threads can share it.
        self._latest: tuple[int, Item] | None = None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        latest = self._latest
        if latest is not None and latest[0] == index:
            return latest[1]
        tile, _ = self.at(index)
        item = Item((tile.height, tile.width), tile.pixels)
        self._latest = (index, item)
        return item

    def at(self, index: int) -> tuple[Tile, Pass]:
        """The tile and the pass of item `index`."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        for part in self._parts:
            if index < len(part.indices):
                return self.band[int(part.indices[index])], part.pass_
            index -= len(part.indices)
        raise AssertionError("the lengths of the parts add up to that of the runs")


def not_flat(flat: Array) -> range | Array:
    """The numbers of the tiles that are not flat. flat: [tiles] bool."""
    return np.flatnonzero(~flat) if flat.any() else range(len(flat))
