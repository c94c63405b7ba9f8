"""Copies metadata from the input file to the answer: EXIF, XMP, IPTC, colour profile, texts and resolution.

reading.py calls `Metadata.of` for an opened file, writing.py calls `Metadata.put` for the answer. Fields that describe
only the old pixels (orientation, thumbnail) are dropped, and the resolution is scaled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from runtime.pictures.codec import pyvips
from runtime.pictures.formats import PixelFormat

EXIF, XMP, PROFILE, TEXT = "exif-data", "xmp-data", "icc-profile-data", "png-comment-"
# libvips' fields → the bit of VipsForeignKeep under which savers write them. Single texts of PNG begin with TEXT.
CARRIED = {EXIF: 1, XMP: 2, "iptc-data": 4, PROFILE: 8, "image-description": 16}
TEXT_BIT = 16
# Fields that libvips extracts from EXIF and that are wrong for the new pixels.
STALE = ("orientation", "exif-ifd0-Orientation", "exif-ifd1-", "jpeg-thumbnail-data")
# XMP's copy of EXIF's orientation, as an attribute or an element.
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")
# What says in XMP that a gain map follows the picture (UltraHDR), which it does not in the answer.
XMP_GAIN_MAP = re.compile(rb"\s+hdrgm:Version\s*=\s*(?:\"[^\"]*\"|'[^']*')")
# libvips' default resolutions for files without one, in pixels per mm: of most formats, of PNG and of JPEG.
UNSAID_PER_MM = (1.0, 2.834, 72 / 25.4)
# Written in that case by formats that require a resolution: the 72 dpi that most programs assume.
ASSUMED_PER_MM = 72 / 25.4


@dataclass(frozen=True)
class Metadata:
    """Metadata of a picture.

    fields: (libvips' name, GType, value). per_mm: resolution in pixels per mm (horizontal, vertical); None if unknown.
    """

    fields: tuple[tuple[str, int, Any], ...] = ()
    per_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, image: pyvips.Image, *, set_upright: bool, turned: bool) -> Metadata:
        """Read the metadata of an opened image. Decodes no pixels.

        set_upright: whether EXIF's orientation will be applied to the pixels. turned: whether that swaps the axes.
        """
        names = [name for name in CARRIED if image.get_typeof(name)]
        fields = {name: image.get(name) for name in (*names, *_texts(image))}
        per_mm = _resolution(image, fields)
        if XMP in fields and set_upright:
            fields[XMP] = XMP_ORIENTATION.sub(rb"\g<1>1", fields[XMP])
        if XMP in fields:
            fields[XMP] = XMP_GAIN_MAP.sub(b"", fields[XMP])
        if per_mm and turned:
            per_mm = per_mm[::-1]
        return cls(tuple((name, image.get_typeof(name), value) for name, value in fields.items()), per_mm)

    @property
    def profile(self) -> bytes | None:
        """The ICC profile, None if there is none."""
        return next((value for name, _, value in self.fields if name == PROFILE), None)

    @property
    def size_bytes(self) -> int:
        """Of all values together; at least their length."""
        return sum(len(value) for _, _, value in self.fields if isinstance(value, (bytes, str)))

    def put(
        self, image: pyvips.Image, pixel_format: PixelFormat, scale: tuple[float, float]
    ) -> tuple[pyvips.Image, int]:
        """Set these fields on an image.

        A colour profile is left out if it does not match `pixel_format`. scale: factor of the resolution (horizontal,
        vertical). Returns the image and the value of the savers' option `keep`.
        """
        image = image.copy()
        # JPEG and WebP store the resolution in EXIF, so EXIF must be kept for it.
        keep = CARRIED[EXIF] if self.per_mm else 0
        for name, kind, value in self.fields:
            if name == PROFILE and not suits(value, pixel_format):
                continue
            image.set_type(kind, name, value)
            keep |= CARRIED.get(name, TEXT_BIT)
        # Setting the EXIF bytes also set every field in them, orientation and resolution included.
        for name in image.get_fields():
            if name.startswith(STALE):
                image.remove(name)
        across, down = self.per_mm or (ASSUMED_PER_MM,) * 2
        if self.per_mm:
            across, down = across * scale[0], down * scale[1]
        return image.copy(xres=across, yres=down), keep


NONE = Metadata()


def _texts(image: pyvips.Image) -> list[str]:
    try:
        return [name for name in image.get_fields() if name.startswith(TEXT)]
    except UnicodeDecodeError:
        return []  # a Latin-1 keyword, which pyvips cannot decode


def _resolution(image: pyvips.Image, fields: dict[str, Any]) -> tuple[float, float] | None:
    """Pixels per mm (horizontal, vertical); None if the file has none. For WebP, whose loader ignores it, from EXIF."""
    if EXIF in fields and image.xres == UNSAID_PER_MM[0]:
        image = pyvips.Image.black(1, 1).copy()
        image.set_type(pyvips.GValue.blob_type, EXIF, fields[EXIF])
    said = image.get_typeof("resolution-unit") or image.xres not in UNSAID_PER_MM
    return (image.xres, image.yres) if said and min(image.xres, image.yres) > 0 else None


def suits(profile: bytes, pixel_format: PixelFormat) -> bool:
    """Whether an ICC profile is intact and for grey or RGB, as `pixel_format` is.

    The header has the profile's length at byte 0 and the colour space at byte 16 (ICC.1:2022, 7.2). The PNG library
    refuses damaged profiles, so writing one pixel with it is the rest of the check.
    """
    grey = pixel_format.colours == 1
    if int.from_bytes(profile[:4]) != len(profile) or profile[16:20] != (b"GRAY" if grey else b"RGB "):
        return False
    pixel = pyvips.Image.black(1, 1, bands=pixel_format.colours).copy(
        interpretation="b-w" if grey else "srgb"
    )
    pixel.set_type(pyvips.GValue.blob_type, PROFILE, profile)
    try:
        pixel.pngsave_buffer(keep=CARRIED[PROFILE])
    except pyvips.Error:
        return False
    return True
