"""Images into tiles of one shape, and tiles back into an image.

A tile is a window of the image and a core inside it. The network sees the window; only the core of its output is
kept. Between windows lies a halo: every core is at least `halo` pixels from those edges of its window that are not
edges of the image. Windows on the image's edge sit on that edge, where the network's own zero padding is what it saw
in training. A side shorter than the tile is one window of its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from runtime.backends.base import Engine
from runtime.errors import InvalidInput
from runtime.pixels import to_levels
from runtime.tensors import Array


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels of the input: the window [start, stop) and the core [low, high) inside it."""

    start: int
    stop: int
    low: int
    high: int


@dataclass(frozen=True)
class Tile:
    """A window of the image and the core that it answers for, in pixels of the input."""

    rows: Span
    columns: Span

    @property
    def height(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def window(self, image: Array) -> Array:
        """[C, H, W] → [C, height, width], a view."""
        return image[:, self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]


def plan(height: int, width: int, *, tile: int, halo: int, multiple: int = 1) -> list[Tile]:
    """The tiles of a height × width image, row by row. Cores cover every pixel exactly once.

    tile, halo: pixels of the input. multiple: every window starts and ends on a multiple of it; height, width and
    tile must be multiples as well (see `pad_to_multiple`).
    """
    rows = split(height, tile=tile, halo=halo, multiple=multiple)
    columns = split(width, tile=tile, halo=halo, multiple=multiple)
    return [Tile(row, column) for row in rows for column in columns]


def split(length: int, *, tile: int, halo: int, multiple: int = 1) -> list[Span]:
    """One axis: as few windows as the halo allows, spread evenly, so that every overlap is as wide as it can be."""
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
    # Each overlap is cut in the middle, so that both sides keep the same distance to their window's edge.
    cuts = [0, *((left + tile + right) // 2 for left, right in pairwise(starts)), length]
    return [Span(start, start + tile, cuts[i], cuts[i + 1]) for i, start in enumerate(starts)]


def work(height: int, width: int, *, tile: int, halo: int, multiple: int = 1) -> int:
    """Pixels the network sees for one image, halos counted every time."""
    axes = (
        sum(s.stop - s.start for s in split(side, tile=tile, halo=halo, multiple=multiple))
        for side in (height, width)
    )
    rows, columns = axes
    return rows * columns


def choose_tile(height: int, width: int, *, tile_sizes: Sequence[int], halo: int, multiple: int = 1) -> int:
    """The tile size with the least work for this image; the first where several tie."""
    return min(tile_sizes, key=lambda tile: work(height, width, tile=tile, halo=halo, multiple=multiple))


def pad_to_multiple(image: Array, multiple: int) -> Array:
    """[C, H, W] → the same with H and W rounded up to multiples, edges replicated at the bottom and right."""
    down, right = (-side % multiple for side in image.shape[1:])
    return np.pad(image, ((0, 0), (0, down), (0, right)), mode="edge") if down or right else image


class Canvas:
    """Where the cores of tiles are put together: of a whole image, or of a band of its rows.

    height, width: in pixels of the input; the canvas is `scale` times as large. top: the input's row that it begins
    with. dtype: uint8 and uint16 round each core as it comes; float32 keeps the network's values, for a resize before
    rounding. low, high: the output's range.
    """

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        scale: int,
        top: int = 0,
        dtype: np.typing.DTypeLike = np.uint8,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        # [SH, SW, C]
        self.pixels: np.ndarray[Any, Any] = np.empty((height * scale, width * scale, channels), dtype)
        self._scale, self._top, self._low, self._high = scale, top, low, high

    def paste(self, tile: Tile, output: Array, channels: slice = slice(None)) -> None:
        """Put the core of `output` in its place in `channels`; what padding brought beyond the image is cut.

        output: [C, S·height, S·width] float32 of the tile's window.
        """
        scale = self._scale
        rows, columns = tile.rows, tile.columns
        target = self._core(tile)[:, :, channels]
        core = output[
            :,
            (rows.low - rows.start) * scale : (rows.high - rows.start) * scale,
            (columns.low - columns.start) * scale : (columns.high - columns.start) * scale,
        ][:, : target.shape[0], : target.shape[1]]
        if self.pixels.dtype != np.float32:
            core = to_levels(core, self.pixels.dtype, self._low, self._high)
        target[:] = core.transpose(1, 2, 0)

    def fill(self, tile: Tile, value: float, channels: slice) -> None:
        """The same for a core that is `value` all over, in the output's range."""
        constant = np.float32(value)
        if self.pixels.dtype != np.float32:
            constant = to_levels(constant.reshape(1), self.pixels.dtype, self._low, self._high)[0]
        self._core(tile)[:, :, channels] = constant

    def _core(self, tile: Tile) -> Array:
        low, high = ((row - self._top) * self._scale for row in (tile.rows.low, tile.rows.high))
        return self.pixels[low:high, tile.columns.low * self._scale : tile.columns.high * self._scale]


def run_tiled(engine: Engine, image: Array, *, tile: int, halo: int) -> Array:
    """One image through an engine, tile by tile: [C, H, W] float32 → [C, SH, SW] float32, not clipped."""
    manifest = engine.manifest
    height, width = image.shape[1:]
    padded = pad_to_multiple(image, manifest.size_multiple)
    canvas = Canvas(channels=len(image), height=height, width=width, scale=manifest.scale, dtype=np.float32)
    (source,), (target,) = manifest.inputs, manifest.outputs
    for part in plan(*padded.shape[1:], tile=tile, halo=halo, multiple=manifest.size_multiple):
        output = engine.run({source.name: part.window(padded)[None]})[target.name]
        canvas.paste(part, output[0])
    return canvas.pixels.transpose(2, 0, 1)
