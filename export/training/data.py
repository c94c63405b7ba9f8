"""Pictures from disk: folders of files, and .npz archives. All are kept in memory as uint8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
import torch
from torch import Tensor

from export.training.resize import resize
from runtime.errors import InvalidInput

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class Labelled:
    """images: [N, C, H, W] uint8; labels: [N] int64, or None; class_names: () where the archive has none."""

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A picture and its reduction: high [C, S·H, S·W] uint8, low [C, H, W] uint8."""

    high: Tensor
    low: Tensor


def read_picture(path: Path) -> np.ndarray:
    """[H, W, 3] uint8 sRGB, upright, alpha flattened on black."""
    try:
        image = pyvips.Image.new_from_file(str(path)).autorot().colourspace("srgb")
        if image.hasalpha():
            image = image.flatten()
        return image.cast("uchar").numpy()
    except pyvips.Error as error:
        raise InvalidInput("data", f"{path.name} cannot be decoded: {error}") from error


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an [H, W, C] uint8 picture; the file's ending says the format."""
    pyvips.Image.new_from_array(np.ascontiguousarray(image)).write_to_file(str(path))


def pictures_under(folder: Path, field: str = "data") -> list[Path]:
    """Every picture in `folder` and below, sorted. Raises InvalidInput where there is none."""
    if not folder.is_dir():
        raise InvalidInput(field, f"no folder at {folder}, expected one with pictures in it")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise InvalidInput(
            field, f"no pictures in {folder}, expected files ending in {', '.join(sorted(PICTURES))}"
        )
    return found


def read_pairs(folder: Path, scale: int, least_px: int) -> list[Pair]:
    """Every picture of `folder` with its bicubic reduction by `scale`, each side at least `least_px` after it."""
    pairs = []
    for path in pictures_under(folder):
        image = read_picture(path)
        height, width = (side // scale * scale for side in image.shape[:2])
        if min(height, width) < least_px * scale:
            raise InvalidInput(
                "data",
                f"{path.name} is {image.shape[1]}×{image.shape[0]}, expected {least_px * scale} px a side or more",
            )
        image = image[:height, :width]
        pairs.append(Pair(planes(image), planes(resize(image, 1 / scale))))
    return pairs


def random_patches(pairs: list[Pair], count: int, side_px: int, scale: int) -> tuple[Tensor, Tensor]:
    """`count` aligned random crops, each turned one of the eight ways a square can be.

    Gives low [N, C, side, side] and high [N, C, S·side, S·side], float32 in [0, 1].
    """
    low, high = [], []
    for index in torch.randint(len(pairs), (count,)).tolist():
        pair = pairs[index]
        top, left = (int(torch.randint(length - side_px + 1, ())) for length in pair.low.shape[1:])
        turn, mirror = divmod(int(torch.randint(8, ())), 2)
        low.append(turned(crop(pair.low, top, left, side_px), turn, mirror))
        high.append(turned(crop(pair.high, top * scale, left * scale, side_px * scale), turn, mirror))
    return as_floats(torch.stack(low)), as_floats(torch.stack(high))


def read_labelled(path: Path, size: int, channels: int) -> Labelled:
    """An .npz with `images` (and `labels`, `classes`), or `train_images` (and `train_labels`).

    Pictures smaller than `size` are set in the middle of black ones. Raises InvalidInput naming what does not fit.
    """
    if not path.is_file() or path.suffix != ".npz":
        raise InvalidInput(
            "data", f"no .npz archive at {path}, expected one with `images` or `train_images` in it"
        )
    with np.load(path) as archive:
        prefix = "train_" if "train_images" in archive else ""
        if f"{prefix}images" not in archive:
            raise InvalidInput(
                "data", f"{path.name} holds {', '.join(archive)}; expected `images` or `train_images`"
            )
        images = archive[f"{prefix}images"]
        labels = archive.get(f"{prefix}labels")
        class_names = tuple(str(name) for name in archive["classes"]) if "classes" in archive else ()
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise InvalidInput("data", f"images are {images.shape} {images.dtype}, expected [N, H, W(, C)] uint8")
    if images.shape[3] != channels or max(images.shape[1:3]) > size:
        got = f"{images.shape[2]}×{images.shape[1]} px with {images.shape[3]} channels"
        raise InvalidInput(
            "data", f"pictures are {got}, expected at most {size} px and {channels} channels (see --set)"
        )
    if labels is not None and labels.shape != (len(images),):
        raise InvalidInput("data", f"labels are {labels.shape}, expected {(len(images),)}: one a picture")
    return Labelled(
        images=torch.from_numpy(centred(images, size).transpose(0, 3, 1, 2)).contiguous(),
        labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        class_names=class_names,
    )


def centred(images: np.ndarray, size: int) -> np.ndarray:
    """[N, H, W, C] → [N, size, size, C], black around."""
    margins = [((size - side) // 2, size - side - (size - side) // 2) for side in images.shape[1:3]]
    return np.pad(images, [(0, 0), *margins, (0, 0)])


def planes(image: np.ndarray) -> Tensor:
    """[H, W, C] → [C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def crop(image: Tensor, top: int, left: int, side: int) -> Tensor:
    return image[:, top : top + side, left : left + side]


def turned(image: Tensor, quarters: int, mirror: int) -> Tensor:
    return torch.rot90(image.flip(2) if mirror else image, quarters, (1, 2))


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
