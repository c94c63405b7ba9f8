"""Writes picture files from rows of pixels: whole ones in memory, or band by band into an open file.

`Output` says what comes and what the file is to be; runtime/picture_work.py and runtime/pixels.py make one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InvalidInput
from runtime.pictures.codec import pyvips, reason
from runtime.pictures.formats import WRITABLE, Encoding, PixelFormat
from runtime.pictures.metadata import NONE, Metadata
from runtime.pictures.rowfile import RowFile
from runtime.pictures.scaling import scaled
from runtime.tensors import Array

# Level 1 costs a third of the usual level 6 and keeps the codec from being the bottleneck; "sub" suits photographs.
FASTEST_LEVEL = 1
PNG_FILTER = "sub"
# Beyond it a TIFF needs 64-bit offsets, compressed or not.
BIG_TIFF_BYTES = 2**31


@dataclass(frozen=True)
class Output:
    """A picture to write.

    width, height: of the rows that come, in px; pixel_format: what they are made of. Floats run from 0 to 1.
    to_width, to_height: of the file, in px; where they differ, floats are resized before they are rounded.
    bits: of the file's samples. metadata: of the input; resolution_scale: by how much its resolution
    grows, across and down.
    """

    width: int
    height: int
    pixel_format: PixelFormat
    to_width: int
    to_height: int
    bits: int
    encoding: Encoding
    metadata: Metadata = NONE
    resolution_scale: tuple[float, float] = (1.0, 1.0)

    @property
    def resized(self) -> bool:
        return (self.width, self.height) != (self.to_width, self.to_height)

    def to_memory(self, pixels: Array) -> bytes:
        """The file of [H, W, C] pixels. Raises InvalidInput where the format cannot hold them."""
        try:
            image, options = self._prepared(as_image(pixels, self.pixel_format))
            return image.write_to_buffer(f".{self.encoding.format}", **options)
        except pyvips.Error as error:
            raise self._unwritable(error) from error

    def to_descriptor(self, next_rows: Callable[[], Array], descriptor: int) -> None:
        """Write the file into an open one, while `next_rows` gives its rows band by band, [rows, W, C].

        Raises what `next_rows` raises, or InvalidInput where the format cannot hold the picture.
        """
        failure = self._written(next_rows, descriptor)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # this frame and the error's traceback would keep each other

    def _written(self, next_rows: Callable[[], Array], descriptor: int) -> BaseException | None:
        """What ended the writing; nothing of libvips' outlives the call, least of all its copy of the descriptor."""
        rows = RowFile(self.width, self.height, self.pixel_format, next_rows)
        try:
            image, options = self._prepared(
                rows.image().copy(interpretation=self.pixel_format.interpretation)
            )
            target = pyvips.Target.new_to_descriptor(descriptor)
            image.write_to_target(target, f".{self.encoding.format}", **options)
        except pyvips.Error as error:
            return rows.error or self._unwritable(error)
        finally:
            rows.free()
        return None

    def _prepared(self, image: pyvips.Image) -> tuple[pyvips.Image, dict[str, Any]]:
        """As the file will have it, and the saver's options."""
        if self.resized:
            # Its kernels swing beyond black and white.
            image = scaled(image, self.to_width, self.to_height).clamp()
        held = WRITABLE[self.encoding.format].hold(self.pixel_format)
        if self.pixel_format.alpha and not held.alpha:
            white = 1.0 if self.pixel_format.bits == 32 else float(np.iinfo(self.pixel_format.dtype).max)
            image = image.flatten(background=[white], max_alpha=white)
        if self.pixel_format.bits == 32 and self.bits != 32:
            image = (image * float(2**self.bits - 1)).rint().cast({8: "uchar", 16: "ushort"}[self.bits])
        pixel_format = PixelFormat(self.pixel_format.colours, held.alpha, self.bits)
        image, keep = self.metadata.put(image, pixel_format, self.resolution_scale)
        image = image.copy(interpretation=pixel_format.interpretation)
        return image, self._options(pixel_format) | {"keep": keep}

    def _options(self, pixel_format: PixelFormat) -> dict[str, Any]:
        encoding = self.encoding
        quality = encoding.quality or WRITABLE[encoding.format].quality
        level = FASTEST_LEVEL if encoding.compression is None else encoding.compression
        match encoding.format:
            case "png":
                return {"compression": level, "filter": PNG_FILTER}
            case "jpeg":
                return {"Q": quality}
            case "webp":
                return {"lossless": True} if encoding.lossless else {"Q": quality}
            case "tiff" if level == 0:
                packed: dict[str, Any] = {"compression": "none"}
            case _:
                predictor = "float" if pixel_format.bits == 32 else "horizontal"
                packed = {"compression": "deflate", "predictor": predictor, "level": level}
        raw_bytes = self.to_width * self.to_height * pixel_format.channels * pixel_format.dtype.itemsize
        return packed | {"bigtiff": raw_bytes >= BIG_TIFF_BYTES}

    def _unwritable(self, error: pyvips.Error) -> InvalidInput:
        return InvalidInput("format", f"{self.encoding.format} cannot hold this image: {reason(error)}")


def as_image(pixels: Array, pixel_format: PixelFormat) -> pyvips.Image:
    """[H, W, C] of the pixel format's dtype."""
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(
        interpretation=pixel_format.interpretation
    )
