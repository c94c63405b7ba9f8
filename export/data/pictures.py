"""Reads and writes picture files, and converts pixels between files ([H, W, C] uint8) and networks ([N, C, H, W] float32).

The other files of export/data, the recipes, run.py and interpolate call it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyvips
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from runtime.errors import InvalidInput

S = TypeVar("S")
T = TypeVar("T")

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}
SPACES = {1: "b-w", 3: "srgb"}  # channels → libvips's name of the colour space
FILES_WITH_BAR = 200  # fewer files are read too quickly for a progress bar
QUEUED_FILES = 64  # decoded ahead of the caller at most, which limits the memory


def read_picture(path: Path, channels: int = 3, shorter_px: int | None = None) -> np.ndarray:
    """The picture in a file, [H, W, channels] uint8: sRGB for 3 channels, grey for 1.

    It is rotated upright as its EXIF tag says, and alpha is flattened on black. shorter_px: reduce the picture (Lanczos)
    until its shorter side is so long, if it is longer. Raises InvalidInput if the file is no picture, damaged or cut short.
    """
    try:
        # Without fail_on, the missing part of a truncated file comes out grey.
        image = pyvips.Image.new_from_file(str(path), fail_on="error").autorot().colourspace(SPACES[channels])
        if image.hasalpha():
            image = image.flatten()
        image = image.cast("uchar")
        if shorter_px and min(image.width, image.height) > shorter_px:
            image = image.resize(shorter_px / min(image.width, image.height))
        return image.numpy().reshape(image.height, image.width, channels)
    except (pyvips.Error, ValueError) as error:  # ValueError: a number of bands that no colour space has
        reason = " ".join(str(error).split())
        raise InvalidInput("data", f"{path.name} cannot be decoded: {reason}") from error


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an [H, W, C] uint8 picture in the format of the file's suffix. Raises InvalidInput if that fails."""
    try:
        pyvips.Image.new_from_array(np.ascontiguousarray(image)).write_to_file(str(path))
    except pyvips.Error as error:
        raise InvalidInput("output", f"{path} cannot be written as a picture: {error}") from error


def saved_as_jpeg(image: np.ndarray, quality: int, *, subsampled: bool = True) -> np.ndarray:
    """[H, W, 3] uint8 RGB → the same shape, as it is after saving it as JPEG.

    quality: 1 to 100. subsampled: whether the colours have half the resolution (4:2:0), as cameras and most programs save.
    """
    data = pyvips.Image.new_from_array(np.ascontiguousarray(image)).jpegsave_buffer(
        Q=quality, subsample_mode="on" if subsampled else "off"
    )
    return pyvips.Image.new_from_buffer(data, "").numpy()


def pictures_under(folder: Path, field: str = "data") -> list[Path]:
    """The paths of all pictures in `folder` and its subfolders, sorted. Raises InvalidInput for `field` if there is none."""
    if not folder.is_dir():
        raise InvalidInput(field, f"no folder at {folder}, expected one with pictures in it")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise InvalidInput(
            field, f"no pictures in {folder}, expected files ending in {', '.join(sorted(PICTURES))}"
        )
    return paths


def decode_all(paths: Sequence[S], read: Callable[[S], T]) -> Iterator[T | InvalidInput]:
    """Yield `read(path)` for every path, in order, computed in threads; with a progress bar if there are many.

    If `read` raises InvalidInput, the error is yielded instead of a result, so that the caller can skip the file.
    """

    def attempt(path: S) -> T | InvalidInput:
        try:
            return read(path)
        except InvalidInput as error:
            return error

    console = Console(stderr=True)
    columns = (
        TextColumn("reading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
    )
    shown = console.is_terminal and len(paths) >= FILES_WITH_BAR
    under_way: deque[Future[T | InvalidInput]] = deque()
    with Progress(*columns, console=console, disable=not shown) as bars, ThreadPoolExecutor() as pool:
        bar = bars.add_task("", total=len(paths))
        for path in paths:
            under_way.append(pool.submit(attempt, path))
            if len(under_way) == QUEUED_FILES:
                yield under_way.popleft().result()
                bars.advance(bar)
        for future in under_way:
            yield future.result()
            bars.advance(bar)


def is_grey(image: np.ndarray) -> bool:
    """Whether no pixel of an [H, W, C] picture has a colour."""
    return bool((image == image[:, :, :1]).all())


def planes(image: np.ndarray) -> Tensor:
    """[H, W, C] → [C, H, W], of the same dtype."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def mirrored(images: Tensor, which: Tensor) -> Tensor:
    """`images`, [N, C, H, W], of which those where `which`, [N] bool, is true are mirrored left to right."""
    return torch.where(which[:, None, None, None], images.flip(3), images)


def as_floats(images: Tensor) -> Tensor:
    """[N, C, H, W] uint8 → float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def as_picture(image: Tensor) -> np.ndarray:
    """[C, H, W] float32, nominally in [0, 1] → [H, W, C] uint8."""
    return image.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def as_grid(images: Tensor, columns: int) -> np.ndarray:
    """[N, C, H, W] float32 in [0, 1] → [rows·H, columns·W, C] uint8, filled row by row."""
    rows = [torch.cat(list(row), dim=2) for row in images.split(columns)]
    return as_picture(torch.cat(rows, dim=1))
