"""Crops: random crops of pictures with their ×S reductions. The super-resolution recipes draw their batches from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.data.degradation import Reduction
from export.data.pictures import as_floats, decode_all, pictures_under, read_picture
from export.data.resize import resized_part
from runtime.errors import InvalidInput

GIB = 2**30
# Drawing below this, modulo a range of at most 2**22, is uniform to one part in 2**40.
DRAWN_BELOW = 2**62


class Crops:
    """Aligned low- and high-resolution crops of every picture in a folder and its subfolders. Thread-safe.

    reduction: makes the low-resolution crops; None for MATLAB's bicubic reduction.
    scale: S, high-resolution pixels per low-resolution pixel along a side. patch_px: side of the low-resolution crops.
    cache_gib: memory for decoded pictures; those beyond it are decoded again for each crop, so that any dataset fits.
    names: of the pictures in use. sizes: the range of their sides, in words. skipped: the reasons why others cannot be
    decoded or are too small. Raises InvalidInput if no picture can be used.

    Low-resolution crops are computed when needed, from the pixels under them (1 to 2 ms for 36 px at scale 4). They equal,
    bit for bit, a crop of the whole picture's reduction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scale: int,
        patch_px: int,
        cache_gib: float = 8.0,
        reduction: Reduction | None = None,
    ) -> None:
        self.scale, self.patch_px, self.reduction = scale, patch_px, reduction
        self.paths: list[Path] = []
        self.cache: dict[Path, np.ndarray] = {}  # [S·H, S·W, 3] uint8
        left_bytes, skipped = cache_gib * GIB, []
        sides: set[int] = set()
        paths = pictures_under(folder)
        # Every file is decoded now, even if it cannot be kept, so that a damaged one is noticed before the run starts.
        for path, image in zip(paths, decode_all(paths, self.read), strict=True):
            if isinstance(image, InvalidInput):
                skipped.append(image.problem)
                continue
            self.paths.append(path)
            sides |= set(image.shape[:2])
            if image.nbytes <= left_bytes:
                self.cache[path] = image
                left_bytes -= image.nbytes
        self.names = tuple(path.relative_to(folder).as_posix() for path in self.paths)
        self.skipped = tuple(skipped)
        if not self.names:
            raise InvalidInput("data", f"no picture of {folder} can be used: {skipped[0]}")
        self.sizes = f"{min(sides)} to {max(sides)} px a side"

    def batch(
        self, random: torch.Generator, count: int, *, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """The rows `part` of a batch of `count` random crops, each rotated and mirrored at random.

        A row depends only on `random` and `count`, so that processes can share a batch. Returns
        low [N, 3, patch, patch] and high [N, 3, S·patch, S·patch], float32 in [0, 1], channels last.
        """
        drawn = torch.randint(DRAWN_BELOW, (count, 5 if self.reduction else 4), generator=random)[
            part
        ].tolist()
        low, high = (
            np.empty((len(drawn), side, side, 3), np.uint8)
            for side in (self.patch_px, self.scale * self.patch_px)
        )
        for row, choice in enumerate(drawn):
            low[row], high[row] = self.crop(*choice)
        return as_floats(channels_second(low)), as_floats(channels_second(high))

    def crop(
        self, picture: int, top: int, left: int, turn: int, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The crop that is chosen by four numbers, each taken modulo its range. seed: for `reduction`.

        Returns low [patch, patch, 3] and high [S·patch, S·patch, 3], uint8.
        """
        path = self.paths[picture % len(self.paths)]
        image = self.cache[path] if path in self.cache else self.read(path)
        side, scale = self.patch_px, self.scale
        top %= image.shape[0] // scale - side + 1
        left %= image.shape[1] // scale - side + 1
        place = range(top, top + side), range(left, left + side)
        low = (
            self.reduction(image, *place, seed) if self.reduction else resized_part(image, 1 / scale, *place)
        )
        rows, columns = (slice(scale * start, scale * (start + side)) for start in (top, left))
        return turned(low, turn % 8), turned(image[rows, columns], turn % 8)

    def read(self, path: Path) -> np.ndarray:
        """A picture cropped to a multiple of the scale, [S·H, S·W, 3] uint8.

        Raises InvalidInput if it cannot be decoded or is smaller than a crop.
        """
        image = read_picture(path)
        height, width = (length // self.scale * self.scale for length in image.shape[:2])
        least = self.scale * self.patch_px
        if min(height, width) < least:
            got = f"{image.shape[1]}×{image.shape[0]}"
            raise InvalidInput("data", f"{path.name} is {got}, expected {least} px a side or more")
        return image[:height, :width]


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """[H, W, C] mirrored if `turn` is odd, then rotated by turn // 2 quarter turns."""
    quarters, mirror = divmod(turn, 2)
    return np.rot90(image[:, ::-1] if mirror else image, quarters)


def channels_second(images: np.ndarray) -> Tensor:
    """[N, H, W, C] → [N, C, H, W], a view of the same memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
