"""Image files into pixels and pixels into image files, through libvips.

Nothing is decoded before its header was read and its size allowed. Files come from strangers, so only the loaders of
`READABLE` may open them, and libvips keeps no cache of what it saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyvips

from runtime.errors import InvalidInput

Array = np.ndarray[Any, Any]

pyvips.cache_set_max(0)
pyvips.block_untrusted_set(True)
# Requests are what runs side by side here; threads inside one decode would only take turns with them.
pyvips.concurrency_set(1)

# libvips loader → the format's name; longest side in pixels that each format, its library and libvips can hold.
READABLE = {
    "pngload_buffer": "png",
    "jpegload_buffer": "jpeg",
    "webpload_buffer": "webp",
    "tiffload_buffer": "tiff",
    "gifload_buffer": "gif",
}
LONGEST_SIDE = {"png": 100_000_000, "jpeg": 65_500, "webp": 16_383, "tiff": 100_000_000}
WRITABLE = tuple(LONGEST_SIDE)
# Colours (four in CMYK) and alpha. TIFF allows thousands of bands, each of which costs memory and time.
MOST_BANDS = 5
# TIFF also holds 32 bits, signed and float numbers, whose white nobody agrees on.
SAMPLES = ("uchar", "ushort")
DEFAULT_QUALITY = {"jpeg": 92, "webp": 90}
# Level 1 costs a third of the usual level 6 and keeps the codec from being the bottleneck; "sub" suits photographs.
PNG_OPTIONS: dict[str, Any] = {"compression": 1, "filter": "sub"}


@dataclass(frozen=True)
class Header:
    """What a file says of itself before decoding: width and height in pixels as shown, bands, format's name."""

    width: int
    height: int
    bands: int
    format: str


def probe(data: bytes, *, max_pixels: int) -> Header:
    """Read the header only. Raises InvalidInput where `data` is no image, or one of more than `max_pixels`."""
    return _open(data, max_pixels)[0]


def decode(data: bytes, *, max_pixels: int) -> Array:
    """[H, W, 3] uint8 sRGB, upright. Transparent pixels are laid on white, 16 bits become 8.

    Raises InvalidInput where the file is damaged, truncated or too large.
    """
    _, image = _open(data, max_pixels)
    try:
        image = image.autorot()
        if image.interpretation != "srgb":
            image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255.0])
        if image.format != "uchar":
            image = image.cast("uchar")
        if image.bands != 3:
            image = image.extract_band(0).bandjoin([image.extract_band(0)] * 2)
        return image.numpy()
    except pyvips.Error as error:
        raise InvalidInput("image", f"the file is damaged or cut short: {_reason(error)}") from error


def encode(pixels: Array, format: str, quality: int | None = None) -> bytes:
    """A file of [H, W, 1 or 3] uint8 pixels. format: one of WRITABLE; quality: 1 … 100, for JPEG and WebP."""
    check_writable(format, pixels.shape[1], pixels.shape[0])
    image = _to_vips(pixels)
    try:
        if format == "png":
            return image.pngsave_buffer(**PNG_OPTIONS)
        if format == "tiff":
            return image.tiffsave_buffer(compression="deflate", predictor="horizontal")
        save = image.jpegsave_buffer if format == "jpeg" else image.webpsave_buffer
        return save(Q=quality or DEFAULT_QUALITY[format])
    except pyvips.Error as error:
        raise InvalidInput("format", f"{format} cannot hold this image: {_reason(error)}") from error


def check_writable(format: str, width: int, height: int) -> None:
    """Raises InvalidInput where `format` cannot be written or cannot hold width × height pixels."""
    if format not in WRITABLE:
        raise InvalidInput("format", f"got {format!r}, expected one of {', '.join(WRITABLE)}")
    longest = LONGEST_SIDE[format]
    if max(width, height) > longest:
        raise InvalidInput(
            "format",
            f"{format} holds sides of at most {longest} pixels, the output is {width}×{height}; ask for png",
        )


def to_float(pixels: Array) -> Array:
    """[H, W, C] uint8 → [C, H, W] float32 in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)


def to_uint8(values: Array, low: float = 0.0, high: float = 1.0) -> Array:
    """float32 in [low, high], clipped and rounded to the nearest of 256 levels; any shape."""
    scaled = values - np.float32(low) if low else values.copy()
    scaled *= np.float32(255 / (high - low))
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def resize(pixels: Array, width: int, height: int, kernel: str = "lanczos3") -> Array:
    """[H, W, C] float32 or uint8 → [height, width, C] of the same dtype; pixels' centres keep their places.

    kernel: for axes that shrink, antialiased; axes that grow are bicubic.
    """
    image = _to_vips(pixels)
    across, down = width / image.width, height / image.height
    image = image.resize(min(across, 1.0), vscale=min(down, 1.0), kernel=kernel)
    if max(across, down) > 1:
        # libvips' resize would put an enlarged picture half a pixel to the right and down.
        image = image.affine(
            [max(across, 1.0), 0, 0, max(down, 1.0)],
            interpolate=pyvips.Interpolate.new("bicubic"),
            oarea=[0, 0, width, height],
            idx=0.5, idy=0.5, odx=-0.5, ody=-0.5,
            extend="copy",
        )  # fmt: skip
    return image.numpy().reshape(height, width, pixels.shape[2])


def grid(images: Sequence[Array], columns: int | None = None, gap: int = 2) -> Array:
    """Images of one shape [H, W, C] uint8 as one picture, row by row; as square as it goes unless told."""
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


def _open(data: bytes, max_pixels: int) -> tuple[Header, pyvips.Image]:
    if not data:
        raise InvalidInput("image", f"got 0 bytes, expected an image file ({', '.join(READABLE.values())})")
    try:
        # "error" refuses truncated and damaged files, which libvips would otherwise fill with grey.
        image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
        loader = image.get("vips-loader")
    except pyvips.Error as error:
        raise InvalidInput(
            "image",
            f"got {len(data)} bytes that are no image this server reads ({', '.join(READABLE.values())}): "
            f"{_reason(error)}",
        ) from error
    if loader not in READABLE:
        raise InvalidInput(
            "image", f"got a file for {loader}, expected one of {', '.join(READABLE.values())}"
        )
    if image.width * image.height > max_pixels:
        raise InvalidInput(
            "image",
            f"the header says {image.width}×{image.height} pixels, the limit is {max_pixels} pixels in all",
        )
    if image.bands > MOST_BANDS or image.format not in SAMPLES:
        raise InvalidInput(
            "image",
            f"got {image.bands} bands of {image.format}, expected at most {MOST_BANDS} of 8 or 16 unsigned bits",
        )
    turned = image.get_typeof("orientation") and image.get("orientation") in (5, 6, 7, 8)
    width, height = (image.height, image.width) if turned else (image.width, image.height)
    return Header(width, height, image.bands, READABLE[loader]), image


def _to_vips(pixels: Array) -> pyvips.Image:
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    return image.copy(interpretation="b-w" if pixels.shape[2] == 1 else "srgb")


def _reason(error: pyvips.Error) -> str:
    """libvips' own words: the last line of its log, without the call stack's."""
    lines = [line.strip() for line in str(error.detail or error.message).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
