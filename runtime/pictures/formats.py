"""Pixel formats, the file formats that can be written (WRITABLE), and the options of encoding.

reading.py and the tiler describe pictures as PixelFormat. server/core/params.py makes an Encoding of a request's options,
and writing.py encodes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtime.errors import InvalidInput


@dataclass(frozen=True)
class PixelFormat:
    """The channels of a picture and their depth.

    colours: 1 (grey) or 3 (RGB). alpha: whether an alpha channel follows. bits: 8 or 16 (unsigned), or 32 (float).
    """

    colours: int = 3
    alpha: bool = False
    bits: int = 8

    @property
    def channels(self) -> int:
        """Colours plus alpha."""
        return self.colours + self.alpha

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, uint16 or float32."""
        return np.dtype({8: np.uint8, 16: np.uint16, 32: np.float32}[self.bits])

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all channels together."""
        return self.channels * self.dtype.itemsize

    @property
    def interpretation(self) -> str:
        """libvips' name of the colour space."""
        grey, colour = {8: ("b-w", "srgb"), 16: ("grey16", "rgb16"), 32: ("b-w", "scrgb")}[self.bits]
        return grey if self.colours == 1 else colour


@dataclass(frozen=True)
class Format:
    """A file format that can be written.

    longest: the longest side in pixels that the format, its library and libvips support. bits: the most per channel.
    alpha: whether it supports transparency. grey: whether it supports grey pictures (else they are written as RGB).
    quality: default quality, 1 to 100; None if the format has no such option. lossless: whether it can be lossless.
    by_rows: whether it can be written row by row, without the whole picture in memory.
    """

    longest: int
    bits: int
    alpha: bool = True
    grey: bool = True
    quality: int | None = None
    lossless: bool = True
    by_rows: bool = True

    def hold(self, pixel_format: PixelFormat) -> PixelFormat:
        """The pixel format in which a file of this format stores `pixel_format`."""
        return replace(
            pixel_format,
            colours=pixel_format.colours if self.grey else 3,
            alpha=pixel_format.alpha and self.alpha,
            bits=min(pixel_format.bits, self.bits),
        )


WRITABLE: Mapping[str, Format] = {
    "png": Format(longest=100_000_000, bits=16),
    "jpeg": Format(longest=65_500, bits=8, alpha=False, quality=92, lossless=False),
    "webp": Format(longest=16_383, bits=8, grey=False, quality=90, by_rows=False),
    "tiff": Format(longest=100_000_000, bits=32),
}


@dataclass(frozen=True)
class Encoding:
    """The format and options of a picture file. Raises InvalidInput for values out of range and for a lossless JPEG.

    format: "png", "jpeg", "webp" or "tiff". quality: 1 to 100, of JPEG and WebP; None for the format's default.
    lossless: WebP without loss. compression: effort of PNG and TIFF, 0 (none) to 9; None for 1.
    Formats ignore options that they do not have.
    """

    format: str
    quality: int | None = None
    lossless: bool = False
    compression: int | None = None

    def __post_init__(self) -> None:
        if self.format not in WRITABLE:
            raise InvalidInput("format", f"got {self.format!r}, expected one of {', '.join(WRITABLE)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise InvalidInput("quality", f"got {self.quality}, expected 1 to 100")
        if self.compression is not None and not 0 <= self.compression <= 9:
            raise InvalidInput("compression", f"got {self.compression}, expected 0 to 9")
        if self.lossless and not WRITABLE[self.format].lossless:
            able = ", ".join(name for name, format in WRITABLE.items() if format.lossless)
            raise InvalidInput(
                "lossless", f"{self.format} is always lossy; expected format to be one of {able}"
            )

    def check_size(self, width: int, height: int) -> None:
        """Raises InvalidInput if the format cannot hold width × height pixels."""
        longest = WRITABLE[self.format].longest
        if max(width, height) > longest:
            raise InvalidInput(
                "format",
                f"{self.format} holds sides of at most {longest} pixels, the output is {width}×{height}; ask for png",
            )
