"""What a TIFF's first directory says that libvips does not pass on (TIFF 6.0, section 2; BigTIFF's own page)."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from runtime.errors import InvalidInput

COMPRESSION, PHOTOMETRIC = 259, 262
JPEG_COMPRESSIONS = (6, 7)
YCBCR, ICC_LAB, ITU_LAB = 6, 9, 10
# Mark → how numbers are packed: the count of entries, an entry's tag, type and count of values, an offset.
LAYOUTS = {
    b"II*\0": ("<H", "<HHI", "<I"),
    b"MM\0*": (">H", ">HHI", ">I"),
    b"II+\0": ("<Q", "<HHQ", "<Q"),
    b"MM\0+": (">Q", ">HHQ", ">Q"),
}
SHORT = 3
MOST_TAGS = 4096


def first_values(source: bytes | Path) -> dict[int, int]:
    """Tag → its first value, of the tags whose values are 16-bit integers in the directory itself. {} if damaged."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        mark = file.read(4)
        if mark not in LAYOUTS:
            return {}
        count_form, entry_form, offset_form = LAYOUTS[mark]
        wide = struct.calcsize(offset_form)
        try:
            file.seek(wide)  # where the header keeps the directory's offset: byte 4, or 8 of a BigTIFF
            file.seek(*struct.unpack(offset_form, file.read(wide)))
            (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
            size = struct.calcsize(entry_form)
            entries = [(file.read(size), file.read(wide)) for _ in range(min(count, MOST_TAGS))]
            found: dict[int, int] = {}
            for entry, value in entries:
                tag, kind, values = struct.unpack(entry_form, entry)
                if kind == SHORT and values * 2 <= wide:
                    found[tag] = struct.unpack(count_form[0] + "H", value[:2])[0]
        except (struct.error, OverflowError, OSError, ValueError):
            return {}
    return found


def check_colours(source: bytes | Path) -> None:
    """Raises InvalidInput for colour spaces that libvips would take for RGB."""
    found = first_values(source)
    photometric = found.get(PHOTOMETRIC)
    plain_ycbcr = photometric == YCBCR and found.get(COMPRESSION) not in JPEG_COMPRESSIONS
    if plain_ycbcr or photometric in (ICC_LAB, ITU_LAB):
        name = "YCbCr without JPEG" if plain_ycbcr else "ICCLab or ITULab"
        raise InvalidInput("image", f"got a TIFF of {name}, expected grey, RGB, palette or CMYK")
