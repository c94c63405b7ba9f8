"""Reads BMP files with Pillow, because libvips could read them only through ImageMagick.

runtime/pictures/reading.py calls it: `read_header` returns size and pixel format, `decoded` the picture as a libvips
image.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from runtime.errors import InvalidInput
from runtime.pictures.codec import pyvips
from runtime.pictures.formats import PixelFormat
from runtime.pictures.metadata import Metadata

NAME = "bmp"
MAGIC = b"BM"
# Pillow's modes → the modes they are converted to: palettes to RGB, one bit to eight.
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
PIXEL_FORMATS = {"L": PixelFormat(1), "RGB": PixelFormat(3), "RGBA": PixelFormat(3, alpha=True)}
INCH_MM = 25.4

# Turn off Pillow's limit; the server checks its own (max_pixels) after reading the header.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class BitmapHeader:
    """What the header of a BMP says. width, height: in px."""

    width: int
    height: int
    pixel_format: PixelFormat
    metadata: Metadata


def is_bitmap(source: bytes | Path) -> bool:
    """Whether a file (its bytes, or its path) starts like a BMP."""
    if isinstance(source, bytes):
        return source.startswith(MAGIC)
    with source.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(source: bytes | Path) -> BitmapHeader:
    """Read the header of a BMP. Raises InvalidInput if it is damaged or of an unsupported mode."""
    try:
        image = open_image(source)
    except (UnidentifiedImageError, OSError, ValueError, struct.error, OverflowError) as error:
        raise InvalidInput("image", f"the BMP's header cannot be read: {error}") from error
    with image:
        if image.mode not in MODES:
            raise InvalidInput("image", f"got a BMP of mode {image.mode}, expected one of {', '.join(MODES)}")
        dpi = image.info.get("dpi")
        per_mm = (dpi[0] / INCH_MM, dpi[1] / INCH_MM) if dpi and min(dpi) > 0 else None
        return BitmapHeader(
            image.width, image.height, PIXEL_FORMATS[MODES[image.mode]], Metadata(per_mm=per_mm)
        )


def decoded(source: bytes | Path) -> pyvips.Image:
    """Decode a BMP to a libvips image. Raises InvalidInput if the file is damaged."""
    try:
        with open_image(source) as image:
            array = np.asarray(image.convert(MODES[image.mode]))
    except (OSError, ValueError, struct.error, IndexError, SyntaxError) as error:
        raise InvalidInput("image", f"the file is damaged or cut short: {error}") from error
    return pyvips.Image.new_from_array(np.ascontiguousarray(array.reshape(*array.shape[:2], -1)))


def open_image(source: bytes | Path) -> Image.Image:
    """Open a BMP with Pillow, without decoding its pixels."""
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=["BMP"])
