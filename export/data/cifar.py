"""Reads the Python version of CIFAR-10 and CIFAR-100, as a folder or a .tar.gz; labelled.py calls its READERS.

The data: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny
Images"). The files are pickles, which plain_pickle.py reads.
"""

from __future__ import annotations

import math
import tarfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.data import plain_pickle
from export.data.sets import Labelled, Reader, Split, as_damaged, labelled
from runtime.errors import InvalidInput

SHAPE = (3, 32, 32)  # of a picture, which is a row of the file's array


@dataclass(frozen=True)
class Layout:
    """The files of one dataset, and the keys of their dictionaries."""

    name: str
    files: Mapping[Split, tuple[str, ...]]
    names_file: str
    names_key: str
    labels_key: str


LAYOUTS = (
    Layout(
        name="CIFAR-10",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        names_file="batches.meta",
        names_key="label_names",
        labels_key="labels",
    ),
    Layout(
        name="CIFAR-100",
        files={"train": ("train",), "test": ("test",)},
        names_file="meta",
        names_key="fine_label_names",
        labels_key="fine_labels",
    ),
)
# The names of all files of both datasets.
ALL_FILES = frozenset(
    name for layout in LAYOUTS for name in (layout.names_file, *layout.files["train"], *layout.files["test"])
)


def read_folder(path: Path, size: int, channels: int, split: Split) -> Labelled:
    contents = {name: (path / name).read_bytes() for name in ALL_FILES if (path / name).is_file()}
    return read(path, contents, size, channels, split)


def read_archive(path: Path, size: int, channels: int, split: Split) -> Labelled:
    """Read a .tar.gz in memory; nothing is unpacked to disk."""
    contents = {}
    with (
        as_damaged(path.name, tarfile.TarError, zlib.error, EOFError, OSError),
        tarfile.open(path, "r:gz") as archive,
    ):
        for member in archive:
            name = Path(member.name).name
            file = archive.extractfile(member) if member.isfile() and name in ALL_FILES else None
            if file:
                contents[name] = file.read()
    return read(path, contents, size, channels, split)


def read(path: Path, contents: Mapping[str, bytes], size: int, channels: int, split: Split) -> Labelled:
    layout = layout_of(contents)
    if layout is None:
        expected = " or ".join(f"{layout.name}'s {layout.names_file}" for layout in LAYOUTS)
        raise InvalidInput("data", f"{path.name} lacks a file of class names, expected {expected}")
    missing = [name for name in layout.files[split] if name not in contents]
    if missing:
        raise InvalidInput("data", f"{path.name} lacks {', '.join(missing)}, expected all of {layout.name}")
    names = list_under(
        layout.names_file, dictionary(layout.names_file, contents), layout.names_key, (str, bytes)
    )
    parts = [
        batch(name, dictionary(name, contents), layout.labels_key, len(names)) for name in layout.files[split]
    ]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return labelled(path.name, images, labels, tuple(map(text, names)), size, channels)


def layout_of(names: Collection[str]) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.names_file in names), None)


def dictionary(name: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
    loaded = plain_pickle.loads(name, contents[name])
    if not isinstance(loaded, dict):
        raise InvalidInput("data", f"{name} holds a {type(loaded).__name__}, expected a dictionary")
    return {text(key): value for key, value in loaded.items()}


def text(value: Any) -> str:
    """`value` as text. Python 2 wrote these files, so their strings are read as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def list_under(name: str, content: Mapping[str, Any], key: str, types: tuple[type, ...]) -> list[Any]:
    """The list under `key`, whose members must be of `types`. Raises InvalidInput if there is no such list."""
    values = content.get(key)
    if not isinstance(values, list) or not all(isinstance(value, types) for value in values):
        expected = f"`{key}`, a list of {' or '.join(kind.__name__ for kind in types)}"
        raise InvalidInput("data", f"{name} holds {', '.join(content) or 'nothing'}; expected {expected}")
    return values


def batch(
    name: str, content: Mapping[str, Any], labels_key: str, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures, [N, 32, 32, 3] uint8, and labels, [N] int64, of one file. Raises InvalidInput for wrong shapes or labels."""
    rows, labels = content.get("data"), list_under(name, content, labels_key, (int,))
    if not isinstance(rows, np.ndarray) or rows.shape[1:] != (math.prod(SHAPE),):
        got = rows.shape if isinstance(rows, np.ndarray) else f"a {type(rows).__name__}"
        raise InvalidInput("data", f"{name}: `data` is {got}, expected [N, {math.prod(SHAPE)}] uint8")
    if len(labels) != len(rows):
        raise InvalidInput("data", f"{name} has {len(labels)} labels, expected {len(rows)}: one a picture")
    if labels and not 0 <= min(labels) <= max(labels) < classes:
        got, expected = (
            f"from {min(labels)} to {max(labels)}",
            f"0 to {classes - 1}: there are {classes} names",
        )
        raise InvalidInput("data", f"{name}: labels run {got}, expected {expected}")
    return rows.reshape(-1, *SHAPE).transpose(0, 2, 3, 1), np.array(labels, np.int64)


READERS = (
    Reader(
        expected="CIFAR-10's or CIFAR-100's folder for Python",
        recognises=lambda path: (
            layout_of([name for name in ALL_FILES if (path / name).is_file()]) is not None
        ),
        read=read_folder,
    ),
    Reader(
        expected="the .tar.gz of either",
        recognises=lambda path: path.is_file() and path.name.endswith((".tar.gz", ".tgz")),
        read=read_archive,
    ),
)
