"""Opens untrusted picture files by their headers, then decodes their rows from the top down.

`open_picture` checks the header before anything is decoded; `OpenedPicture.rows` gives the pixels as float32 in [0, 1],
a band at a time. runtime/picture_work.py and runtime/pixels.py call it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import InvalidInput
from runtime.pictures import bitmap, tifftags
from runtime.pictures.codec import damaged, pyvips, reason
from runtime.pictures.formats import PixelFormat
from runtime.pictures.metadata import Metadata
from runtime.tensors import Array

# libvips' loader, without its ending for buffers or sources → the format's name. Only these may open a file.
LOADERS = {
    "pngload": "png",
    "jpegload": "jpeg",
    "webpload": "webp",
    "tiffload": "tiff",
    "gifload": "gif",
    "heifload": "avif",  # and HEIC, where libheif has its decoder
    "jxlload": "jxl",
}
# What the libvips installed here reads; BMP comes through another library.
READABLE = (
    *(name for loader, name in LOADERS.items() if pyvips.type_find("VipsForeign", loader)),
    bitmap.NAME,
)
# Formats that are decoded a band at a time, where the file is not interlaced or progressive.
BY_ROWS = {"png", "jpeg", "tiff"}
# libvips' name of a sample's type → bits. The others (signed, 32-bit integers) have no white that anybody agrees on.
BITS = {"uchar": 8, "ushort": 16, "float": 32, "double": 32}
# Colour spaces that are converted to sRGB → the bits that it then takes; None for those of the samples.
CONVERTED: dict[str, int | None] = {"cmyk": None, "lab": 16, "labs": 16, "xyz": 16}
# Four of CMYK and alpha. TIFF allows thousands, each of which costs memory and time.
MOST_BANDS = 5
# Floats run from 0 to 1; as far beyond as a sharpening filter goes, they are clipped.
FLOAT_SLACK = 0.05
UPRIGHT, MIRRORED = 1, 2
TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded. width, height: in pixels, once it is upright. format: of the file."""

    width: int
    height: int
    pixel_format: PixelFormat
    format: str

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class OpenedPicture:
    """A file whose header was read and is within the limits. by_rows: whether it is decoded a band at a time, or whole."""

    header: Header
    metadata: Metadata
    by_rows: bool
    _decoded: Callable[[], pyvips.Image]

    def rows(self) -> Rows:
        """Begin to decode. Raises InvalidInput where the file is damaged, or is another than its header said."""
        try:
            return Rows(self.header, self._decoded())
        except pyvips.Error as error:
            raise damaged(error) from error


class Rows:
    """The rows of a picture, decoded as they are asked for."""

    def __init__(self, header: Header, image: pyvips.Image) -> None:
        if (image.width, image.height, image.bands) != (
            header.width,
            header.height,
            header.pixel_format.channels,
        ):
            raise InvalidInput(
                "image",
                f"decodes to {image.width}×{image.height} pixels of {image.bands} channels, "
                "which is not what its header says",
            )
        self._header = header
        self._image, self._region = image, pyvips.Region.new(image)
        self._held = np.empty((header.pixel_format.channels, 0, header.width), np.float32)
        self._first = 0

    def read(self, start: int, stop: int) -> Array:
        """[C, stop - start, W] float32 in [0, 1]. Rows above `start` cannot be read again.

        Raises InvalidInput where the file is damaged, cut short, or holds floats that are no colours.
        """
        self._held = self._held[:, start - self._first :]
        self._first = start
        missing = stop - start - self._held.shape[1]
        if missing > 0:
            self._held = np.concatenate((self._held, self._decode(stop - missing, missing)), axis=1)
        return self._held[:, : stop - start]

    def _decode(self, top: int, count: int) -> Array:
        image, pixel_format = self._image, self._header.pixel_format
        try:
            data = self._region.fetch(0, top, image.width, count)
        except pyvips.Error as error:
            raise damaged(error) from error
        samples = np.frombuffer(data, pixel_format.dtype).reshape(count, image.width, pixel_format.channels)
        if pixel_format.bits == 32:
            check_floats(samples, top)
            values = samples.clip(0, 1)
        else:
            values = samples.astype(np.float32) / np.float32(np.iinfo(pixel_format.dtype).max)
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def check_floats(samples: Array, top: int) -> None:
    """Raises InvalidInput naming the first of [rows, W, C] that is no colour."""
    wrong = ~((samples >= -FLOAT_SLACK) & (samples <= 1 + FLOAT_SLACK))  # NaN fails both comparisons
    if wrong.any():
        row, column, channel = np.argwhere(wrong)[0]
        raise InvalidInput(
            "image",
            f"pixel ({column}, {top + row}) is {samples[row, column, channel]:g}, expected floats from 0 (black) "
            "to 1 (white); scale them, or save 16-bit integers",
        )


def open_picture(source: bytes | Path, *, max_pixels: int) -> OpenedPicture:
    """Read the header only. source: a file's bytes, or where it lies.

    Raises InvalidInput where it is no picture that is read here, or one of more than `max_pixels`.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if not size:
        raise InvalidInput("image", f"got 0 bytes, expected an image file ({', '.join(READABLE)})")
    if bitmap.is_bitmap(source):
        bmp = bitmap.read_header(source)
        check_size(bmp.width, bmp.height, max_pixels)
        header = Header(bmp.width, bmp.height, bmp.pixel_format, bitmap.NAME)
        return OpenedPicture(header, bmp.metadata, False, lambda: bitmap.decoded(source))
    try:
        image = open_image(source, "sequential")
        loader = image.get("vips-loader").split("_")[0]
    except pyvips.Error as error:
        raise InvalidInput(
            "image",
            f"got {size} bytes that are no image this server reads ({', '.join(READABLE)}): {reason(error)}",
        ) from error
    if loader not in LOADERS:
        raise InvalidInput("image", f"got a file for {loader}, expected one of {', '.join(READABLE)}")
    check_size(image.width, image.height, max_pixels)
    if LOADERS[loader] == "tiff":
        tifftags.check_colours(source)
    pixel_format = pixel_format_of(image)
    turn = image.get("orientation") if image.get_typeof("orientation") else UPRIGHT
    size_px = (image.height, image.width) if turn in TURNED else (image.width, image.height)
    from_the_top = turn in (UPRIGHT, MIRRORED)

    def decoded() -> pyvips.Image:
        # libvips decodes a picture that is turned or read upwards as a whole: into memory, or a file if it is large.
        return converted(open_image(source, "sequential" if from_the_top else "random"), pixel_format)

    metadata = Metadata.of(image, set_upright=turn != UPRIGHT, turned=turn in TURNED)
    by_rows = from_the_top and LOADERS[loader] in BY_ROWS and not image.get_typeof("interlaced")
    return OpenedPicture(Header(*size_px, pixel_format, LOADERS[loader]), metadata, by_rows, decoded)


def open_image(source: bytes | Path, access: str) -> pyvips.Image:
    stream = (
        pyvips.Source.new_from_memory(source)
        if isinstance(source, bytes)
        else pyvips.Source.new_from_file(str(source))
    )
    # "error" refuses truncated and damaged files, which libvips would otherwise fill with grey.
    return pyvips.Image.new_from_source(stream, "", access=access, fail_on="error")


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InvalidInput(
            "image",
            f"the header says {width}×{height} pixels, the limit is {max_pixels} pixels in all (--max-pixels)",
        )


def pixel_format_of(image: pyvips.Image) -> PixelFormat:
    """What the pixels of an opened image are read as. Raises InvalidInput where there is no such."""
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
    """Upright, and in the pixel format that its header announced."""
    image = image.autorot()
    if image.interpretation == "cmyk":
        depth = 16 if pixel_format.bits == 16 else 8
        # By its own profile; libvips' general one where it has none.
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    elif image.interpretation in CONVERTED:
        image = image.colourspace("rgb16")
    return image.cast({8: "uchar", 16: "ushort", 32: "float"}[pixel_format.bits])
