"""Encodes picture files: from one array to bytes, or band by band into an open file.

runtime/picture_work.py and runtime/pixels.py make an `Output` (input pixels, output size, encoding, metadata) and call
`to_memory` or `to_descriptor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtime.errors import Cancelled, InvalidInput
from runtime.pictures.codec import pyvips, reason
from runtime.pictures.formats import WRITABLE, Encoding, PixelFormat
from runtime.pictures.metadata import NONE, Metadata
from runtime.pictures.resizing import pieces, resized_down
from runtime.pictures.rowfile import RowFile
from runtime.pictures.scaling import scaled
from runtime.pictures.target import FileTarget
from runtime.stopping import Stop, never
from runtime.tensors import Array

# Level 1 takes a third of the time of the usual level 6, so encoding is not the bottleneck. "sub" suits photographs.
FASTEST_LEVEL = 1
PNG_FILTER = "sub"
# Larger TIFFs get 64-bit offsets, whatever their compression.
BIG_TIFF_BYTES = 2**31


@dataclass(frozen=True)
class Output:
    """A picture to encode.

    width, height, pixel_format: of the pixels given, in px; floats are in [0, 1].
    to_width, to_height: of the file, in px. If they differ from width and height, the pixels are resized; give more
        bits than the file has then, so that rounding comes last.
    bits: per channel in the file. metadata: of the input. resolution_scale: factor of the metadata's resolution
        (horizontal, vertical).
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
        """Whether the file has another size than the pixels given."""
        return (self.width, self.height) != (self.to_width, self.to_height)

    def to_memory(self, pixels: Array, stop: Stop | None = None) -> bytes:
        """Encode [H, W, C] pixels and return the file's bytes.

        Raises InvalidInput if the format cannot hold them, Cancelled soon after `stop`.
        """
        stop = stop or never()
        try:
            if self.resized:
                pixels = np.concatenate(list(self._resized_rows(lambda: pixels, stop)))
            image, options = self._prepared(as_image(pixels, self._given))
            with stop.on_stop(_interrupt(image)):
                return image.write_to_buffer(f".{self.encoding.format}", **options)
        except pyvips.Error as error:
            stop.check()
            raise self._unwritable(error) from error

    def to_descriptor(
        self, next_rows: Callable[[], Array], descriptor: int, stop: Stop | None = None
    ) -> None:
        """Encode into an open file descriptor. next_rows: returns the next band of pixels, [rows, W, C].

        Raises what `next_rows` raises, InvalidInput if the format cannot hold the picture, OutOfSpace if the disk is full, or
        Cancelled soon after `stop`.
        """
        failure = self._written(next_rows, descriptor, stop or never())
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # avoids a reference cycle of this frame and the error's traceback

    def _written(self, next_rows: Callable[[], Array], descriptor: int, stop: Stop) -> BaseException | None:
        """Encode, and return the error, None on success. Returning it lets libvips' objects and descriptor be freed now."""
        if self.resized:
            next_rows = self._resized_rows(next_rows, stop).__next__
        rows = RowFile(self.to_width, self.to_height, self._given, next_rows)
        del next_rows  # `rows` releases it
        file = FileTarget(descriptor, stop)
        try:
            image, options = self._prepared(rows.image().copy(interpretation=self._given.interpretation))
            with stop.on_stop(_interrupt(image)):
                image.write_to_target(file.target, f".{self.encoding.format}", **options)
        except pyvips.Error as error:
            if stop.stopped:
                return Cancelled("the request has ended")
            return rows.error or file.error or self._unwritable(error)
        except Cancelled as error:
            return error
        finally:
            rows.free()
        return None

    @property
    def _stored(self) -> PixelFormat:
        """The pixel format of the file."""
        return PixelFormat(
            self.pixel_format.colours, WRITABLE[self.encoding.format].hold(self.pixel_format).alpha, self.bits
        )

    @property
    def _given(self) -> PixelFormat:
        """The pixel format in which libvips' saver gets the rows."""
        return self._stored if self.resized else self.pixel_format

    def _resized_rows(self, next_rows: Callable[[], Array], stop: Stop) -> Iterator[Array]:
        """The file's rows, in pieces from the top down: [rows, W, C] in the file's pixel format."""
        # As libvips does: a picture that grows is resized with its colours weighted.
        weighted = self.pixel_format.alpha and self.to_height > self.height
        floats = replace(self.pixel_format, bits=32)
        for rows in resized_down(next_rows, self.height, self.to_height, weighted=weighted):
            for piece in pieces(rows, self.to_width):
                stop.check()
                image = as_image(piece, floats)
                image = scaled(image, self.to_width, len(piece), premultiplied=weighted)
                if weighted:
                    image = image.unpremultiply(max_alpha=1.0)
                # Resizing kernels overshoot black and white.
                stored = self._as_stored(image.clamp(), floats).numpy()
                yield stored.reshape(len(piece), self.to_width, -1)

    def _as_stored(self, image: pyvips.Image, given: PixelFormat) -> pyvips.Image:
        """An image with the channels and the depth of the file. given: its pixel format now."""
        if given.alpha and not self._stored.alpha:
            white = 1.0 if given.bits == 32 else float(np.iinfo(given.dtype).max)
            image = image.flatten(background=[white], max_alpha=white)
        if given.bits == 32 and self.bits != 32:
            image = (image * float(2**self.bits - 1)).rint().cast({8: "uchar", 16: "ushort"}[self.bits])
        return image

    def _prepared(self, image: pyvips.Image) -> tuple[pyvips.Image, dict[str, Any]]:
        """The image in the file's pixel format, with metadata, and the options of libvips' saver."""
        if not self.resized:
            image = self._as_stored(image, self.pixel_format)
        image, keep = self.metadata.put(image, self._stored, self.resolution_scale)
        image = image.copy(interpretation=self._stored.interpretation)
        return image, self._options(self._stored) | {"keep": keep}

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
        raw_bytes = self.to_width * self.to_height * pixel_format.pixel_bytes
        return packed | {"bigtiff": raw_bytes >= BIG_TIFF_BYTES}

    def _unwritable(self, error: pyvips.Error) -> InvalidInput:
        return InvalidInput("format", f"{self.encoding.format} cannot hold this image: {reason(error)}")


def as_image(pixels: Array, pixel_format: PixelFormat) -> pyvips.Image:
    """A libvips image of [H, W, C] pixels in the pixel format's dtype."""
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(
        interpretation=pixel_format.interpretation
    )


def _interrupt(image: pyvips.Image) -> Callable[[], None]:
    """What stops libvips from computing and encoding this image, within a fraction of a second."""
    image.set_progress(True)  # without it, libvips does not look whether it is to stop
    return lambda: image.set_kill(True)
