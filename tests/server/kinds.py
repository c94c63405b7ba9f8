"""A small picture in every kind of file, written by other libraries than the one that reads them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from runtime.tensors import Array

WIDTH, HEIGHT = 23, 19


@dataclass(frozen=True)
class Kind:
    """file: as it is sent. planes: [C, H, W] float32 in [0, 1], what it shows. bits: 8, 16, or 32 for floats.

    format: of the answer where none is asked for. levels: by how many of 255 the file itself may differ from `planes`.
    """

    file: bytes
    planes: Array
    bits: int = 8
    format: str = "png"
    levels: float = 0.0

    @property
    def channels(self) -> int:
        return len(self.planes)

    @property
    def alpha(self) -> bool:
        return self.channels in (2, 4)


def waves(channels: int, height: int = HEIGHT, width: int = WIDTH) -> Array:
    """[H, W, C] float32 in [0.05, 0.95]: every channel another gentle slope, so that a swapped one shows."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    slopes = (rows + columns / 2, 1 - columns, columns * rows + 0.3, 1 - rows / 2)
    return np.stack([0.05 + 0.9 * (slope % 1) for slope in slopes[:channels]], 2).astype(np.float32)


def levels(channels: int, dtype: Any = np.uint8) -> Array:
    """[H, W, C] integers; with two or four channels the last is an alpha that is nowhere 0."""
    return np.rint(waves(channels) * np.iinfo(dtype).max).astype(dtype)


def planes(pixels: Array) -> Array:
    """[H, W, C] or [H, W] → [C, H, W] float32 in [0, 1]."""
    most = 1 if pixels.dtype.kind in "bf" else np.iinfo(pixels.dtype).max
    pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.float64) / most
    return pixels.transpose(2, 0, 1).astype(np.float32)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pillow(
    format: str, mode: str, channels: int, answer: str | None = None, tolerance: float = 0.0, **options: Any
) -> Kind:
    """A Pillow image of 8 bits a sample; answer: the answer's format, where it is not the file's."""
    pixels = levels(channels)
    image = Image.fromarray(pixels.squeeze() if channels == 1 else pixels, mode)
    return Kind(
        saved(image, format, **options), planes(pixels), 8, answer or format.lower(), levels=tolerance
    )


def indexed(format: str, answer: str, **options: Any) -> Kind:
    image = Image.fromarray(levels(3)).quantize(32)
    return Kind(saved(image, format, **options), planes(np.asarray(image.convert("RGB"))), 8, answer)


def indexed_with_alpha() -> Kind:
    image = Image.fromarray(levels(3)).quantize(16)
    alpha = np.linspace(40, 255, 16).astype(np.uint8)
    pixels = np.dstack([np.asarray(image.convert("RGB")), alpha[np.asarray(image)]])
    return Kind(saved(image, "PNG", transparency=alpha.tobytes()), planes(pixels))


def one_bit(format: str, answer: str) -> Kind:
    black = waves(1)[:, :, 0] < 0.5
    return Kind(saved(Image.fromarray(~black), format), planes(~black), 8, answer)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_by_hand(
    width: int, height: int, bits: int, colour_type: int, rows: bytes, before: bytes = b"", after: bytes = b""
) -> bytes:
    """rows: with their filter bytes. before, after: chunks around the pixels. (PNG, 3rd edition, 11.2)"""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + after + end


def deep_png(colour_type: int, channels: int) -> Kind:
    """16 bits a sample, which Pillow writes for grey only."""
    pixels = levels(channels, np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return Kind(png_by_hand(WIDTH, HEIGHT, 16, colour_type, rows), planes(pixels), 16)


def shallow_png(bits: int) -> Kind:
    """Grey of 2 or 4 bits."""
    values = np.rint(waves(1)[:, :, 0] * (2**bits - 1)).astype(np.uint8)
    packed = np.packbits(
        np.unpackbits(values[..., None], axis=2)[:, :, 8 - bits :].reshape(HEIGHT, -1), axis=1
    )
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    return Kind(png_by_hand(WIDTH, HEIGHT, bits, 0, rows), (values / (2**bits - 1)).astype(np.float32)[None])


def keyed_png(colour_type: int, channels: int) -> Kind:
    """One colour of 16 bits a sample is transparent (tRNS); nothing else has its colour."""
    pixels = levels(channels, np.uint16)
    key = pixels[4, 7].copy()
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    before = chunk(b"tRNS", key.astype(">u2").tobytes())
    alpha = np.where((pixels == key).all(2), 0, 65535).astype(np.uint16)
    file = png_by_hand(WIDTH, HEIGHT, 16, colour_type, rows, before)
    return Kind(file, planes(np.dstack([pixels, alpha])), 16)


def vips(pixels: Array, interpretation: str) -> pyvips.Image:
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=interpretation)


def vips_tiff(pixels: Array, interpretation: str, **options: Any) -> Kind:
    bits = pixels.dtype.itemsize * 8
    return Kind(vips(pixels, interpretation).tiffsave_buffer(**options), planes(pixels), bits, "tiff")


def tiff_by_hand(
    tags: Mapping[int, tuple[str, list[int]]], strips: list[bytes], order: str = "<", width: int = WIDTH
) -> bytes:
    """A TIFF of one directory, which lies behind its pixels. tags: number → ("H" or "I", values). (TIFF 6.0, section 2)"""
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    directory = {
        256: ("I", [width]),
        257: ("I", [HEIGHT]),
        259: ("H", [1]),
        273: ("I", starts),
        278: ("I", [HEIGHT]),
        279: ("I", [len(strip) for strip in strips]),
        **tags,
    }
    start = 8 + sum(map(len, strips))
    behind = start + 2 + 12 * len(directory) + 4
    entries, values = b"", b""
    for tag, (letter, numbers) in sorted(directory.items()):
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[letter], len(numbers))
        if len(packed) > 4:
            entries += struct.pack(f"{order}I", behind + len(values))
            values += packed
        else:
            entries += packed.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(directory))
    return mark + struct.pack(f"{order}I", start) + b"".join(strips) + count + entries + bytes(4) + values


def planar_tiff() -> Kind:
    """Each channel a plane of its own, the high byte first."""
    pixels = levels(3, np.uint16)
    tags = {258: ("H", [16] * 3), 262: ("H", [2]), 277: ("H", [3]), 284: ("H", [2])}
    strips = [pixels[:, :, channel].astype(">u2").tobytes() for channel in range(3)]
    return Kind(tiff_by_hand(tags, strips, ">"), planes(pixels), 16, "tiff")


def premultiplied_tiff() -> Kind:
    """Colours multiplied with their alpha (ExtraSamples = 1, associated)."""
    straight = levels(4)
    stored = straight.copy()
    stored[:, :, :3] = np.rint(straight[:, :, :3] * (straight[:, :, 3:] / 255))
    tags = {258: ("H", [8] * 4), 262: ("H", [2]), 277: ("H", [4]), 338: ("H", [1])}
    # A level of 255 at the faintest alpha (13) is 20 levels of the straight colour, half of it by rounding.
    return Kind(tiff_by_hand(tags, [stored.tobytes()]), planes(straight), 8, "tiff", levels=11)


def white_is_zero_tiff() -> Kind:
    pixels = levels(1)
    tags = {258: ("H", [8]), 262: ("H", [0]), 277: ("H", [1])}
    return Kind(tiff_by_hand(tags, [(255 - pixels).tobytes()]), planes(pixels), 8, "tiff")


def transparent_bmp() -> Kind:
    """BITMAPV4HEADER with masks for four channels, which Pillow reads and does not write."""
    pixels = levels(4)
    masks = struct.pack("<IIII", 0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    size = WIDTH * HEIGHT * 4
    about = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, size, 11811, 11811, 0, 0)
    header = about + masks + b"BGRs" + bytes(36 + 12)
    start = 14 + len(header)
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    return Kind(b"BM" + struct.pack("<IHHI", start + size, 0, 0, start) + header + body, planes(pixels))


def inked(format: str, answer: str, **options: Any) -> Kind:
    """CMYK: no ink is white, and that is all that every conversion agrees on."""
    ink = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    file = saved(Image.fromarray(ink, "CMYK"), format, **options)
    return Kind(file, np.ones((3, HEIGHT, WIDTH), np.float32), 8, answer, levels=2)


def moving(format: str, **options: Any) -> Kind:
    """Two frames, of which the first is the picture."""
    first = Image.fromarray(levels(3)).quantize(32).convert("RGB")
    second = Image.new("RGB", first.size, "red")
    file = saved(first, format, save_all=True, append_images=[second], **options)
    shown = np.asarray(first)
    if format == "GIF":  # its frames say what changes, and leave the rest transparent
        return Kind(file, planes(np.dstack([shown, np.full_like(shown[:, :, :1], 255)])), 8, "png")
    return Kind(file, planes(shown), 8, format.lower())


# At the highest quality a JPEG of these slopes is within 3 levels, an AVIF within 2.
KINDS: Mapping[str, Callable[[], Kind]] = {
    "png 1 bit": lambda: one_bit("PNG", "png"),
    "png 2 bits": lambda: shallow_png(2),
    "png 4 bits": lambda: shallow_png(4),
    "png grey": lambda: pillow("PNG", "L", 1),
    "png grey, alpha": lambda: pillow("PNG", "LA", 2),
    "png rgb": lambda: pillow("PNG", "RGB", 3),
    "png rgb, alpha": lambda: pillow("PNG", "RGBA", 4),
    "png palette": lambda: indexed("PNG", "png"),
    "png palette, alpha": indexed_with_alpha,
    "png grey 16": lambda: deep_png(0, 1),
    "png grey, alpha 16": lambda: deep_png(4, 2),
    "png rgb 16": lambda: deep_png(2, 3),
    "png rgb, alpha 16": lambda: deep_png(6, 4),
    "png grey 16, key": lambda: keyed_png(0, 1),
    "png rgb 16, key": lambda: keyed_png(2, 3),
    "png interlaced": lambda: Kind(vips(levels(3), "srgb").pngsave_buffer(interlace=True), planes(levels(3))),
    "jpeg": lambda: pillow("JPEG", "RGB", 3, tolerance=3, quality=100, subsampling=0),
    "jpeg progressive": lambda: pillow(
        "JPEG", "RGB", 3, tolerance=3, quality=100, subsampling=0, progressive=True
    ),
    "jpeg with restarts": lambda: pillow(
        "JPEG", "RGB", 3, tolerance=3, quality=100, subsampling=0, restart_marker_blocks=1
    ),
    "jpeg grey": lambda: pillow("JPEG", "L", 1, tolerance=3, quality=100),
    "jpeg cmyk": lambda: inked("JPEG", "jpeg", quality=100),
    "webp": lambda: pillow("WEBP", "RGB", 3, lossless=True),
    "webp, alpha": lambda: pillow("WEBP", "RGBA", 4, lossless=True, exact=True),
    "webp moving": lambda: moving("WEBP", lossless=True),
    "gif": lambda: indexed("GIF", "png"),
    "gif moving": lambda: moving("GIF"),
    "avif": lambda: pillow("AVIF", "RGB", 3, "png", tolerance=2, quality=100, subsampling="4:4:4"),
    "avif, alpha": lambda: pillow("AVIF", "RGBA", 4, "png", tolerance=2, quality=100, subsampling="4:4:4"),
    "bmp 1 bit": lambda: one_bit("BMP", "png"),
    "bmp grey": lambda: pillow("BMP", "L", 1, "png"),
    "bmp palette": lambda: indexed("BMP", "png"),
    "bmp": lambda: pillow("BMP", "RGB", 3, "png"),
    "bmp, alpha": transparent_bmp,
    "tiff 1 bit": lambda: one_bit("TIFF", "tiff"),
    "tiff grey": lambda: pillow("TIFF", "L", 1),
    "tiff grey, alpha": lambda: pillow("TIFF", "LA", 2),
    "tiff rgb": lambda: pillow("TIFF", "RGB", 3, compression="tiff_lzw"),
    "tiff rgb, alpha": lambda: pillow("TIFF", "RGBA", 4, compression="tiff_adobe_deflate"),
    "tiff palette": lambda: indexed("TIFF", "tiff"),
    "tiff cmyk": lambda: inked("TIFF", "tiff"),
    "tiff of pages": lambda: moving("TIFF"),
    "tiff tiled": lambda: vips_tiff(levels(3), "srgb", tile=True, tile_width=16, tile_height=16),
    "tiff planar 16": planar_tiff,
    "tiff premultiplied": premultiplied_tiff,
    "tiff white is zero": white_is_zero_tiff,
    "tiff grey 16": lambda: Kind(
        saved(Image.fromarray(levels(1, np.uint16)[:, :, 0]), "TIFF"),
        planes(levels(1, np.uint16)),
        16,
        "tiff",
    ),
    "tiff grey, alpha 16": lambda: vips_tiff(levels(2, np.uint16), "grey16"),
    "tiff rgb 16": lambda: vips_tiff(levels(3, np.uint16), "rgb16"),
    "tiff rgb, alpha 16": lambda: vips_tiff(levels(4, np.uint16), "rgb16"),
    "tiff grey float": lambda: Kind(
        saved(Image.fromarray(waves(1)[:, :, 0]), "TIFF"), planes(waves(1)), 32, "tiff"
    ),
    "tiff grey, alpha float": lambda: vips_tiff(waves(2), "b-w"),
    "tiff rgb float": lambda: vips_tiff(waves(3), "scrgb"),
    "tiff rgb, alpha float": lambda: vips_tiff(waves(4), "scrgb"),
}
