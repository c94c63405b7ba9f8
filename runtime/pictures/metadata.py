"""What a file says beside its pixels, carried from the picture that came to the one that goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.pictures.codec import pyvips
from runtime.pictures.forms import Form

PROFILE = "icc-profile-data"
# Names of libvips' fields, or how they begin → the bit of VipsForeignKeep under which savers write them.
CARRIED = {"exif-": 1, "xmp-data": 2, "iptc-data": 4, PROFILE: 8, "png-comment-": 16, "image-description": 16}
# True of the old pixels, and false of the new ones.
STALE = ("exif-ifd0-Orientation", "exif-ifd1-")
# libvips' resolution, in pixels per mm, where a file has none.
UNKNOWN = 1.0


@dataclass(frozen=True)
class Metadata:
    """fields: (name, GType, value) each. across, down: pixels per mm; 1.0 where the file does not say."""

    fields: tuple[tuple[str, int, Any], ...] = ()
    across: float = UNKNOWN
    down: float = UNKNOWN

    @classmethod
    def of(cls, image: pyvips.Image) -> Metadata:
        """Of an opened image, before any pixel is decoded. EXIF's orientation and thumbnail are left behind."""
        names = [
            name
            for name in image.get_fields()
            if name.startswith(tuple(CARRIED)) and not name.startswith(STALE)
        ]
        fields = tuple((name, image.get_typeof(name), image.get(name)) for name in names)
        return cls(fields, image.xres, image.yres)

    @property
    def profile(self) -> bytes | None:
        """The ICC profile."""
        return next((value for name, _, value in self.fields if name == PROFILE), None)

    def put(self, image: pyvips.Image, form: Form, scale: tuple[float, float]) -> tuple[pyvips.Image, int]:
        """The image with these fields, its resolution `scale` (across, down) times as high; and what savers must keep.

        A profile of another kind of colour than `form` is left out: it would be a lie about the pixels.
        """
        known = UNKNOWN not in (self.across, self.down)
        across, down = (self.across * scale[0], self.down * scale[1]) if known else (UNKNOWN, UNKNOWN)
        image = image.copy(xres=across, yres=down)
        keep = 0
        for name, kind, value in self.fields:
            if name == PROFILE and not suits(value, form):
                continue
            image.set_type(kind, name, value)
            keep |= next(bit for start, bit in CARRIED.items() if name.startswith(start))
        return image, keep


NONE = Metadata()


def suits(profile: bytes, form: Form) -> bool:
    """Whether an ICC profile speaks of such colours: its header has the colour space at byte 16 (ICC.1:2022, 7.2)."""
    return profile[16:20] == (b"GRAY" if form.colours == 1 else b"RGB ")
