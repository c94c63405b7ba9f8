"""Reads NumPy archives with `images` (and `labels`, `classes`), or with the same per split; a Reader of labelled.py."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from export.data.sets import Labelled, Reader, Split, as_damaged, labelled
from runtime.errors import InvalidInput

# ValueError: an array of Python objects, which NumPy would have to unpickle. TypeError: a single array, not an archive.
DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError)


def read(path: Path, size: int, channels: int, split: Split) -> Labelled:
    """`train_images`, `train_labels` (`test_…`) where there are such, else `images`, `labels`; names in `classes`."""
    with as_damaged(path.name, *DAMAGE_ERRORS), path.open("rb") as file, np.load(file) as archive:
        prefix = f"{split}_" if f"{split}_images" in archive else ""
        if f"{prefix}images" not in archive:
            contents = ", ".join(archive) or "nothing"
            raise InvalidInput("data", f"{path.name} holds {contents}; expected `images` or `{split}_images`")
        images, labels = archive[f"{prefix}images"], archive.get(f"{prefix}labels")
        class_names = tuple(str(name) for name in archive["classes"]) if "classes" in archive else ()
    return labelled(path.name, images, labels, class_names, size, channels)


READER = Reader(
    expected="an .npz archive with `images` or `train_images` in it",
    recognises=lambda path: path.is_file() and path.suffix == ".npz",
    read=read,
)
