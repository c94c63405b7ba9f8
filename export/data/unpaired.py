"""Unpaired: random crops of two folders of pictures between which nothing corresponds. CycleGAN's recipes draw their batches
from it; `read_sides` reads whole pictures of two such folders to measure on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.data.crops import DRAWN_BELOW, GIB, channels_second
from export.data.pictures import as_floats, decode_all, is_grey, pictures_under, planes, read_picture
from runtime.errors import InvalidInput

# The option that names the folder → the names of its two subfolders: the first that are both there are taken.
SUBFOLDERS = {
    "data": (("A", "B"), ("trainA", "trainB")),
    "validate": (("A", "B"), ("testA", "testB")),
}
CHOICES = 4  # numbers that choose a crop


class Side:
    """Random crops of the pictures in a folder and its subfolders. Thread-safe.

    crop_px: side of the crops. load_px: pictures with a longer shorter side are first reduced to it; 0 for none.
    cache_gib: memory for decoded pictures; those beyond it are decoded again for each crop.
    names: of the pictures in use. grey: how many of them have no colour. skipped: the reasons why others cannot be decoded
    or are too small. Raises InvalidInput if no picture can be used, or only one, of which there is only one crop.
    """

    def __init__(self, folder: Path, *, crop_px: int, load_px: int, cache_gib: float) -> None:
        self.folder, self.crop_px, self.load_px = folder, crop_px, load_px
        self.paths: list[Path] = []
        self.cache: dict[Path, np.ndarray] = {}  # [H, W, 3] uint8
        self.grey = 0
        left_bytes, skipped = cache_gib * GIB, []
        paths = pictures_under(folder)
        shapes = set()
        for path, image in zip(paths, decode_all(paths, self.read), strict=True):
            if isinstance(image, InvalidInput):
                skipped.append(f"{folder.name}: {image.problem}")
                continue
            self.paths.append(path)
            shapes.add(image.shape[:2])
            self.grey += is_grey(image)
            if image.nbytes <= left_bytes:
                self.cache[path] = image
                left_bytes -= image.nbytes
        self.names = tuple(path.relative_to(folder).as_posix() for path in self.paths)
        self.skipped = tuple(skipped)
        if not self.names:
            raise InvalidInput("data", f"no picture of {folder} can be used: {skipped[0]}")
        if len(self.names) == 1 and shapes == {(crop_px, crop_px)}:
            raise InvalidInput(
                "data",
                f"{folder} has one picture that can be used, {self.names[0]}, and it is no larger than a crop: every batch "
                f"would be the same; add pictures, or give --set crop_px below {crop_px}",
            )
        sides = {length for shape in shapes for length in shape}
        self.sizes = f"{min(sides)} to {max(sides)} px a side"

    def read(self, path: Path) -> np.ndarray:
        """A picture, [H, W, 3] uint8. Raises InvalidInput if it cannot be decoded or is smaller than a crop."""
        image = read_picture(path, shorter_px=self.load_px or None)
        if min(image.shape[:2]) < self.crop_px:
            got = f"{image.shape[1]}×{image.shape[0]}"
            raise InvalidInput("data", f"{path.name} is {got}, expected {self.crop_px} px a side or more")
        return image

    def crop(self, picture: int, top: int, left: int, mirror: int) -> np.ndarray:
        """The crop that is chosen by four numbers, each taken modulo its range: [crop, crop, 3] uint8."""
        path = self.paths[picture % len(self.paths)]
        image = self.cache[path] if path in self.cache else self.read(path)
        side = self.crop_px
        top %= image.shape[0] - side + 1
        left %= image.shape[1] - side + 1
        cut = image[top : top + side, left : left + side]
        return cut[:, ::-1] if mirror % 2 else cut

    def __str__(self) -> str:
        """What there is, in words."""
        one = len(self.names) == 1
        counted = "1 picture, of which all crops are" if one else f"{len(self.names):,} pictures"
        grey = f", {self.grey} of them grey and taken as RGB" if self.grey else ""
        return f"{self.folder.name}: {counted}{grey}, {self.sizes}"


class Unpaired:
    """Both sides of a folder that holds A/ and B/, or trainA/ and trainB/ as CycleGAN's data sets do.

    The other parameters are those of Side. Raises InvalidInput for a folder that is missing or has no picture to use.
    """

    def __init__(self, folder: Path, *, crop_px: int, load_px: int = 0, cache_gib: float = 8.0) -> None:
        if 0 < load_px < crop_px:
            raise InvalidInput("load_px", f"got {load_px}, expected at least crop_px={crop_px}, or 0")
        self.sides = tuple(
            Side(path, crop_px=crop_px, load_px=load_px, cache_gib=cache_gib / 2)
            for path in subfolders(folder, "data")
        )
        self.skipped = tuple(problem for side in self.sides for problem in side.skipped)

    def batch(
        self, random: torch.Generator, count: int, *, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """The rows `part` of a batch of `count` random crops of each side, mirrored at random.

        A row depends only on `random` and `count`. Returns a, b: [N, 3, crop, crop] float32 in [0, 1], channels last.
        """
        drawn = torch.randint(DRAWN_BELOW, (2, count, CHOICES), generator=random)[:, part].tolist()
        a, b = (
            as_floats(channels_second(np.stack([side.crop(*choice) for choice in choices])))
            for side, choices in zip(self.sides, drawn, strict=True)
        )
        return a, b


def subfolders(folder: Path, field: str) -> tuple[Path, Path]:
    """The folders of A and of B in `folder`. field: "data" or "validate". Raises InvalidInput, naming it, without them."""
    if not folder.is_dir():
        raise InvalidInput(field, f"no folder at {folder}, expected one with two folders of pictures in it")
    for a, b in SUBFOLDERS[field]:
        if (folder / a).is_dir() and (folder / b).is_dir():
            return folder / a, folder / b
    there = sorted(path.name + "/" for path in folder.iterdir() if path.is_dir())
    expected = " or ".join(f"{a}/ and {b}/" for a, b in SUBFOLDERS[field])
    raise InvalidInput(
        field,
        f"{folder} holds {', '.join(there) or 'no folder'}; expected {expected}, the pictures of each kind in one",
    )


def read_sides(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The whole pictures of A and of B in `folder`, by their relative paths without suffix, [3, H, W] uint8 each.

    Raises InvalidInput for a missing folder and for a picture that cannot be decoded.
    """
    a, b = (
        {
            path.relative_to(side).with_suffix("").as_posix(): planes(read_picture(path))
            for path in pictures_under(side, "validate")
        }
        for side in subfolders(folder, "validate")
    )
    return a, b
