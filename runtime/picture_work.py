"""The work of Upscale and Translate: a picture file in, a picture file out, through one model.

The server makes one for each request and calls, on codec threads, `decode` and `whole` or `write`, and gives each band's
`job` to the scheduler in between. What happens to the pixels is `runtime/tiling`; what happens to files is
`runtime/pictures`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from runtime.backends.base import Engine
from runtime.errors import Cancelled
from runtime.jobs import Job
from runtime.pictures.formats import WRITABLE, Encoding, PixelFormat
from runtime.pictures.reading import OpenedPicture, Rows
from runtime.pictures.writing import Output
from runtime.tensors import Array
from runtime.tiling.geometry import Band
from runtime.tiling.passes import answer_format
from runtime.tiling.tiled_picture import OnTilesDone, TiledPicture
from runtime.values import UNIT, value_range

FLOAT_BYTES = 4
# Of one band's canvas. Two bands are in work, and one is being written.
BAND_BYTES = 64 * 2**20
BANDS_ALIVE = 3
# A file that takes more bytes a pixel than this (16-bit RGBA, uncompressed) costs as much as the pixels it could hold.
FILE_BYTES_PER_PIXEL = 8


class PictureWork:
    """One picture, from its opened file to the file of the answer.

    width, height: of the answer, in px. encoding: how it is written. file_bytes: memory that the file itself takes.
    cost_px, cost_bytes: what admission counts: pixels to compute, and memory while in work.
    Raises InvalidInput where the model takes pictures whole, and this one is too large for it.
    """

    def __init__(
        self,
        engine: Engine,
        opened: OpenedPicture,
        *,
        width: int,
        height: int,
        encoding: Encoding,
        file_bytes: int,
    ) -> None:
        self._manifest, self._header = engine.manifest, opened.header
        self._opened: OpenedPicture | None = opened
        self._rows: Rows | None = None
        self.output = self._output(opened, width, height, encoding)
        self._tiled = TiledPicture(
            engine,
            engine.manifest,
            height=opened.header.height,
            width=opened.header.width,
            pixel_format=opened.header.pixel_format,
            dtype=self.output.pixel_format.dtype,
            band_bytes=BAND_BYTES,
        )
        self.cost_px = max(self._tiled.computed_px, file_bytes // FILE_BYTES_PER_PIXEL)
        self.cost_bytes = file_bytes + self._pixel_bytes(opened.by_rows)

    @property
    def bands(self) -> tuple[Band, ...]:
        """Decoded, run and written one after the other; a small picture is one."""
        return self._tiled.bands

    @property
    def tiles_total(self) -> int:
        """Items of all bands: tiles, once for each run of the network."""
        return self._tiled.tiles_total

    def decode(self, index: int) -> None:
        """Read a band's rows and prepare its tiles; bands from the top down. Raises InvalidInput, Cancelled."""
        opened = self._opened
        if opened is None:
            raise Cancelled("the request has ended")
        if self._rows is None:
            self._rows = opened.rows()
        self._tiled.begin(index, self._rows.read(*self._tiled.rows_needed(index)))
        if self._opened is None:  # the request ended meanwhile
            self.free()

    def job(self, index: int, deadline_s: float | None, on_tiles_done: OnTilesDone) -> Job:
        """The tiles of a decoded band. deadline_s: on the scheduler's clock."""
        return self._tiled.job(index, deadline_s=deadline_s, on_tiles_done=on_tiles_done)

    def finished(self, index: int) -> Array:
        """[rows, W, C] of a band whose job is done, floats clipped to [0, 1]; its memory is the caller's."""
        pixels = self._tiled.finish(index)
        return pixels.clip(0, 1, out=pixels) if pixels.dtype == np.float32 else pixels

    def whole(self) -> bytes:
        """The file of a picture that is one band."""
        return self.output.to_memory(self.finished(0))

    def write(self, next_rows: Callable[[], Array], descriptor: int) -> None:
        """The file of a picture of many bands, which `next_rows` gives one after the other. Closes the descriptor."""
        try:
            self.output.to_descriptor(next_rows, descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give the memory back now, however the request ended."""
        self._opened = self._rows = None
        self._tiled.free()

    def _output(self, opened: OpenedPicture, width: int, height: int, encoding: Encoding) -> Output:
        header, scale = opened.header, self._manifest.scale
        answer = answer_format(header.pixel_format, self._manifest)
        bits = WRITABLE[encoding.format].hold(answer).bits
        own_size = (header.width * scale, header.height * scale)
        return Output(
            width=own_size[0],
            height=own_size[1],
            pixel_format=replace(answer, bits=bits if own_size == (width, height) else 32),
            to_width=width,
            to_height=height,
            bits=bits,
            encoding=encoding,
            metadata=opened.metadata,
            resolution_scale=(width / header.width, height / header.height),
        )

    def _pixel_bytes(self, by_rows: bool) -> int:
        """Memory while in work: what the decoder holds, the bands' rows and canvases, and what is made of them."""
        header, output, tiled = self._header, self.output, self._tiled
        needed = [tiled.rows_needed(index) for index in range(len(tiled.bands))]
        tallest = max(stop - start for start, stop in needed)
        alive = min(BANDS_ALIVE, len(tiled.bands))
        decoder = 0 if by_rows else header.pixels * _pixel_bytes(header.pixel_format)
        # The rows as they were read and as they are shown to the network; once more where its range is another.
        copies = 2 if value_range(self._manifest.inputs[0]) == UNIT else 3
        planes = header.width * tallest * header.pixel_format.channels * FLOAT_BYTES * copies
        canvases = max(band.high - band.low for band in tiled.bands) * tiled.canvas_row_bytes
        answer = output.to_width * output.to_height * output.pixel_format.channels * output.bits // 8
        written = len(tiled.bands) > 1 and WRITABLE[output.encoding.format].by_rows
        return decoder + alive * (planes + canvases) + (0 if written else 2 * answer)


def _pixel_bytes(pixels: PixelFormat) -> int:
    return pixels.channels * pixels.dtype.itemsize
