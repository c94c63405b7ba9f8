"""Reads IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist) and similar data. labelled.py calls READER."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from export.data.sets import Labelled, Reader, Split, as_damaged, labelled
from runtime.errors import InvalidInput

PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}
ENDINGS = ("", ".gz")
BYTES = 0x08  # the header's code for unsigned bytes


def recognises(path: Path) -> bool:
    if path.is_file():
        return "images-idx3-ubyte" in path.name
    return any(images_in(path, prefix) for prefix in PREFIXES.values())


def images_in(folder: Path, prefix: str) -> Path | None:
    candidates = (folder / f"{prefix}-images-idx3-ubyte{ending}" for ending in ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def read(path: Path, size: int, channels: int, split: Split) -> Labelled:
    """The images of `split` in a folder, or those of a single file, with the labels of the file beside it if there is one."""
    images = path if path.is_file() else images_in(path, PREFIXES[split])
    if images is None:
        expected = f"{PREFIXES[split]}-images-idx3-ubyte, plain or .gz"
        raise InvalidInput("data", f"{path} holds IDX files, but not the {split} split; expected {expected}")
    stem = images.name.removesuffix(".gz").replace("images-idx3", "labels-idx1")
    candidates = (images.with_name(stem + ending) for ending in ENDINGS)
    labels = next((read_idx(file, 1) for file in candidates if file.is_file()), None)
    return labelled(images.name, read_idx(images, 3), labels, (), size, channels)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The file's uint8 array with `axes` axes. Raises InvalidInput for another type or number of axes, or a damaged file."""
    with as_damaged(path.name, gzip.BadGzipFile, zlib.error, EOFError):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    magic, expected = content[:4], bytes((0, 0, BYTES, axes))
    if magic != expected:
        raise InvalidInput(
            "data",
            f"{path.name} starts with 0x{magic.hex()}, expected 0x{expected.hex()}: {axes} axes of bytes",
        )
    shape = [int.from_bytes(content[4 * axis : 4 * axis + 4], "big") for axis in range(1, axes + 1)]
    values = content[4 * axes + 4 :]
    if len(values) != math.prod(shape):
        expected_values = " × ".join(map(str, shape))
        raise InvalidInput(
            "data", f"{path.name} holds {len(values)} values, expected {expected_values} by its header"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


READER = Reader(
    expected="MNIST's IDX files (train-images-idx3-ubyte, plain or .gz), or a folder of them",
    recognises=recognises,
    read=read,
)
