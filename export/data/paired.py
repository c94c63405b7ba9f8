"""Paired: random crops of pictures of which there are two versions, at the same place in both. pix2pix's recipes draw their
batches from it; `read_paired` reads whole pairs to measure on.

A folder holds A/ and B/ with files of the same names, or else pictures that show A on the left and B on the right, as
pix2pix's data sets do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.data.crops import DRAWN_BELOW, GIB, channels_second
from export.data.pictures import as_floats, decode_all, is_grey, pictures_under, planes, read_picture
from export.data.resize import resize
from runtime.errors import InvalidInput

SIDES = ("A", "B")
CHOICES = 4  # numbers that choose a crop


@dataclass(frozen=True)
class PairFiles:
    """Where a pair is. name: as messages say it. b: None if `a` shows both side by side."""

    name: str
    a: Path
    b: Path | None

    def read(self, field: str) -> tuple[np.ndarray, np.ndarray]:
        """A and B, [H, W, 3] uint8 each. Raises InvalidInput for `field` if they cannot be decoded or do not fit together."""
        a = read_picture(self.a)
        if self.b is not None:
            b = read_picture(self.b)
            if a.shape != b.shape:
                sizes = f"{self.a.parent.name} is {size(a)}, {self.b.parent.name} is {size(b)}"
                raise InvalidInput(field, f"{self.name}: {sizes}; expected the same size")
            return a, b
        if a.shape[1] % 2:
            raise InvalidInput(
                field, f"{self.name} is {size(a)}, expected an even width: A and B side by side"
            )
        return a[:, : a.shape[1] // 2], a[:, a.shape[1] // 2 :]


class Paired:
    """Crops of every pair in a folder. Thread-safe.

    crop_px: side of the crops. load_px: pictures with a longer shorter side are first reduced to it; 0 for none.
    cache_gib: memory for decoded pictures; those beyond it are decoded again for each crop.
    names: of the pairs in use. skipped: the reasons why others cannot be used. Raises InvalidInput if there is no folder, or
    no pair that can be used.
    """

    def __init__(self, folder: Path, *, crop_px: int, load_px: int = 0, cache_gib: float = 8.0) -> None:
        if 0 < load_px < crop_px:
            raise InvalidInput("load_px", f"got {load_px}, expected at least crop_px={crop_px}, or 0")
        self.crop_px, self.load_px = crop_px, load_px
        self.pairs: list[PairFiles] = []
        self.cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        left_bytes, grey = cache_gib * GIB, [0, 0]
        sides: set[int] = set()
        files, skipped = pairs_in(folder, "data")
        for pair, images in zip(files, decode_all(files, self.read), strict=True):
            if isinstance(images, InvalidInput):
                skipped.append(images.problem)
                continue
            self.pairs.append(pair)
            sides |= set(images[0].shape[:2])
            grey = [count + is_grey(image) for count, image in zip(grey, images, strict=True)]
            if (held := sum(image.nbytes for image in images)) <= left_bytes:
                self.cache[pair.name] = images
                left_bytes -= held
        self.names, self.skipped = tuple(pair.name for pair in self.pairs), tuple(skipped)
        if not self.names:
            raise InvalidInput("data", f"no pair in {folder} can be used: {skipped[0]}")
        greys = (
            f", {count} grey pictures in {side} taken as RGB"
            for side, count in zip(SIDES, grey, strict=True)
            if count
        )
        how = "in A and B" if self.pairs[0].b is not None else "side by side"
        self.about = (
            f"{len(self.names):,} pairs {how}, {min(sides)} to {max(sides)} px a side{''.join(greys)}"
        )

    def read(self, pair: PairFiles) -> tuple[np.ndarray, np.ndarray]:
        """A pair, reduced, [H, W, 3] uint8 each. Raises InvalidInput if it cannot be used."""
        a, b = (self.reduced(image) for image in pair.read("data"))
        if min(a.shape[:2]) < self.crop_px:
            raise InvalidInput("data", f"{pair.name} is {size(a)}, expected {self.crop_px} px a side or more")
        return a, b

    def reduced(self, image: np.ndarray) -> np.ndarray:
        shorter = min(image.shape[:2])
        return resize(image, self.load_px / shorter) if 0 < self.load_px < shorter else image

    def batch(
        self, random: torch.Generator, count: int, *, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """The rows `part` of a batch of `count` random crops, mirrored at random, A and B alike.

        A row depends only on `random` and `count`. Returns a, b: [N, 3, crop, crop] float32 in [0, 1], channels last.
        """
        drawn = torch.randint(DRAWN_BELOW, (count, CHOICES), generator=random)[part].tolist()
        crops = [self.crop(*choice) for choice in drawn]
        a, b = (as_floats(channels_second(np.stack(side))) for side in zip(*crops, strict=True))
        return a, b

    def crop(self, number: int, top: int, left: int, mirror: int) -> tuple[np.ndarray, np.ndarray]:
        """The crops that are chosen by four numbers, each taken modulo its range: [crop, crop, 3] uint8 each."""
        pair = self.pairs[number % len(self.pairs)]
        images = self.cache.get(pair.name) or self.read(pair)
        side = self.crop_px
        top %= images[0].shape[0] - side + 1
        left %= images[0].shape[1] - side + 1
        step = -1 if mirror % 2 else 1
        a, b = (image[top : top + side, left : left + side][:, ::step] for image in images)
        return a, b


def pairs_in(folder: Path, field: str) -> tuple[list[PairFiles], list[str]]:
    """The pairs in a folder, and what is wrong with the others. Raises InvalidInput for `field` if there can be none."""
    if not folder.is_dir():
        raise InvalidInput(field, f"no folder at {folder}, expected one with pairs of pictures in it")
    there = [side for side in SIDES if (folder / side).is_dir()]
    if len(there) == 1:
        (missing,) = set(SIDES) - set(there)
        raise InvalidInput(field, f"{folder} holds {there[0]}/ and no {missing}/, expected both, or neither")
    if not there:
        named = ((path.relative_to(folder).as_posix(), path) for path in pictures_under(folder, field))
        return [PairFiles(name, path, None) for name, path in named], []
    problems: list[str] = []
    a, b = (dict(by_name(folder / side, field, problems)) for side in SIDES)
    problems += [f"{side}/{name} has no partner in {other}/" for side, other, name in unmatched(a, b)]
    pairs = [PairFiles(name, a[name], b[name]) for name in a if name in b]
    if not pairs:
        raise InvalidInput(field, f"no picture of {folder / 'A'} has the name of one in B: {problems[0]}")
    return pairs, problems


def by_name(folder: Path, field: str, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """The pictures in a folder by their relative paths without suffix. Two of one name are a problem; the first is taken."""
    seen: set[str] = set()
    for path in pictures_under(folder, field):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in seen:
            problems.append(f"{folder.name}/{path.name}: another picture there has the same name")
            continue
        seen.add(name)
        yield name, path


def unmatched(a: dict[str, Path], b: dict[str, Path]) -> Iterator[tuple[str, str, str]]:
    """(side, other side, name) of every picture without a partner."""
    for side, other, mine, theirs in (("A", "B", a, b), ("B", "A", b, a)):
        yield from ((side, other, name) for name in mine if name not in theirs)


def read_paired(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The whole pairs in a folder to measure on, by name, [3, H, W] uint8 each. Raises InvalidInput for every one that is bad."""
    pairs, problems = pairs_in(folder, "validate")
    if problems:
        raise InvalidInput("validate", f"{folder}: {problems[0]}")
    images = {pair.name: pair.read("validate") for pair in pairs}
    return {name: (planes(a), planes(b)) for name, (a, b) in images.items()}


def size(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"
