"""Tile geometry: cuts a picture's area into overlapping tiles and groups them into bands of rows.

runtime/tiling/tiled_picture.py calls `cut` (rows and columns of windows) and `bands` (tiles).

A tile is a window of the picture and a core inside it. The network sees the window; only the core of its output is
kept. The rest is the halo: every core is at least `halo` pixels away from those edges of its window that are not
edges of the picture. Windows at the picture's edge end exactly there, so that the network's zero padding is what it
saw in training. A side shorter than the tile is a single window of its own length.

A picture can have millions of tiles, and its cost must be known before it is admitted: so counts and sizes are
arithmetic, and windows, bands and tiles are computed one at a time, when they are asked for. Nothing lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.sides import side_of
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
class Axis:
    """The windows along one axis, from `split`: `len(axis)` of them, `axis[i]` computed when asked for.

    length: of the axis. tile: of a window. windows: how many. multiple: every window starts on a multiple of it.
    step: the most pixels between the starts of neighbouring windows. All in pixels of the input.
    """

    length: int
    tile: int
    windows: int
    multiple: int
    step: int

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, index: int) -> Span:
        if not 0 <= index < self.windows:
            raise IndexError(index)
        start = self._start(index)
        return Span(start, start + self.tile, self._cut(index), self._cut(index + 1))

    def __iter__(self) -> Iterator[Span]:
        return (self[index] for index in range(self.windows))

    @property
    def computed(self) -> int:
        """The sum of the windows' lengths, overlaps included."""
        return self.windows * self.tile

    def rows_in(self, most: int) -> int:
        """How many neighbouring windows, at least 1, have cores of together at most `most` pixels, wherever they are."""
        # The first and the last core are longer than a step by half of an overlap.
        return max(1, (most - (self.tile - self.step)) // self.step)

    def _start(self, index: int) -> int:
        travel = (self.length - self.tile) // self.multiple
        return index * travel // max(self.windows - 1, 1) * self.multiple

    def _cut(self, index: int) -> int:
        """Where core `index` begins: in the middle of an overlap, at the same distance from both windows' edges."""
        if index in (0, self.windows):
            return self.length if index else 0
        return (self._start(index - 1) + self.tile + self._start(index)) // 2


@dataclass(frozen=True)
class Band:
    """Rows [first, last) of tiles. Their cores fill rows [low, high) of the padded picture, their windows [start, stop)."""

    rows: Axis
    columns: Axis
    first: int
    last: int

    def __len__(self) -> int:
        return (self.last - self.first) * len(self.columns)

    def __getitem__(self, index: int) -> Tile:
        """Tile number `index` of the band, from the left and the top."""
        row, column = divmod(index, len(self.columns))
        return Tile(self.rows[self.first + row], self.columns[column])

    @property
    def tiles(self) -> Iterator[Tile]:
        """The tiles, one after the other."""
        return (self[index] for index in range(len(self)))

    @property
    def start(self) -> int:
        """First row of the windows."""
        return self.rows[self.first].start

    @property
    def stop(self) -> int:
        """End of the windows' rows."""
        return self.rows[self.last - 1].stop

    @property
    def low(self) -> int:
        """First row of the cores."""
        return self.rows[self.first].low

    @property
    def high(self) -> int:
        """End of the cores' rows."""
        return self.rows[self.last - 1].high


@dataclass(frozen=True)
class Bands(Sequence[Band]):
    """The bands of a picture, from the top down, each with `tile_rows` rows of tiles (the last one with the rest)."""

    rows: Axis
    columns: Axis
    tile_rows: int

    def __len__(self) -> int:
        return -(-len(self.rows) // self.tile_rows)

    @overload
    def __getitem__(self, index: int) -> Band: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Band]: ...
    def __getitem__(self, index: int | slice) -> Band | Sequence[Band]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = index * self.tile_rows
        return Band(self.rows, self.columns, first, min(first + self.tile_rows, len(self.rows)))

    @property
    def tiles(self) -> int:
        """How many tiles all bands have."""
        return len(self.rows) * len(self.columns)

    @property
    def computed_px(self) -> int:
        """Pixels that the network computes for all of them, overlaps included."""
        return self.rows.computed * self.columns.computed

    @property
    def most_rows(self) -> int:
        """At least the rows of the picture that the windows of one band cover."""
        return min(self.rows.length, (self.tile_rows - 1) * self.rows.step + self.rows.tile)


def cut(height: int, width: int, manifest: Manifest) -> tuple[Axis, Axis]:
    """Cut a height × width picture, padded to a size that the model takes, into rows and columns of windows.

    Chooses the manifest's tile size with the fewest computed pixels; without tile sizes, the whole picture is one window.
    """
    multiple = manifest.size_multiple
    height, width = side_of(manifest, height), side_of(manifest, width)
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


def bands(rows: Axis, columns: Axis, most_rows: int | None = None) -> Bands:
    """Group rows of tiles into bands. rows, columns: from `cut`.

    most_rows: limit on the picture's rows that the cores of a band fill; a band has at least one row of tiles. None: a
    single band.
    """
    single = most_rows is None or rows.length <= most_rows
    return Bands(rows, columns, len(rows) if single else rows.rows_in(most_rows or 0))


def split(length: int, *, tile: int, halo: int, multiple: int = 1) -> Axis:
    """Split one axis into as few windows as the halo allows, spread evenly. Cores cover every pixel exactly once.

    length, tile, halo: in pixels of the input. multiple: every window starts and ends on a multiple of it; length and
    tile must be multiples too (see padding.py). Raises InvalidInput if the halo leaves no core.
    """
    if min(length, tile, multiple) < 1 or halo < 0 or length % multiple or tile % multiple:
        raise InvalidInput(
            "tile",
            f"got length {length}, tile {tile}, halo {halo}; expected positive multiples of {multiple}",
        )
    if length <= tile:
        return Axis(length, length, 1, multiple, length)
    step = (tile - 2 * halo) // multiple
    if step < 1:
        raise InvalidInput("halo", f"got {halo} with a tile of {tile}, expected less than half of the tile")
    travel = (length - tile) // multiple
    return Axis(length, tile, 1 + -(-travel // step), multiple, step * multiple)


def computed_px(height: int, width: int, *, tile: int, halo: int, multiple: int = 1) -> int:
    """Pixels that the network computes for one picture, overlaps included. height, width: multiples of `multiple`."""
    rows, columns = (
        split(side, tile=tile, halo=halo, multiple=multiple).computed for side in (height, width)
    )
    return rows * columns


def choose_tile(height: int, width: int, *, tile_sizes: Sequence[int], halo: int, multiple: int = 1) -> int:
    """The tile size with the fewest computed pixels for this picture; the first of several equal ones."""
    return min(
        tile_sizes, key=lambda tile: computed_px(height, width, tile=tile, halo=halo, multiple=multiple)
    )
