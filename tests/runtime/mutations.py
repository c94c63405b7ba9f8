"""Makes thousands of damaged picture files, and reads them in a process with limits.

    python -m tests.runtime.mutations COUNT SEED

reads COUNT damaged files and prints one line of JSON: how they ended, the slowest, and the most memory. Times are of
the processor, beside that of the costliest good picture which the limit allows.
"""

from __future__ import annotations

import io
import json
import logging
import random
import resource
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image

from runtime.errors import InvalidInput
from runtime.pictures.reading import open_picture

# Of one picture. With 8 bytes a pixel in the decoder and 16 as floats, 24 MiB.
MAX_PIXELS = 2**20
# Of address space beyond what the process has before the first file.
MEMORY_BYTES = 512 * 2**20
BAND_ROWS = 64
NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


def seeds() -> dict[str, bytes]:
    """A small file of every format and of every coding that is unlike the others."""
    rows, columns = np.mgrid[0:37, 0:41] / 41
    colours = np.stack([rows, columns, 1 - rows, (rows + columns) / 2], 2)
    pixels = (colours * 255).astype(np.uint8)
    deep = (colours * 65535).astype(np.uint16)
    exif = Image.Exif()
    exif[0x112], exif[0x10F], exif[0x11A] = 6, "Maker", 300.0
    profile = pyvips.Image.profile_load("p3")

    def pillow(format: str, mode: str = "RGB", **options: object) -> bytes:
        file = io.BytesIO()
        image = Image.fromarray(pixels).convert("RGB" if mode == "P" else mode)
        (image.quantize(32) if mode == "P" else image).save(file, format, **options)
        return file.getvalue()

    def vips(values: np.ndarray, words: str, format: str, **options: object) -> bytes:
        image = pyvips.Image.new_from_array(np.ascontiguousarray(values)).copy(interpretation=words)
        return image.write_to_buffer(f".{format}", **options)

    return {
        "png": pillow("PNG", exif=exif, icc_profile=profile, dpi=(300, 300)),
        "png, palette": pillow("PNG", "P", transparency=3),
        "png, one bit": pillow("PNG", "1"),
        "png, interlaced": vips(pixels, "srgb", "png", interlace=True),
        "png, 16 bits": vips(deep, "rgb16", "png"),
        "jpeg": pillow("JPEG", exif=exif, icc_profile=profile, dpi=(300, 300)),
        "jpeg, progressive": pillow("JPEG", progressive=True),
        "jpeg, cmyk": pillow("JPEG", "CMYK"),
        "jpeg, restarts": pillow("JPEG", "L", restart_marker_blocks=2),
        "webp": pillow("WEBP", exif=exif.tobytes()),
        "webp, lossless": pillow("WEBP", "RGBA", lossless=True),
        "webp, moving": pillow("WEBP", save_all=True, append_images=[Image.new("RGB", (41, 37), "red")]),
        "tiff": pillow("TIFF", icc_profile=profile, dpi=(300, 300)),
        "tiff, lzw": pillow("TIFF", "RGBA", compression="tiff_lzw"),
        "tiff, packbits": pillow("TIFF", "P", compression="packbits"),
        "tiff, fax": pillow("TIFF", "1", compression="group4"),
        "tiff, jpeg": vips(pixels[:, :, :3], "srgb", "tiff", compression="jpeg"),
        "tiff, tiled": vips(deep, "rgb16", "tiff", tile=True, tile_width=16, tile_height=16, bigtiff=True),
        "tiff, floats": vips(colours[:, :, :3].astype(np.float32), "scrgb", "tiff", compression="deflate"),
        "tiff, cmyk": pillow("TIFF", "CMYK"),
        "tiff, lab": vips((colours[:, :, :3] * 50).astype(np.float32), "lab", "tiff"),
        "gif": pillow("GIF", "P", transparency=3),
        "gif, moving": pillow("GIF", "P", save_all=True, append_images=[Image.new("RGB", (41, 37), "red")]),
        "avif": pillow("AVIF"),
        "avif, alpha": pillow("AVIF", "RGBA"),
        "bmp": pillow("BMP"),
        "bmp, palette": pillow("BMP", "P"),
        "bmp, one bit": pillow("BMP", "1"),
    }


def flip_bits(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        file[dice.randrange(len(file))] ^= 1 << dice.randrange(8)


def overwrite_run(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    start, length = dice.randrange(len(file)), dice.choice((1, 2, 4, 16, 64))
    run = (
        bytes([dice.choice((0, 0x7F, 0x80, 0xFF))]) * length
        if dice.random() < 0.5
        else dice.randbytes(length)
    )
    file[start : start + length] = run[: len(file) - start]


def cut_short(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    del file[dice.randrange(len(file)) :]


def cut_out(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    start = dice.randrange(len(file))
    del file[start : start + dice.choice((1, 2, 4, 32))]


def insert(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    start = dice.randrange(len(file))
    file[start:start] = dice.randbytes(dice.choice((1, 2, 4, 100)))


def repeat_run(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    start = dice.randrange(len(file))
    file[start:start] = file[start : start + 64] * dice.choice((1, 10))


def splice(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    other = dice.choice(others)
    start, begin = dice.randrange(len(file)), dice.randrange(len(other))
    file[start:] = other[begin:]


def change_number(file: bytearray, dice: random.Random, others: list[bytes]) -> None:
    """A field of the header, or of a TIFF's directory at the end, becomes one that breaks arithmetic."""
    form = dice.choice((">H", "<H", ">I", "<I", "<Q"))
    size = struct.calcsize(form)
    places = range(4, 220) if dice.random() < 0.6 else range(max(0, len(file) - 300), len(file))
    start = dice.choice(places)
    if start + size <= len(file):
        struct.pack_into(form, file, start, dice.choice(NUMBERS) & (256**size - 1))


DAMAGES: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    flip_bits,
    overwrite_run,
    cut_short,
    cut_out,
    insert,
    repeat_run,
    splice,
    change_number,
    change_number,
)


def mend_png(file: bytes) -> bytes:
    """The same with right checksums, so that the damage gets past them."""
    mended, at = file[:8], 8
    while at + 12 <= len(file):
        (length,) = struct.unpack_from(">I", file, at)
        body = file[at + 4 : at + 8 + length]
        mended += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return mended


def mutated(number: int, seed: int, originals: list[bytes]) -> bytes:
    """File `number` of a seed: every original in turn, with one to three kinds of damage."""
    dice = random.Random(f"{seed}, {number}")
    file = bytearray(originals[number % len(originals)])
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        if file:
            dice.choice(DAMAGES)(file, dice, originals)
    if file[:4] == b"\x89PNG" and dice.random() < 0.7:
        return mend_png(bytes(file))
    return bytes(file)


def read_all(file: bytes | Path) -> bool:
    """Whether every band of a file is read. Any other error than InvalidInput goes through."""
    try:
        opened = open_picture(file, max_pixels=MAX_PIXELS)
        rows = opened.rows()
        for start in range(0, opened.header.height, BAND_ROWS):
            stop = min(start + BAND_ROWS, opened.header.height)
            values = rows.read(start, stop)
            assert values.shape == (opened.header.pixel_format.channels, stop - start, opened.header.width)
            assert values.dtype == np.float32
            assert values.min() >= 0
            assert values.max() <= 1
    except InvalidInput as error:
        if error.field != "image":
            raise
        return False
    return True


def status_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def costliest() -> bytes:
    """As many pixels as are allowed, 16-bit RGBA that hardly compresses."""
    side = int(MAX_PIXELS**0.5)
    values = np.random.default_rng(0).integers(0, 2**16, (side, side, 4), np.uint16)
    image = pyvips.Image.new_from_array(values).copy(interpretation="rgb16")
    return image.pngsave_buffer(interlace=True)


def cpu_seconds(file: bytes) -> float:
    start_s = time.process_time()
    assert read_all(file)
    return time.process_time() - start_s


def main(count: int, seed: int) -> None:
    logging.disable()  # libvips tells of every damage, and so does Pillow
    warnings.simplefilter("ignore")
    originals = list(seeds().values())
    assert all(read_all(file) for file in originals)
    limit = status_bytes("VmSize") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    costliest_s = cpu_seconds(costliest())
    before = status_bytes("VmHWM")
    ends: Counter[str] = Counter()
    slowest_s, slowest, wrong = 0.0, -1, []
    for number in range(count):
        file = mutated(number, seed, originals)
        start_s = time.process_time()
        try:
            ends["read" if read_all(file) else "refused"] += 1
        except Exception as error:
            ends["wrong"] += 1
            wrong.append(f"file {number} of seed {seed}: {type(error).__name__}: {error}"[:300])
        took_s = time.process_time() - start_s
        if took_s > slowest_s:
            slowest_s, slowest = took_s, number
    grown = status_bytes("VmHWM") - before
    report = {
        **ends,
        "costliest_s": costliest_s,
        "slowest_s": slowest_s,
        "slowest": slowest,
        "grown_bytes": grown,
        "errors": wrong[:20],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
