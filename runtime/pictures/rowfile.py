"""RowFile: lets libvips encode a picture whose rows are still being computed. writing.py uses it for large answers.

libvips reads pictures from memory or from files, not row by row. A RowFile looks to libvips like an uncompressed BigTIFF:
the header is made at once, and the pixels are fetched with `next_rows` when libvips reads them, so the whole picture is
never in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from runtime.niceness import give_way, niceness
from runtime.pictures.codec import pyvips
from runtime.pictures.formats import PixelFormat
from runtime.tensors import Array

STRIP_BYTES = 2**20
# TIFF 6.0's numbers of tags, types and values.
SHORT, LONG, LONG8 = (3, "H"), (4, "I"), (16, "Q")
UNSIGNED, FLOAT = 1, 3
GREY, RGB = 1, 2
STRAIGHT_ALPHA = 2


class RowFile:
    """A virtual TIFF file. `source` or `image` is given to libvips.

    width, height: of the whole picture, in px. pixel_format: of its rows.
    next_rows: returns the next band, [rows, W, C] in the format's dtype. If it raises, the reading ends, and the
        exception is kept in `error`, because libvips only reports that a read failed.
    libvips computes on threads that it keeps for all pictures; those that read this one become as nice as this thread is.
    """

    def __init__(
        self, width: int, height: int, pixel_format: PixelFormat, next_rows: Callable[[], Array]
    ) -> None:
        self._next_rows, self._niceness = next_rows, niceness()
        self._header = header(width, height, pixel_format)
        self._size = len(self._header) + height * width * pixel_format.pixel_bytes
        self._at = 0
        self._band, self._band_at = memoryview(b""), len(self._header)
        self.error: BaseException | None = None
        self.source = pyvips.SourceCustom()
        self.source.on_read(self._read)
        self.source.on_seek(self._seek)

    def image(self) -> pyvips.Image:
        """The picture as a libvips image, to be read once from the top down."""
        # unlimited: a row of a wide picture may be larger than what libtiff allows files of strangers.
        return pyvips.Image.new_from_source(
            self.source, "", access="sequential", fail_on="error", unlimited=True
        )

    def free(self) -> None:
        """Release the last band now; the reference cycle of source and callbacks would keep it until garbage collection."""
        self._next_rows, self._band = _no_rows, memoryview(b"")

    def _read(self, count: int) -> bytes:
        give_way(self._niceness)
        if self._at < len(self._header):
            data = self._header[self._at : self._at + count]
        elif self.error is not None or self._at >= self._size:
            return b""
        else:
            try:
                data = self._pixels(count)
            except BaseException as error:
                self.error = error
                return b""
        self._at += len(data)
        return data

    def _pixels(self, count: int) -> bytes:
        while self._at >= self._band_at + len(self._band):
            self._band_at += len(self._band)
            self._band = memoryview(b"")  # free its memory while waiting for the next
            self._band = np.ascontiguousarray(self._next_rows()).data.cast("B")
        offset = self._at - self._band_at
        assert offset >= 0, "rows are read from the top down"
        return bytes(self._band[offset : offset + count])

    def _seek(self, offset: int, whence: int) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at


def _no_rows() -> Array:
    raise EOFError("the row file was freed")


def header(width: int, height: int, pixel_format: PixelFormat) -> bytes:
    """The header of an uncompressed little-endian BigTIFF. The pixels follow it, row by row."""
    row_bytes = width * pixel_format.pixel_bytes
    rows = min(height, max(1, STRIP_BYTES // row_bytes))
    strips = -(-height // rows)
    lengths = [min(rows, height - strip * rows) * row_bytes for strip in range(strips)]
    tags: dict[int, tuple[tuple[int, str], list[int]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [pixel_format.dtype.itemsize * 8] * pixel_format.channels),
        259: (SHORT, [1]),  # no compression
        262: (SHORT, [GREY if pixel_format.colours == 1 else RGB]),
        273: (LONG8, [0] * strips),  # offsets of the strips, filled in below
        277: (SHORT, [pixel_format.channels]),
        278: (LONG, [rows]),
        279: (LONG8, lengths),
        284: (SHORT, [1]),  # channels interleaved
        **({338: (SHORT, [STRAIGHT_ALPHA])} if pixel_format.alpha else {}),
        339: (SHORT, [FLOAT if pixel_format.dtype.kind == "f" else UNSIGNED] * pixel_format.channels),
    }
    table = 16
    behind = table + 8 + 20 * len(tags) + 8
    places: dict[int, int] = {}
    for tag, ((_, letter), values) in tags.items():
        size = struct.calcsize(letter) * len(values)
        if size > 8:  # smaller values are stored in the table itself
            places[tag] = behind
            behind += size
    tags[273] = (LONG8, [behind + strip * rows * row_bytes for strip in range(strips)])
    entries, values_behind = b"", b""
    for tag, ((kind, letter), values) in tags.items():
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        entries += struct.pack("<HHQ", tag, kind, len(values))
        if tag in places:
            entries += struct.pack("<Q", places[tag])
            values_behind += packed
        else:
            entries += packed.ljust(8, b"\0")
    start = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, table, len(tags))
    return start + entries + struct.pack("<Q", 0) + values_behind
