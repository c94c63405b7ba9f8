"""Metadata of picture files: EXIF, XMP, IPTC, colour profile, texts and resolution, from the input to the answer.

`Metadata.of` reads it from an opened file (runtime/pictures/reading.py), `Metadata.put` writes it into the answer
(runtime/pictures/writing.py), without what is true of the old pixels only.
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
# What libvips takes out of EXIF that is true of the old pixels, and false of the new ones.
STALE = ("orientation", "exif-ifd0-Orientation", "exif-ifd1-", "jpeg-thumbnail-data")
# XMP's copy of EXIF's orientation, as an attribute or an element.
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")
# The resolutions, in pixels per mm, that libvips gives where a file has none: of most formats, of PNG and of JPEG.
UNSAID_PER_MM = (1.0, 2.834, 72 / 25.4)
# What is written then by formats that must write one: the 72 dpi that most programs assume.
ASSUMED_PER_MM = 72 / 25.4


@dataclass(frozen=True)
class Metadata:
    """fields: (name, GType, value) each. per_mm: resolution, across and down, in pixels; None where it is not said."""

    fields: tuple[tuple[str, int, Any], ...] = ()
    per_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, image: pyvips.Image, *, set_upright: bool, turned: bool) -> Metadata:
        """Of an opened image, before any pixel is decoded.

        set_upright: its pixels will be moved as EXIF says. turned: so that rows become columns.
        """
        names = [name for name in CARRIED if image.get_typeof(name)]
        fields = {name: image.get(name) for name in (*names, *_texts(image))}
        per_mm = _resolution(image, fields)
        if XMP in fields and set_upright:
            fields[XMP] = XMP_ORIENTATION.sub(rb"\g<1>1", fields[XMP])
        if per_mm and turned:
            per_mm = per_mm[::-1]
        return cls(tuple((name, image.get_typeof(name), value) for name, value in fields.items()), per_mm)

    @property
    def profile(self) -> bytes | None:
        """The ICC profile."""
        return next((value for name, _, value in self.fields if name == PROFILE), None)

    def put(
        self, image: pyvips.Image, pixel_format: PixelFormat, scale: tuple[float, float]
    ) -> tuple[pyvips.Image, int]:
        """The image with these fields, its resolution `scale` (across, down) times as high; and what savers must keep.

        A profile of another kind of colour than `pixel_format` is left out: it would not describe these pixels.
        """
        image = image.copy()
        # JPEG and WebP have their resolution in EXIF, where libvips is to keep any.
        keep = CARRIED[EXIF] if self.per_mm else 0
        for name, kind, value in self.fields:
            if name == PROFILE and not suits(value, pixel_format):
                continue
            image.set_type(kind, name, value)
            keep |= CARRIED.get(name, TEXT_BIT)
        # Setting EXIF's bytes has set all that they say, orientation and resolution as well.
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
        return []  # a keyword in Latin-1, which pyvips cannot give back


def _resolution(image: pyvips.Image, fields: dict[str, Any]) -> tuple[float, float] | None:
    """Pixels per mm, across and down. WebP's loader leaves EXIF's aside."""
    if EXIF in fields and image.xres == UNSAID_PER_MM[0]:
        image = pyvips.Image.black(1, 1).copy()
        image.set_type(pyvips.GValue.blob_type, EXIF, fields[EXIF])
    said = image.get_typeof("resolution-unit") or image.xres not in UNSAID_PER_MM
    return (image.xres, image.yres) if said and min(image.xres, image.yres) > 0 else None


def suits(profile: bytes, pixel_format: PixelFormat) -> bool:
    """Whether an ICC profile is whole, and speaks of such colours.

    Its header has its length at byte 0 and the colour space at byte 16 (ICC.1:2022, 7.2). PNG's library refuses to
    write what it finds broken, so it is asked.
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
