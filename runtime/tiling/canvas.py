"""Canvas: assembles the outputs of tiles into the pixels of a picture, or of a band of its rows.

runtime/tiling/tiled_picture.py makes one canvas per band, pastes each tile's output into it (from any thread) and takes
the result from `pixels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.tensors import Array, TensorSpec
from runtime.tiling.geometry import Tile
from runtime.values import from_model, to_levels, value_range


class Canvas:
    """The output pixels of some rows of a picture, filled tile by tile.

    channels: of the output. height, width: in pixels of the input; the canvas is `scale` times as large.
    output: spec of the graph's output; values are converted from its range. top: the input row at the canvas' top.
    dtype: uint8 and uint16 for rounded levels; float32 for values in [0, 1], not clipped, if a resize follows.
    pixels: the result, [S·height, S·width, channels].
    """

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        scale: int,
        output: TensorSpec,
        top: int = 0,
        dtype: np.typing.DTypeLike = np.uint8,
    ) -> None:
        # [SH, SW, C]
        self.pixels: np.ndarray[Any, Any] = np.empty((height * scale, width * scale, channels), dtype)
        self._scale, self._top, self._output = scale, top, output
        self._low, self._high = value_range(output)

    def paste(self, tile: Tile, output: Array, channels: slice = slice(None)) -> None:
        """Paste the core of a tile's output into `channels`. Padding outside the picture is cut off.

        output: [C, S·height, S·width] float32 in the model's range, of the tile's window.
        """
        scale = self._scale
        rows, columns = tile.rows, tile.columns
        target = self._core(tile)[:, :, channels]
        core = output[
            :,
            (rows.low - rows.start) * scale : (rows.high - rows.start) * scale,
            (columns.low - columns.start) * scale : (columns.high - columns.start) * scale,
        ][:, : target.shape[0], : target.shape[1]]
        target[:] = self._converted(core).transpose(1, 2, 0)

    def fill(self, tile: Tile, value: float, channels: slice) -> None:
        """Fill the tile's core with one value in [0, 1]."""
        constant = np.full(1, value, np.float32)
        self._core(tile)[:, :, channels] = (
            constant if self._floats else to_levels(constant, self.pixels.dtype)
        )

    def put(self, values: Array, channel: int) -> None:
        """Set a whole channel. values: [SH, SW] float32 in [0, 1]."""
        self.pixels[:, :, channel] = values if self._floats else to_levels(values, self.pixels.dtype)

    def _converted(self, values: Array) -> Array:
        """From the model's range to what the canvas holds."""
        if self._floats:
            return from_model(values, self._output)
        return to_levels(values, self.pixels.dtype, self._low, self._high)

    @property
    def _floats(self) -> bool:
        return self.pixels.dtype == np.float32

    def _core(self, tile: Tile) -> Array:
        low, high = ((row - self._top) * self._scale for row in (tile.rows.low, tile.rows.high))
        return self.pixels[low:high, tile.columns.low * self._scale : tile.columns.high * self._scale]
