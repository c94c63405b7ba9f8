"""Animations (GIF, WebP, PNG) with Pillow: AnimationSource reads their frames, AnimationSink puts answers together.

Frames are read as they are shown, with whatever the frames before left behind, because a model must see whole pictures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from server.client.moving.frames import Damage, Facts, Frame, Look
from server.client.moving.kinds import ANIMATED
from server.client.moving.parts import Parts

MS = Fraction(1, 1000)
# GIF counts in hundredths of a second.
GIF_UNIT_MS = 10
# A pixel of a GIF is there or not.
HALF_OPAQUE = 128
NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.png")
WEBP_QUALITY = 90
# Where an animated WebP has its flags, and the one for transparency.
VP8X_FLAGS, WEBP_ALPHA = 20, 0x10
# What Pillow raises for damaged files, by format.
UNREADABLE = (OSError, EOFError, SyntaxError, ValueError)
# Frames of sRGB, as everything is shown that states nothing else, in a clip.
ANIMATION_LOOK = Look(matrix=1, range=1, primaries=1, transfer=1)


class AnimationSource:
    """The frames of an animation. flat: on white, for clips, which have no transparency."""

    def __init__(self, path: Path, *, flat: bool) -> None:
        self._flat = flat
        self.damage: Damage | None = None
        self._image = Image.open(path, formats=sorted(set(ANIMATED.values())))
        info, total = self._image.info, getattr(self._image, "n_frames", 1)
        # A GIF without a number of repetitions is shown once; of WebP and PNG, Pillow gives the number.
        loop = int(info.get("loop", 1))
        self._first = int(
            bool(info.get("default_image"))
        )  # of a PNG: a picture for programs that know no animation
        self.facts = Facts(MS, Fraction(25), total - self._first, ANIMATION_LOOK, loop=loop)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames in order, up to the first damaged one."""
        at_ms = 0
        for number in range(1, (self.facts.total or 0) + 1):
            try:
                self._image.seek(self._first + number - 1)
                self._image.load()
                shown = self._shown() if number > skip else None
            except UNREADABLE as error:
                self.damage = Damage(number, at_ms / 1000, str(error))
                return
            duration_ms = round(self._image.info.get("duration", 0))
            if shown is not None:
                yield Frame(number, at_ms, duration_ms, at_ms / 1000, partial(_tiff, shown))
            at_ms += duration_ms

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def _shown(self) -> Image.Image:
        """A copy of the current frame: RGB, or RGBA if something of it is transparent."""
        if not self._image.has_transparency_data:
            return self._image.convert("RGB")
        frame = self._image.convert("RGBA")
        if self._flat:
            white = Image.new("RGBA", frame.size, "white")
            return Image.alpha_composite(white, frame).convert("RGB")
        opaque = frame.getchannel("A").getextrema() == (255, 255)
        return frame.convert("RGB") if opaque else frame


class AnimationSink:
    """Implements Sink with a PNG file in `parts` for each frame. format: Pillow's name of the answer's format.

    facts: of the source. quality, lossless: of WebP.
    """

    def __init__(self, parts: Parts, facts: Facts, format: str, quality: int | None, lossless: bool) -> None:
        self._parts, self._facts, self._format = parts, facts, format
        self._options: dict[str, Any] = {}
        if format == "WEBP":
            self._options = {"quality": 100 if lossless else quality or WEBP_QUALITY, "lossless": lossless}
        self.done = 0
        for name in parts.names():
            self.done += (match := NAME.fullmatch(name)) is not None and int(match[1]) == self.done + 1

    def prepare(self, answer: bytes) -> bytes:
        """The answer as a PNG file, of 256 colours for GIF."""
        with Image.open(io.BytesIO(answer), formats=["TIFF"]) as image:
            image.load()
            frame = image.convert("RGBA" if image.mode in ("RGBA", "LA") else "RGB")
        file = io.BytesIO()
        if self._format == "GIF":
            frame = with_palette(frame)
        frame.save(file, "PNG", compress_level=1)
        return file.getvalue()

    def add(self, frame: Frame, prepared: bytes) -> None:
        """Keep the answer to the next frame."""
        # Frames of clips are not counted in ms: their ends are rounded, so that the errors do not add up.
        unit = self._facts.time_base / MS
        start_ms, end_ms = round(frame.pts * unit), round((frame.pts + frame.duration) * unit)
        with self._parts.writing(f"{frame.number:08}-{start_ms}-{end_ms}.png") as path:
            path.write_bytes(prepared)
        self.done = frame.number

    def close(self) -> None:
        """Nothing is held back."""

    def write(self, file: BinaryIO, last: Frame) -> tuple[int, int]:
        """Put the animation together."""
        names = [name for name in self._parts.names() if NAME.fullmatch(name)][: last.number]
        images = _Frames([self._parts.path(name) for name in names])
        options: dict[str, Any] = {"duration": self._durations_ms(names), **self._options}
        if self._format != "GIF" or self._facts.loop != 1:
            options["loop"] = self._facts.loop
        if images.transparent:
            options["disposal"] = 2  # else what is transparent would show the frame before
        images.save(file, self._format, save_all=True, **options)
        if self._format == "WEBP" and images.transparent and images.n_frames > 1:
            _state_alpha(file)
        return images.size

    def _durations_ms(self, names: list[str]) -> list[int]:
        times = [match for name in names if (match := NAME.fullmatch(name))]
        starts = [int(match[2]) for match in times] + [int(times[-1][3])]
        unit = GIF_UNIT_MS if self._format == "GIF" else 1
        starts = [round(start / unit) * unit for start in starts]
        return [after - before for before, after in pairwise(starts)]


def with_palette(frame: Image.Image) -> Image.Image:
    """A frame in the 256 colours that suit it best, by median cut and Floyd-Steinberg dithering. RGB or RGBA → P.

    RGBA: one of the colours is transparent, and so is what was so by more than half.
    """
    colours = frame.convert("RGB")
    best = colours.quantize(256 if frame.mode == "RGB" else 255, Image.Quantize.MEDIANCUT)
    indexed = colours.quantize(palette=best, dither=Image.Dither.FLOYDSTEINBERG)
    if frame.mode == "RGBA":
        palette = indexed.getpalette() or []
        transparent = len(palette) // 3
        indexed.putpalette([*palette, 0, 0, 0])
        indexed.paste(
            transparent, mask=frame.getchannel("A").point(lambda alpha: 255 * (alpha < HALF_OPAQUE))
        )
        indexed.info["transparency"] = transparent
    return indexed


class _Frames(Image.Image):
    """The frames of an animation for Pillow's writers, which ask for one after another: only one is in memory."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self._paths = paths
        self.n_frames, self.is_animated = len(paths), len(paths) > 1
        self.transparent = any(self._transparent(path) for path in paths)
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Read a frame."""
        if frame >= self.n_frames:
            raise EOFError
        with Image.open(self._paths[frame]) as image:
            image.load()
            shown = image.convert("RGBA") if self.transparent and image.mode == "RGB" else image
            self.im, self._mode, self._size = shown.im, shown.mode, shown.size
            self.palette, self.info = shown.palette, dict(shown.info)
        # If Pillow finds it here, it writes of a frame only what differs from black, even where nothing is behind it.
        self._index = self.info.pop("transparency", None)
        self._at = frame

    def copy(self) -> Image.Image:
        """The current frame."""
        copied = super().copy()
        if self._index is not None:
            copied.info["transparency"] = self._index
        return copied

    def tell(self) -> int:
        """The number of the frame, from 0."""
        return self._at

    @staticmethod
    def _transparent(path: Path) -> bool:
        with Image.open(path) as image:
            return image.has_transparency_data


def _state_alpha(file: BinaryIO) -> None:
    """Set the flag of a WebP's transparency, which libwebp forgets if only what is outside its rectangles is transparent."""
    file.seek(VP8X_FLAGS)
    flags = file.read(1)[0]
    file.seek(VP8X_FLAGS)
    file.write(bytes([flags | WEBP_ALPHA]))


def _tiff(frame: Image.Image) -> bytes:
    file = io.BytesIO()
    frame.save(file, "TIFF")
    return file.getvalue()
