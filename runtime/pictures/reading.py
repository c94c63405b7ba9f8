"""Opens untrusted picture files and decodes their rows from the top down.

server/core/images.py and runtime/pixels.py call `open_picture`, which reads and checks the header only.
runtime/picture_work.py then calls `OpenedPicture.rows`; its `read` returns bands of rows as float32 in [0, 1].
Everything unreadable raises InvalidInput.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import InvalidInput
from runtime.pictures import bitmap, costs, tifftags
from runtime.pictures.codec import damaged, pyvips, reason
from runtime.pictures.formats import PixelFormat
from runtime.pictures.metadata import Metadata
from runtime.stopping import Stop, never
from runtime.tensors import Array

# libvips' loaders that may open a file (without the suffix _buffer or _source) → the format's name.
LOADERS = {
    "pngload": "png",
    "jpegload": "jpeg",
    "webpload": "webp",
    "tiffload": "tiff",
    "gifload": "gif",
    "heifload": "avif",  # and HEIC, where libheif has its decoder
    "jxlload": "jxl",
}
# Formats that the installed libvips reads; BMP is read by Pillow.
READABLE = (
    *(name for loader, name in LOADERS.items() if pyvips.type_find("VipsForeign", loader)),
    bitmap.NAME,
)
# Formats that are decoded a band at a time, unless the file is interlaced or progressive.
BY_ROWS = {"png", "jpeg", "tiff"}
# libvips' name of a sample's type → its bytes in a decoder's output.
SAMPLE_BYTES = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8}
SAMPLE_BYTES |= {"complex": 8, "dpcomplex": 16}
# libvips' name of a sample's type → bits. The other types (signed, 32-bit integers) have no agreed value of white.
BITS = {"uchar": 8, "ushort": 16, "float": 32, "double": 32}
# Colour spaces that are converted to sRGB → bits of the result; None to keep the bits of the samples.
CONVERTED: dict[str, int | None] = {"cmyk": None, "lab": 16, "labs": 16, "xyz": 16}
# CMYK and alpha. TIFF allows thousands of bands, each of which costs memory and time.
MOST_BANDS = 5
# Floats are expected in [0, 1]. Values outside it by as much as a sharpening filter overshoots are clipped, not refused.
FLOAT_SLACK = 0.05
# Rows are decoded in pieces of about so many bytes.
PIECE_BYTES = 2**20
UPRIGHT, MIRRORED = 1, 2
TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What the header says, before any pixel is decoded.

    width, height: in pixels, of the upright picture. pixel_format: of the decoded pixels. format: "png", "jpeg", …
    """

    width: int
    height: int
    pixel_format: PixelFormat
    format: str

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


@dataclass(frozen=True)
class OpenedPicture:
    """A file whose header was read and is within the limits.

    size_bytes: of the file. by_rows: whether it is decoded a band at a time; else as a whole. decoder_bytes: the most memory
    that the decoder takes, beside the decoded rows.
    """

    header: Header
    metadata: Metadata
    size_bytes: int
    by_rows: bool
    decoder_bytes: int
    _decoded: Callable[[], pyvips.Image]

    def rows(self, stop: Stop | None = None) -> Rows:
        """Start decoding from the top. Raises InvalidInput if the file is damaged or contradicts its header."""
        try:
            return Rows(self.header, self._decoded(), stop or never())
        except pyvips.Error as error:
            raise damaged(error) from error


class Rows:
    """Decodes the rows of a picture on demand. stop: ends it."""

    def __init__(self, header: Header, image: pyvips.Image, stop: Stop) -> None:
        if (image.width, image.height, image.bands) != (
            header.width,
            header.height,
            header.pixel_format.channels,
        ):
            raise InvalidInput(
                "image",
                f"decodes to {image.width}×{image.height} pixels of {image.bands} channels, which is not what its header "
                f"says ({header.width}×{header.height} pixels of {header.pixel_format.channels} channels)",
            )
        self._header, self._stop = header, stop
        image.set_progress(True)  # without it, libvips does not look whether it is to stop
        self._image, self._region = image, pyvips.Region.new(image)
        self._held = np.empty((header.pixel_format.channels, 0, header.width), np.float32)
        self._first = 0

    def read(self, start: int, stop: int) -> Array:
        """Decode rows [start, stop): [C, stop - start, W] float32 in [0, 1]. Rows above `start` cannot be read again.

        Raises InvalidInput if the file is damaged or truncated, or if its floats are not in [0, 1]; Cancelled soon after
        `stop`.
        """
        values = np.empty((len(self._held), stop - start, self._image.width), np.float32)
        held = self._held[:, start - self._first :][:, : stop - start]
        values[:, : held.shape[1]] = held
        rows = max(1, PIECE_BYTES // (self._image.width * self._header.pixel_format.pixel_bytes))
        with self._stop.on_stop(lambda: self._image.set_kill(True)):
            for top in range(start + held.shape[1], stop, rows):
                bottom = min(top + rows, stop)
                values[:, top - start : bottom - start] = self._decode(top, bottom - top)
        self._held, self._first = values, start
        return values

    def _decode(self, top: int, count: int) -> Array:
        """Decode some rows: [C, count, W] float32, a view."""
        image, pixel_format = self._image, self._header.pixel_format
        try:
            self._stop.check()
            data = self._region.fetch(0, top, image.width, count)
        except pyvips.Error as error:
            self._stop.check()
            raise damaged(error) from error
        samples = np.frombuffer(data, pixel_format.dtype).reshape(count, image.width, pixel_format.channels)
        if pixel_format.bits == 32:
            check_floats(samples, top)
            values = samples.clip(0, 1)
        else:
            values = samples.astype(np.float32) / np.float32(np.iinfo(pixel_format.dtype).max)
        return values.transpose(2, 0, 1)


def check_floats(samples: Array, top: int) -> None:
    """Raises InvalidInput for the first value outside [0, 1] (with some slack).

    samples: [rows, W, C] float. top: the picture's row of the first one, for the message.
    """
    wrong = ~((samples >= -FLOAT_SLACK) & (samples <= 1 + FLOAT_SLACK))  # NaN fails both comparisons
    if wrong.any():
        row, column, channel = np.argwhere(wrong)[0]
        raise InvalidInput(
            "image",
            f"pixel ({column}, {top + row}) is {samples[row, column, channel]:g}, expected floats from 0 (black) "
            "to 1 (white); scale them, or save 16-bit integers",
        )


def open_picture(source: bytes | Path, *, max_pixels: int) -> OpenedPicture:
    """Read and check the header of a picture file. source: the file's bytes, or its path. Decodes no pixels.

    Raises InvalidInput if it is not a readable picture or has more than `max_pixels` (width × height).
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if not size:
        raise InvalidInput("image", f"got 0 bytes, expected an image file ({', '.join(READABLE)})")
    if bitmap.is_bitmap(source):
        bmp = bitmap.read_header(source)
        check_size(bmp.width, bmp.height, max_pixels)
        header = Header(bmp.width, bmp.height, bmp.pixel_format, bitmap.NAME)
        needed = costs.decoder_bytes(
            bitmap.NAME, width=bmp.width, height=bmp.height, source_bytes=4, bits=8, by_rows=False
        )
        return OpenedPicture(header, bmp.metadata, size, False, needed, lambda: bitmap.decoded(source))
    try:
        image = open_image(source, "sequential")
        loader = image.get("vips-loader").split("_")[0]
    except pyvips.Error as error:
        raise InvalidInput(
            "image",
            f"got {size} bytes that are not an image in a readable format ({', '.join(READABLE)}): {reason(error)}",
        ) from error
    if loader not in LOADERS:
        raise InvalidInput("image", f"got a file of type {loader}, expected one of {', '.join(READABLE)}")
    check_size(image.width, image.height, max_pixels)
    format = LOADERS[loader]
    tags = tifftags.first_values(source) if format == "tiff" else None
    if tags is not None:
        tifftags.check_colours(tags)
    pixel_format = pixel_format_of(image)
    turn = image.get("orientation") if image.get_typeof("orientation") else UPRIGHT
    size_px = (image.height, image.width) if turn in TURNED else (image.width, image.height)
    from_the_top = turn in (UPRIGHT, MIRRORED)

    def decoded() -> pyvips.Image:
        # libvips decodes a picture that is rotated or flipped vertically as a whole.
        return converted(open_image(source, "sequential" if from_the_top else "random"), pixel_format)

    metadata = Metadata.of(image, set_upright=turn != UPRIGHT, turned=turn in TURNED)
    by_rows = from_the_top and format in BY_ROWS and not image.get_typeof("interlaced")
    source_bytes = image.bands * SAMPLE_BYTES[image.format]
    needed = costs.decoder_bytes(
        format,
        width=image.width,
        height=image.height,
        source_bytes=source_bytes,
        bits=8 * SAMPLE_BYTES[image.format],
        by_rows=by_rows,
        turned=not from_the_top,
    )
    if tags is not None:
        rows, tiled = tifftags.rows_of_unit(tags, image.height)
        needed += costs.tiff_bytes(image.width, source_bytes, rows_of_unit=rows, tiled=tiled)
    return OpenedPicture(Header(*size_px, pixel_format, format), metadata, size, by_rows, needed, decoded)


def open_image(source: bytes | Path, access: str) -> pyvips.Image:
    """Open a file with libvips. access: "sequential" (rows from the top down) or "random"."""
    stream = (
        pyvips.Source.new_from_memory(source)
        if isinstance(source, bytes)
        else pyvips.Source.new_from_file(str(source))
    )
    # fail_on="error" refuses truncated and damaged files. By default libvips fills the missing pixels with grey.
    # memory: a picture that is decoded as a whole would else go to a file of libvips' own if it is large.
    return pyvips.Image.new_from_source(stream, "", access=access, memory=access == "random", fail_on="error")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises InvalidInput if the picture has more than `max_pixels`."""
    if width * height > max_pixels:
        raise InvalidInput(
            "image",
            f"the header says {width}×{height} pixels, the limit is {max_pixels} pixels in total (--max-pixels)",
        )


def pixel_format_of(image: pyvips.Image) -> PixelFormat:
    """The pixel format to which an opened image is decoded. Raises InvalidInput for unsupported pixels."""
    converts = image.interpretation in CONVERTED
    bits = CONVERTED[image.interpretation] if converts else None
    bits = bits or BITS.get(image.format)
    alpha = bool(image.hasalpha())
    colours = 3 if converts else image.bands - alpha
    if image.bands > MOST_BANDS or colours not in (1, 3) or bits is None:
        raise InvalidInput(
            "image",
            f"got {image.bands} bands of {image.format}, expected grey, RGB or CMYK with or without alpha, "
            "of 1 to 16 unsigned bits or of floats",
        )
    return PixelFormat(colours, alpha, bits)


def converted(image: pyvips.Image, pixel_format: PixelFormat) -> pyvips.Image:
    """Rotate an image upright and convert it to `pixel_format`."""
    image = image.autorot()
    if image.interpretation == "cmyk":
        depth = 16 if pixel_format.bits == 16 else 8
        # With the file's own profile, or libvips' generic one if it has none.
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    elif image.interpretation in CONVERTED:
        image = image.colourspace("rgb16")
    return image.cast({8: "uchar", 16: "ushort", 32: "float"}[pixel_format.bits])
