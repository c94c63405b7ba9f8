"""Reads a few tags of TIFF files (TIFF 6.0, section 2), to refuse colour spaces that libvips would decode as RGB, and to
know the size of the strips or tiles.

runtime/pictures/reading.py calls it before it decodes a TIFF. Pillow can read the tags too, but it copies
the values of all tags into memory, up to the size of the file, and reports damaged ones as Python warnings, which cannot
be caught per thread.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

from runtime.errors import InvalidInput

COMPRESSION, PHOTOMETRIC, ROWS_PER_STRIP, TILE_LENGTH = 259, 262, 278, 323
JPEG_COMPRESSIONS = (6, 7)
YCBCR, ICC_LAB, ITU_LAB = 6, 9, 10
# First four bytes → struct formats: the count of entries; an entry's tag, type and count of values; an offset.
LAYOUTS = {
    b"II*\0": ("<H", "<HHI", "<I"),
    b"MM\0*": (">H", ">HHI", ">I"),
    b"II+\0": ("<Q", "<HHQ", "<Q"),
    b"MM\0+": (">Q", ">HHQ", ">Q"),
}
# TIFF's numbers of types → struct's letters.
TYPES = {3: "H", 4: "I"}
MOST_TAGS = 4096


def first_values(source: bytes | Path) -> dict[int, int]:
    """Tag → first value, for tags whose 16-bit or 32-bit values are stored in the file's first directory. {} if it is damaged."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        start = file.read(4)
        if start not in LAYOUTS:
            return {}
        count_format, entry_format, offset_format = LAYOUTS[start]
        wide = struct.calcsize(offset_format)
        try:
            file.seek(wide)  # position of the directory's offset: byte 4, or 8 in a BigTIFF
            file.seek(*struct.unpack(offset_format, file.read(wide)))
            (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
            size = struct.calcsize(entry_format)
            entries = [(file.read(size), file.read(wide)) for _ in range(min(count, MOST_TAGS))]
            numbers: dict[int, int] = {}
            for entry, value in entries:
                tag, kind, values = struct.unpack(entry_format, entry)
                letter = TYPES.get(kind)
                if letter and values * struct.calcsize(letter) <= wide:
                    numbers[tag] = struct.unpack_from(count_format[0] + letter, value)[0]
        except (struct.error, OverflowError, OSError, ValueError):
            return {}
    return numbers


def check_colours(tags: Mapping[int, int]) -> None:
    """Raises InvalidInput if a TIFF with these tags has a colour space that libvips would take for RGB."""
    photometric = tags.get(PHOTOMETRIC)
    plain_ycbcr = photometric == YCBCR and tags.get(COMPRESSION) not in JPEG_COMPRESSIONS
    if plain_ycbcr or photometric in (ICC_LAB, ITU_LAB):
        name = "YCbCr without JPEG" if plain_ycbcr else "ICCLab or ITULab"
        raise InvalidInput("image", f"got a TIFF of {name}, expected grey, RGB, palette or CMYK")


def rows_of_unit(tags: Mapping[int, int], height: int) -> tuple[int, bool]:
    """The rows of a strip or tile, at most `height`, and whether the TIFF with these tags is tiled."""
    tiled = TILE_LENGTH in tags
    rows = tags[TILE_LENGTH] if tiled else tags.get(ROWS_PER_STRIP, height)
    return (min(rows, height) if rows else height), tiled
