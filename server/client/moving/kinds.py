"""Tells pictures, animations and clips apart, and says which file each may become. server/client/transfers.py calls it.

Clips are known by their suffix, animations by their content: most GIF, WebP and PNG files are pictures.
"""

from __future__ import annotations

import struct
import warnings
from enum import Enum
from pathlib import Path

from PIL import Image

# Containers that are read, by FFmpeg.
CLIP_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm"),
    *(".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)
# Suffix → FFmpeg's name of a container that is written.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# A clip in a container that is not written becomes this one, which holds every kind of sound.
OTHER_CONTAINER = ".mkv"
# Suffix → Pillow's name of a format that can be animated.
ANIMATED = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
# What a clip or an animation may become.
MOVING_SUFFIXES = (*CONTAINERS, *ANIMATED)
PNG_START = b"\x89PNG\r\n\x1a\n"
WEBP_ANIMATED = 2  # in the flags of VP8X


class Kind(Enum):
    """What a source is, and so how it is sent."""

    PICTURE = "picture"
    ANIMATION = "animation"
    CLIP = "clip"


def kind_of(path: Path) -> Kind:
    """What the file at `path` is. A file that cannot be read is a picture: sending it reports the error."""
    if path.suffix.lower() in CLIP_SUFFIXES:
        return Kind.CLIP
    try:
        return Kind.ANIMATION if path.is_file() and _moves(path) else Kind.PICTURE
    except OSError:
        return Kind.PICTURE


def suffix_in_folder(path: Path, kind: Kind, format: str | None) -> str:
    """The suffix of the answer to a clip or an animation in a folder. format: of pictures, if the user chose one.

    Everything keeps its format if that can be written; an animation takes the chosen one if that can be animated.
    """
    suffix = path.suffix.lower()
    if kind is Kind.CLIP:
        return suffix if suffix in CONTAINERS else OTHER_CONTAINER
    chosen = f".{format}"
    return chosen if chosen in ANIMATED else suffix if suffix in ANIMATED else _suffix_of_content(path)


def _moves(path: Path) -> bool:
    """Whether a file is a GIF, WebP or PNG of several frames. Only GIFs are decoded for it, up to their second frame."""
    with path.open("rb") as file:
        head = file.read(33)
        if head.startswith(b"GIF8"):
            return _gif_moves(path)
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
            return bool(head[20] & WEBP_ANIMATED)
        if head.startswith(PNG_START):
            file.seek(len(PNG_START))
            while len(chunk := file.read(8)) == 8:
                length, name = struct.unpack(">I4s", chunk)
                if name == b"acTL":
                    return int.from_bytes(file.read(4), "big") > 1
                if name == b"IDAT":
                    return False
                file.seek(length + 4, 1)
    return False


def _gif_moves(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["GIF"]) as image:
                return bool(getattr(image, "is_animated", False))
    except (Image.DecompressionBombError, EOFError, SyntaxError, ValueError):
        return False


def _suffix_of_content(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(8)
    return ".gif" if head.startswith(b"GIF8") else ".png" if head.startswith(PNG_START) else ".webp"
