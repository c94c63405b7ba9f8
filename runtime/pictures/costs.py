"""Costs of reading and writing picture files: upper bounds of the memory and disk that libvips takes for a picture.

runtime/picture_work.py adds them up before anything is decoded, and admission refuses what is too much. The numbers below
are the most that was measured with libvips 8.18 over pictures of 4 to 64 megapixels, rounded up;
tests/runtime/test_costs.py measures the memory of a process against them. All results are in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime.pictures import resizing
from runtime.pictures.formats import WRITABLE, Encoding, PixelFormat

MIB = 2**20
# Lines of a picture that libvips' caches and regions hold while it is read or written row by row.
LINES_READ, LINES_WRITTEN = 3_000, 1_400
# Of a picture that is lower than that: so many copies of it, and so many lines more.
LOW_COPIES, LOW_LINES = 2, 256
# Decoders that hold the whole picture → bytes per pixel with 8 bits a channel, and with more.
WHOLE_DECODERS: Mapping[str, tuple[int, int]] = {
    "webp": (10, 10),
    "gif": (8, 8),
    "avif": (18, 26),
    "jxl": (36, 48),
    "bmp": (16, 16),
}
# A progressive JPEG keeps a 16-bit coefficient for each sample.
COEFFICIENT_BYTES = 2
# libtiff refuses strips and tiles that need more.
TIFF_BUFFER_BYTES = 50 * MIB
# Encoders that hold the whole picture: bytes per pixel without loss, with loss, and with loss and transparency.
WEBP_LOSSLESS, WEBP_LOSSY, WEBP_LOSSY_ALPHA = 56, 18, 52
# A file is at most so much larger than its pixels, and so many bytes more.
EXPANSION: Mapping[str, float] = {"jpeg": 2.0}
USUAL_EXPANSION, FILE_OVERHEAD_BYTES = 1.1, 64 * 1024


def decoder_bytes(
    format: str, *, width: int, height: int, source_bytes: int, bits: int, by_rows: bool, turned: bool = False
) -> int:
    """Memory for decoding a picture. width, height: of the file's picture, in px.

    source_bytes: of one pixel as the decoder returns it. bits: of one channel. by_rows: whether it is decoded row by row.
    turned: whether libvips copies the whole picture to rotate or flip it.
    """
    pixels = width * height
    lines = _lines(height, LINES_READ) * width * source_bytes
    copied = pixels * source_bytes if turned else 0
    if by_rows:
        return lines
    if format in WHOLE_DECODERS:
        return pixels * WHOLE_DECODERS[format][bits > 8] + copied
    coefficients = COEFFICIENT_BYTES if format == "jpeg" else 1
    return pixels * source_bytes * coefficients + lines + copied


def tiff_bytes(width: int, source_bytes: int, *, rows_of_unit: int, tiled: bool) -> int:
    """Memory for the strips or tiles of a TIFF that is decoded, beside `decoder_bytes`.

    rows_of_unit: rows of a strip, or of a tile, at most the picture's.
    """
    unit = rows_of_unit * width * source_bytes
    # Two rows of tiles are cached. Of a strip, the compressed and the decoded bytes are in memory.
    return 2 * unit if tiled else 2 * min(unit, TIFF_BUFFER_BYTES)


def encoder_bytes(
    encoding: Encoding, *, given: PixelFormat, bits: int, size: tuple[int, int], to_size: tuple[int, int]
) -> int:
    """Memory for encoding a picture, beside the pixels given and the file.

    given: format of the pixels given, of `size` (width, height). The file has `to_size` and `bits` per channel.
    """
    to_width, to_height = to_size
    to_row_bytes = to_width * given.channels * (bits // 8)
    lines = _lines(to_height, LINES_WRITTEN) * to_row_bytes
    if size != to_size:  # by runtime/pictures/resizing.py, before libvips writes it
        lines += resizing.memory_bytes(size, to_size, given.channels)
    if WRITABLE[encoding.format].by_rows:
        return lines
    lossy = WEBP_LOSSY_ALPHA if given.alpha else WEBP_LOSSY
    return lines + to_width * to_height * (WEBP_LOSSLESS if encoding.lossless else lossy)


def file_bytes(encoding: Encoding, *, channels: int, bits: int, width: int, height: int) -> int:
    """The most bytes that a file of width × height pixels takes, without its metadata."""
    expansion = EXPANSION.get(encoding.format, USUAL_EXPANSION)
    return int(width * height * channels * (bits // 8) * expansion) + FILE_OVERHEAD_BYTES


def _lines(height: int, most: int) -> int:
    """The lines that libvips holds of a picture of `height`."""
    return min(LOW_COPIES * height + LOW_LINES, most)
