"""Reads a folder of picture files; its subfolders, if it has any, are the classes. labelled.py calls READER."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from export.data.pictures import decode_all, pictures_under, read_picture
from export.data.sets import Labelled, Reader, Split, framed
from runtime.errors import InvalidInput


def read(path: Path, size: int, channels: int, split: Split) -> Labelled:
    """Every picture below `path`, in grey for 1 channel and RGB for 3. The class names are the subfolders', sorted.

    Larger pictures are reduced until the shorter side is `size` and the middle of the longer side is kept; smaller ones are
    centred on black. `split` is ignored: a folder is read whole.
    """
    files = pictures_under(path)
    names = classes(path, files)
    images = np.empty((len(files), size, size, channels), np.uint8)
    kept: list[Path] = []
    skipped: list[str] = []
    for file, pixels in zip(
        files, decode_all(files, partial(fitted, size=size, channels=channels)), strict=True
    ):
        if isinstance(pixels, InvalidInput):
            skipped.append(f"{file.relative_to(path)}: {pixels.problem}")
        else:
            images[len(kept)] = pixels
            kept.append(file)
    if not kept:
        raise InvalidInput("data", f"no picture of {path} can be decoded, expected one or more: {skipped[0]}")
    labels = torch.tensor([names.index(file.relative_to(path).parts[0]) for file in kept]) if names else None
    return Labelled(
        images=torch.from_numpy(np.ascontiguousarray(images[: len(kept)].transpose(0, 3, 1, 2))),
        labels=labels,
        class_names=names,
        skipped=tuple(skipped),
    )


def classes(folder: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """The subfolders that hold pictures. Raises InvalidInput if there are pictures beside them, which have no class."""
    loose = [file.name for file in files if file.parent == folder]
    if loose and len(loose) < len(files):
        raise InvalidInput(
            "data",
            f"{folder} holds {loose[0]} beside subfolders of pictures, "
            "expected all pictures in subfolders (their classes), or none",
        )
    return () if loose else tuple(sorted({file.relative_to(folder).parts[0] for file in files}))


def fitted(file: Path, size: int, channels: int) -> np.ndarray:
    """A picture, reduced and framed: [size, size, channels] uint8."""
    return framed(read_picture(file, channels, shorter_px=size)[None], size)[0]


READER = Reader(
    expected="a folder of pictures (its subfolders are their classes)",
    recognises=lambda path: path.is_dir(),
    read=read,
)
