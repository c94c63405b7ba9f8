"""BMP, which libvips reads only through ImageMagick: decoded by Pillow, a picture at a time."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from runtime.errors import InvalidInput
from runtime.pictures.codec import pyvips
from runtime.pictures.forms import Form
from runtime.pictures.metadata import Metadata

NAME = "bmp"
MAGIC = b"BM"
# Pillow's modes → what they are read as. Palettes become colours; one bit becomes eight.
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
FORMS = {"L": Form(1), "RGB": Form(3), "RGBA": Form(3, alpha=True)}
INCH_MM = 25.4

# The server's own limit is checked between the header and the pixels.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class BitmapHeader:
    form: Form
    metadata: Metadata


def is_bitmap(source: bytes | Path) -> bool:
    if isinstance(source, bytes):
        return source.startswith(MAGIC)
    with source.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_bitmap(source: bytes | Path) -> tuple[Image.Image, BitmapHeader]:
    """Read the header only. Raises InvalidInput."""
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=["BMP"])
    except (UnidentifiedImageError, OSError, ValueError, struct.error, OverflowError) as error:
        raise InvalidInput("image", f"the BMP's header cannot be read: {error}") from error
    if image.mode not in MODES:
        raise InvalidInput("image", f"got a BMP of mode {image.mode}, expected one of {', '.join(MODES)}")
    dpi = image.info.get("dpi")
    metadata = Metadata((), *(value / INCH_MM for value in dpi)) if dpi and all(dpi) else Metadata()
    return image, BitmapHeader(FORMS[MODES[image.mode]], metadata)


def decoded(image: Image.Image) -> pyvips.Image:
    """Raises InvalidInput where the file is damaged."""
    try:
        array = np.asarray(image.convert(MODES[image.mode]))
    except (OSError, ValueError, struct.error, IndexError, SyntaxError) as error:
        raise InvalidInput("image", f"the file is damaged or cut short: {error}") from error
    return pyvips.Image.new_from_array(np.ascontiguousarray(array.reshape(*array.shape[:2], -1)))
