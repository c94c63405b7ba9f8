"""What the readers of labelled pictures share: their result (Labelled), their interface (Reader), checks and framing.

cifar.py, folders.py, idx.py and npz.py use it; `framed` also serves the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from runtime.errors import InvalidInput

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Labelled:
    """Pictures and maybe labels. images: [N, C, H, W] uint8. labels: [N] int64, or None. class_names: () if there are none.

    skipped: the files that could not be decoded, each with the reason.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """Reads one format. expected: a description of it, for errors. recognises: whether a path has this format.

    read: (path, size in pixels, channels, split) → pictures; raises InvalidInput.
    """

    expected: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, int, int, Split], Labelled]


@contextmanager
def as_damaged(name: str, *errors: type[Exception]) -> Iterator[None]:
    """A context manager that turns `errors` into an InvalidInput saying that the file `name` is damaged."""
    try:
        yield
    except errors as error:
        raise InvalidInput(
            "data",
            f"{name} is damaged or cut short ({type(error).__name__}: {error}), expected a complete file",
        ) from error


def labelled(
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None,
    class_names: tuple[str, ...],
    size: int,
    channels: int,
) -> Labelled:
    """Check the arrays of the archive `name`, and centre the pictures on black squares of `size` pixels.

    images: [N, H, W] or [N, H, W, C] uint8. labels: [N], integers. Raises InvalidInput naming what is wrong.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        got = f"{images.shape} {images.dtype}"
        raise InvalidInput("data", f"{name}: images are {got}, expected [N, H, W(, C)] uint8, one or more")
    if images.shape[3] != channels or max(images.shape[1:3]) > size:
        got = f"{images.shape[2]}×{images.shape[1]} px with {images.shape[3]} channels"
        expected = f"at most {size} px and {channels} channels (a training takes others by --set size= and --set channels=)"
        raise InvalidInput("data", f"{name}: pictures are {got}, expected {expected}")
    if labels is not None and labels.shape != (len(images),):
        expected = f"{(len(images),)}: one a picture"
        raise InvalidInput("data", f"{name}: labels are {labels.shape}, expected {expected}")
    if labels is not None and labels.dtype.kind not in "iu":
        raise InvalidInput("data", f"{name}: labels are {labels.dtype}, expected integers")
    return Labelled(
        images=torch.from_numpy(np.ascontiguousarray(framed(images, size).transpose(0, 3, 1, 2))),
        labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        class_names=class_names,
    )


def framed(images: np.ndarray, size: int) -> np.ndarray:
    """[N, H, W, C] → [N, size, size, C]: of a longer side the middle is kept, a shorter one gets black borders."""
    frame = np.zeros((len(images), size, size, images.shape[3]), images.dtype)
    (from_rows, to_rows), (from_columns, to_columns) = (centred(side, size) for side in images.shape[1:3])
    frame[:, to_rows, to_columns] = images[:, from_rows, from_columns]
    return frame


def centred(length: int, size: int) -> tuple[slice, slice]:
    """How to centre `length` pixels in `size`: which of the former to copy, and where they go in the latter."""
    common = min(length, size)
    starts = ((length - common) // 2, (size - common) // 2)
    return slice(starts[0], starts[0] + common), slice(starts[1], starts[1] + common)
