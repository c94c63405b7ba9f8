"""Small pictures as uint8 arrays: decode, encode, convert to float and back, resize, arrange in a grid.

Build, evaluation, the demo, runtime/sample_work.py and tests call it. Pictures of requests can be large and are
processed by runtime/picture_work.py instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.errors import InvalidInput
from runtime.pictures.formats import Encoding, PixelFormat
from runtime.pictures.reading import open_picture
from runtime.pictures.scaling import scaled
from runtime.pictures.writing import Output, as_image
from runtime.tensors import Array
from runtime.values import to_levels


def decode(data: bytes, *, max_pixels: int) -> Array:
    """Decode a picture file to [H, W, 3] uint8, upright.

    Transparent pixels are blended with white, grey becomes three equal channels, 16 bits are rounded to 8.
    Raises InvalidInput if the file is damaged, truncated or larger than `max_pixels` (height × width).
    """
    picture = open_picture(data, max_pixels=max_pixels)
    pixel_format = picture.header.pixel_format
    values = picture.rows().read(0, picture.header.height)  # [C, H, W]
    colour = values[: pixel_format.colours]
    if pixel_format.alpha:
        colour = colour * values[pixel_format.colours :] + (1 - values[pixel_format.colours :])
    levels = to_levels(colour, np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def encode(pixels: Array, format: str, quality: int | None = None) -> bytes:
    """Encode [H, W, 1 or 3] uint8 pixels and return the file's bytes.

    format: "png", "jpeg", "webp" or "tiff". quality: 1 to 100, for JPEG and WebP. Raises InvalidInput for other values
    and for sizes that the format cannot hold.
    """
    height, width, colours = pixels.shape
    encoding = Encoding(format, quality)
    encoding.check_size(width, height)
    return Output(width, height, PixelFormat(colours), width, height, 8, encoding).to_memory(pixels)


def to_float(pixels: Array) -> Array:
    """[H, W, C] uint8 → [C, H, W] float32 in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)


def to_uint8(values: Array, low: float = 0.0, high: float = 1.0) -> Array:
    """float32 of any shape → uint8, clipped and rounded. low, high: the values of black and white."""
    return to_levels(values, np.uint8, low, high)


def resize(pixels: Array, width: int, height: int, kernel: str = "lanczos3") -> Array:
    """Resize [H, W, C] float32 or uint8 to [height, width, C] of the same dtype, without shifting the picture.

    kernel: of libvips, for axes that shrink (antialiased); axes that grow are bicubic.
    """
    pixel_format = PixelFormat(1 if pixels.shape[2] == 1 else 3, bits=32 if pixels.dtype == np.float32 else 8)
    return scaled(as_image(pixels, pixel_format), width, height, kernel).numpy().reshape(height, width, -1)


def grid(images: Sequence[Array], columns: int | None = None, gap: int = 2) -> Array:
    """Arrange images of equal shape [H, W, C] uint8 in a grid, row by row, on white.

    columns: None for a grid as square as possible. gap: pixels between images. Raises InvalidInput if there are none.
    """
    if not images:
        raise InvalidInput("images", "got none, expected at least one picture for the grid")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    height, width, bands = images[0].shape
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, bands), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (
            part * (side + gap) + gap
            for part, side in zip(divmod(index, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = image
    return sheet
