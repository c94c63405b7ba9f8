"""Refuses TIFF files in colour spaces that libvips would decode as RGB, from two tags of the file (TIFF 6.0, section 2).

runtime/pictures/reading.py calls `check_colours` before it decodes a TIFF. Pillow can read the tags too, but it copies
the values of all tags into memory, up to the size of the file, and reports damaged ones as Python warnings, which cannot
be caught per thread.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

from runtime.errors import InvalidInput

COMPRESSION, PHOTOMETRIC = 259, 262
JPEG_COMPRESSIONS = (6, 7)
YCBCR, ICC_LAB, ITU_LAB = 6, 9, 10
# First four bytes → struct formats: the count of entries; an entry's tag, type and count of values; an offset.
LAYOUTS = {
    b"II*\0": ("<H", "<HHI", "<I"),
    b"MM\0*": (">H", ">HHI", ">I"),
    b"II+\0": ("<Q", "<HHQ", "<Q"),
    b"MM\0+": (">Q", ">HHQ", ">Q"),
}
SHORT = 3
MOST_TAGS = 4096


def first_values(source: bytes | Path) -> dict[int, int]:
    """Tag → first value, for tags whose 16-bit values are stored in the file's first directory. {} if it is damaged."""
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
                if kind == SHORT and values * 2 <= wide:
                    numbers[tag] = struct.unpack(count_format[0] + "H", value[:2])[0]
        except (struct.error, OverflowError, OSError, ValueError):
            return {}
    return numbers


def check_colours(source: bytes | Path) -> None:
    """Raises InvalidInput if a TIFF (its bytes, or its path) has a colour space that libvips would take for RGB."""
    tags = first_values(source)
    photometric = tags.get(PHOTOMETRIC)
    plain_ycbcr = photometric == YCBCR and tags.get(COMPRESSION) not in JPEG_COMPRESSIONS
    if plain_ycbcr or photometric in (ICC_LAB, ITU_LAB):
        name = "YCbCr without JPEG" if plain_ycbcr else "ICCLab or ITULab"
        raise InvalidInput("image", f"got a TIFF of {name}, expected grey, RGB, palette or CMYK")
