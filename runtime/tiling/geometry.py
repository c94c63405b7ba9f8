"""Tile geometry: cuts a picture's area into overlapping tiles and groups them into bands of rows.

runtime/tiling/tiled_picture.py calls `cut` (rows and columns of windows), `bands` (tiles) and `pad_to_multiple`.

A tile is a window of the picture and a core inside it. The network sees the window; only the core of its output is
kept. The rest is the halo: every core is at least `halo` pixels away from those edges of its window that are not
edges of the picture. Windows at the picture's edge end exactly there, so that the network's zero padding is what it
saw in training. A side shorter than the tile is a single window of its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.tensors import Array


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in pixels of the input: the window [start, stop) and the core [low, high) inside it."""

    start: int
    stop: int
    low: int
    high: int


@dataclass(frozen=True)
class Tile:
    """A window of the picture with its core, in pixels of the input."""

    rows: Span
    columns: Span

    @property
    def height(self) -> int:
        """Of the window."""
        return self.rows.stop - self.rows.start

    @property
    def width(self) -> int:
        """Of the window."""
        return self.columns.stop - self.columns.start

    @property
    def pixels(self) -> int:
        """Of the window: what the network computes."""
        return self.height * self.width

    def window(self, planes: Array, top: int = 0) -> Array:
        """Cut the window out of `planes`: [C, rows, W] → [C, height, width], a view.

        top: the picture's row that is the first of `planes`.
        """
        return planes[
            :,
            self.rows.start - top : self.rows.stop - top,
            self.columns.start : self.columns.stop,
        ]


@dataclass(frozen=True)
class Band:
    """Tiles whose cores fill rows [low, high) of the padded picture, and whose windows cover rows [start, stop)."""

    tiles: tuple[Tile, ...]

    @property
    def start(self) -> int:
        """First row of the windows."""
        return self.tiles[0].rows.start

    @property
    def stop(self) -> int:
        """End of the windows' rows."""
        return self.tiles[-1].rows.stop

    @property
    def low(self) -> int:
        """First row of the cores."""
        return self.tiles[0].rows.low

    @property
    def high(self) -> int:
        """End of the cores' rows."""
        return self.tiles[-1].rows.high


def cut(height: int, width: int, manifest: Manifest) -> tuple[list[Span], list[Span]]:
    """Cut a height × width picture, padded to the model's size multiple, into rows and columns of windows.

    Chooses the manifest's tile size with the fewest computed pixels; without tile sizes, the whole picture is one window.
    """
    multiple = manifest.size_multiple
    height, width = padded_size(height, width, multiple)
    tile = choose_tile(
        height,
        width,
        tile_sizes=manifest.tile_sizes or (max(height, width),),
        halo=manifest.halo,
        multiple=multiple,
    )
    rows, columns = (
        split(side, tile=tile, halo=manifest.halo, multiple=multiple) for side in (height, width)
    )
    return rows, columns


def bands(rows: Sequence[Span], columns: Sequence[Span], most_rows: int | None = None) -> tuple[Band, ...]:
    """Group rows of tiles into bands. rows, columns: from `cut`.

    most_rows: limit on the picture's rows that the cores of a band fill; a band has at least one row of tiles. None: a
    single band.
    """
    groups: list[list[Span]] = []
    for row in rows:
        if groups and (most_rows is None or row.high - groups[-1][0].low <= most_rows):
            groups[-1].append(row)
        else:
            groups.append([row])
    return tuple(Band(tuple(Tile(row, column) for row in group for column in columns)) for group in groups)


def split(length: int, *, tile: int, halo: int, multiple: int = 1) -> list[Span]:
    """Split one axis into as few windows as the halo allows, spread evenly. Cores cover every pixel exactly once.

    length, tile, halo: in pixels of the input. multiple: every window starts and ends on a multiple of it; length and
    tile must be multiples too (see `pad_to_multiple`). Raises InvalidInput if the halo leaves no core.
    """
    if min(length, tile, multiple) < 1 or halo < 0 or length % multiple or tile % multiple:
        raise InvalidInput(
            "tile",
            f"got length {length}, tile {tile}, halo {halo}; expected positive multiples of {multiple}",
        )
    if length <= tile:
        return [Span(0, length, 0, length)]
    step = (tile - 2 * halo) // multiple
    if step < 1:
        raise InvalidInput("halo", f"got {halo} with a tile of {tile}, expected less than half of the tile")
    travel = (length - tile) // multiple
    windows = 1 + -(-travel // step)
    starts = [index * travel // (windows - 1) * multiple for index in range(windows)]
    # Cores meet in the middle of an overlap, at the same distance from both windows' edges.
    cuts = [0, *((left + tile + right) // 2 for left, right in pairwise(starts)), length]
    return [Span(start, start + tile, cuts[i], cuts[i + 1]) for i, start in enumerate(starts)]


def computed_px(height: int, width: int, *, tile: int, halo: int, multiple: int = 1) -> int:
    """Pixels that the network computes for one picture, overlaps included. height, width: multiples of `multiple`."""
    rows, columns = (
        sum(s.stop - s.start for s in split(side, tile=tile, halo=halo, multiple=multiple))
        for side in (height, width)
    )
    return rows * columns


def choose_tile(height: int, width: int, *, tile_sizes: Sequence[int], halo: int, multiple: int = 1) -> int:
    """The tile size with the fewest computed pixels for this picture; the first of several equal ones."""
    return min(
        tile_sizes, key=lambda tile: computed_px(height, width, tile=tile, halo=halo, multiple=multiple)
    )


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_to_multiple(image: Array, multiple: int) -> Array:
    """Pad [C, H, W] to multiples of `multiple` by replicating the bottom and right edges."""
    down, right = (-side % multiple for side in image.shape[1:])
    return np.pad(image, ((0, 0), (0, down), (0, right)), mode="edge") if down or right else image
