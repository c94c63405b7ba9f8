"""One request of Upscale or Translate: decodes a picture file, makes jobs of its tiles and encodes the answer's file.

server/core/images.py makes a PictureWork for each request, and server/core/pipeline.py runs it. For each band of rows it calls
`decode` on a codec thread, submits `job` to the scheduler and takes the pixels with `finished`. `whole` or `write` then
encodes the answer. runtime/tiling computes the pixels, runtime/pictures reads and writes the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from runtime.backends.base import Engine
from runtime.errors import Cancelled
from runtime.jobs import Flow, Job
from runtime.picture_cost import picture_cost
from runtime.pictures.formats import WRITABLE, Encoding
from runtime.pictures.reading import OpenedPicture, Rows
from runtime.pictures.writing import Output
from runtime.stopping import Stop, never
from runtime.tensors import Array
from runtime.tiling.geometry import Bands
from runtime.tiling.passes import answer_format
from runtime.tiling.tiled_picture import OnTilesDone, TiledPicture

# Memory of one band's canvas.
BAND_BYTES = 32 * 2**20
# An answer of more bytes than this (as pixels) is encoded to a temporary file, not to memory.
IN_MEMORY_BYTES = 16 * 2**20


class PictureWork:
    """One picture on its way from the opened file to the answer's file.

    opened: the input. width, height: of the answer, in px. encoding: of the answer's file.
    file_bytes: memory held by the input file, 0 if it is on disk. flow: of its jobs; None for a new one.
    stop: ends `decode`, `whole` and `write` with Cancelled.
    source_bytes: of the input file. in_memory: whether `whole` encodes the answer; else `write` does, to a file.
    cost: what admission is asked for.
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
        stop: Stop | None = None,
    ) -> None:
        self._manifest, self.header = engine.manifest, opened.header
        self.source_bytes = opened.size_bytes
        self._opened: OpenedPicture | None = opened
        self._stop = stop or never()
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
        held = WRITABLE[encoding.format].hold(self.output.pixel_format)
        raw_bytes = width * height * held.channels * (self.output.bits // 8)
        self.in_memory = len(self.bands) == 1 and raw_bytes <= IN_MEMORY_BYTES
        self.cost = picture_cost(
            engine.manifest,
            opened,
            self._tiled,
            self.output,
            in_memory=self.in_memory,
            file_bytes=file_bytes,
        )

    @property
    def bands(self) -> Bands:
        """The bands of rows in which the picture is processed, from the top down; a small picture is a single band."""
        return self._tiled.bands

    @property
    def tiles_total(self) -> int:
        """Tiles of all bands, counted once per pass of the network."""
        return self._tiled.tiles_total

    def decode(self, index: int) -> None:
        """Decode a band's rows and prepare its tiles. Call it for bands 0, 1, … in order.

        Raises InvalidInput if the file is damaged, Cancelled after `free`.
        """
        opened = self._opened
        if opened is None:
            raise Cancelled("the request has ended")
        rows = self._rows = self._rows or opened.rows(self._stop)
        self._tiled.begin(index, rows.read(*self._tiled.rows_needed(index)))
        if index + 1 == len(self.bands):
            self._rows = None  # the decoder's memory is not needed any more
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
        """Encode the answer if it is `in_memory`, and return the file's bytes."""
        return self.output.to_memory(self.finished(0), self._stop)

    def write(self, next_rows: Callable[[], Array], file: BinaryIO) -> None:
        """Encode the answer into a file.

        next_rows: returns the pixels of the next band. file: the open file; whoever closes it meanwhile does not disturb.
        """
        descriptor = os.dup(file.fileno())
        try:
            self.output.to_descriptor(next_rows, descriptor, self._stop)
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
        # Pixels that will be resized are not rounded to the answer's levels before: 16 bits are enough for 8, floats for more.
        given_bits = bits if own_size == (width, height) else 16 if bits == 8 else 32
        return Output(
            width=own_size[0],
            height=own_size[1],
            pixel_format=replace(answer, bits=given_bits),
            to_width=width,
            to_height=height,
            bits=bits,
            encoding=encoding,
            metadata=opened.metadata,
            resolution_scale=(width / header.width, height / header.height),
        )
