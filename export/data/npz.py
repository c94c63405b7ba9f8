"""Reads NumPy archives (.npz) that hold `images` and maybe `labels` and `classes`. labelled.py calls READER."""

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
    """The arrays `train_images` and `train_labels` (or `test_…`) if the archive has them, otherwise `images` and `labels`.

    `classes` has the class names.
    """
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
