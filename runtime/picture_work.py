"""One request of Upscale or Translate: decodes a picture file, makes jobs of its tiles and encodes the answer's file.

server/service.py makes a PictureWork for each request, and server/pipeline.py runs it. For each band of rows it calls
`decode` on a codec thread, submits `job` to the scheduler and takes the pixels with `finished`. `whole` or `write` then
encodes the answer. runtime/tiling computes the pixels, runtime/pictures reads and writes the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from runtime.backends.base import Engine
from runtime.cost import Cost
from runtime.errors import Cancelled
from runtime.jobs import Flow, Job
from runtime.pictures.formats import WRITABLE, Encoding
from runtime.pictures.reading import OpenedPicture, Rows
from runtime.pictures.writing import Output
from runtime.tensors import Array
from runtime.tiling.geometry import Bands
from runtime.tiling.passes import answer_format
from runtime.tiling.tiled_picture import OnTilesDone, TiledPicture
from runtime.values import UNIT, value_range

FLOAT_BYTES = 4
# Memory of one band's canvas. At most three bands are in memory: two on the way through the network, one being written.
BAND_BYTES = 64 * 2**20
BANDS_ALIVE = 3
# What a file may take beyond its pixels, uncompressed: headers, metadata, a filter byte a row.
FILE_OVERHEAD = 1.01
FILE_OVERHEAD_BYTES = 2**20
# Uncompressed 16-bit RGBA. A file with more bytes per pixel is charged for as many pixels as it could hold.
FILE_BYTES_PER_PIXEL = 8


class PictureWork:
    """One picture on its way from the opened file to the answer's file.

    opened: the input. width, height: of the answer, in px. encoding: of the answer's file.
    file_bytes: memory held by the input file, 0 if it is on disk. flow: of its jobs; None for a new one.
    cost_px, cost_bytes: for admission: pixels to compute, and memory needed meanwhile.
    Raises InvalidInput if the model takes whole pictures only and this one is too large for it.
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
        flow: Flow | None = None,
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
            flow=flow,
        )
        self.cost_px = max(self._tiled.computed_px, file_bytes // FILE_BYTES_PER_PIXEL)
        self.cost_bytes = file_bytes + self._memory_bytes(opened.by_rows)

    @property
    def cost(self) -> Cost:
        """What it needs, without the seconds."""
        output, header = self.output, self._header
        by_rows = WRITABLE[output.encoding.format].by_rows
        written = len(self.bands) > 1 and by_rows
        own_px, answer_px = output.width * output.height, output.to_width * output.to_height
        resized = max(own_px, header.pixels) < answer_px
        return Cost(
            pixels=self.cost_px,
            memory_bytes=self.cost_bytes,
            disk_bytes=int(self._answer_bytes * FILE_OVERHEAD) + FILE_OVERHEAD_BYTES if written else 0,
            field="outscale" if resized else "image" if by_rows else "format",
        )

    @property
    def bands(self) -> Bands:
        """The bands of rows in which the picture is processed, from the top down; a small picture is a single band."""
        return self._tiled.bands

    def decode(self, index: int) -> None:
        """Decode a band's rows and prepare its tiles. Call it for bands 0, 1, … in order.

        Raises InvalidInput if the file is damaged, Cancelled after `free`.
        """
        opened = self._opened
        if opened is None:
            raise Cancelled("the request has ended")
        if self._rows is None:
            self._rows = opened.rows()
        self._tiled.begin(index, self._rows.read(*self._tiled.rows_needed(index)))
        if self._opened is None:  # the request ended meanwhile
            self.free()

    def job(self, index: int, deadline_s: float | None, on_tiles_done: OnTilesDone) -> Job:
        """The job that runs the tiles of a decoded band. deadline_s: on the scheduler's clock."""
        return self._tiled.job(index, deadline_s=deadline_s, on_tiles_done=on_tiles_done)

    def finished(self, index: int) -> Array:
        """The pixels of a band whose job is done: [rows, W, C], floats clipped to [0, 1]. The band is then forgotten."""
        pixels = self._tiled.finish(index)
        return pixels.clip(0, 1, out=pixels) if pixels.dtype == np.float32 else pixels

    def whole(self) -> bytes:
        """Encode the answer of a single-band picture and return the file's bytes."""
        return self.output.to_memory(self.finished(0))

    def write(self, next_rows: Callable[[], Array], descriptor: int) -> None:
        """Encode the answer of a picture of many bands into a file.

        next_rows: returns the pixels of the next band. descriptor: of the open file; closed at the end.
        """
        try:
            self.output.to_descriptor(next_rows, descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Release the memory now. Called at the end of every request, successful or not."""
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

    def _memory_bytes(self, by_rows: bool) -> int:
        """Memory that the request needs: the decoder's, the bands' rows and canvases, and the encoded answer."""
        header, output, tiled = self._header, self.output, self._tiled
        tallest = tiled.most_rows_needed
        alive = min(BANDS_ALIVE, len(tiled.bands))
        decoder = 0 if by_rows else header.pixels * header.pixel_format.pixel_bytes
        # The decoded rows and the network's input; a third copy if the model's range is not [0, 1].
        copies = 2 if value_range(self._manifest.inputs[0]) == UNIT else 3
        planes = header.width * tallest * header.pixel_format.channels * FLOAT_BYTES * copies
        canvases = tiled.most_canvas_rows * tiled.canvas_row_bytes
        written = len(tiled.bands) > 1 and WRITABLE[output.encoding.format].by_rows
        return decoder + alive * (planes + canvases) + (0 if written else 2 * self._answer_bytes)

    @property
    def _answer_bytes(self) -> int:
        """Of the answer's pixels, uncompressed."""
        output = self.output
        return output.to_width * output.to_height * output.pixel_format.channels * output.bits // 8
