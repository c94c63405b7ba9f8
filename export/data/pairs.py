"""Reads whole pictures with their ×S reductions, by name, to measure super-resolution on. The ESRGAN recipes call
`read_held_out`, the evaluation `read_pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from export.data.pictures import pictures_under, planes, read_picture
from export.data.resize import resize
from runtime.errors import InvalidInput


@dataclass(frozen=True)
class Pair:
    """A picture and its reduction: high [C, S·H, S·W] uint8, low [C, H, W] uint8."""

    high: Tensor
    low: Tensor


def read_held_out(folder: Path, scale: int) -> dict[str, Pair]:
    """The pairs in `folder`: as in Set5, in `HR/` and `LR_bicubic/X<scale>/`, or plain pictures, which are reduced here."""
    if (folder / "HR").is_dir():
        return read_pairs(folder / "HR", folder / "LR_bicubic" / f"X{scale}", scale)
    return read_pairs(folder, None, scale)


def read_pairs(high: Path, low: Path | None, scale: int) -> dict[str, Pair]:
    """A pair for every picture in the folder `high`, by the picture's relative path without its suffix.

    low: the folder of the reductions, called NAMEx<scale>.png or as the picture. None computes them, bicubic, from the
    picture cropped to a multiple of `scale`. Raises InvalidInput naming a picture whose reduction is missing or has the
    wrong size: without that picture the measured mean would be another.
    """
    reductions = {path.stem: path for path in pictures_under(low, "validate")} if low else {}
    pairs = {}
    for path in pictures_under(high, "validate"):
        image = read_picture(path)
        if low is None:
            small = reduced(path.name, image, scale)
        else:
            reduction = reductions.get(f"{path.stem}x{scale}") or reductions.get(path.stem)
            if reduction is None:
                raise InvalidInput(
                    "validate", f"no reduction of {path.name} in {low}, expected {path.stem}x{scale}.png"
                )
            small = read_picture(reduction)
        name = path.relative_to(high).with_suffix("").as_posix()
        pairs[name] = pair(path.name, image, small, scale)
    return pairs


def reduced(name: str, image: np.ndarray, scale: int) -> np.ndarray:
    height, width = (length // scale * scale for length in image.shape[:2])
    if not height or not width:
        got = f"{image.shape[1]}×{image.shape[0]} px"
        raise InvalidInput("validate", f"{name} is {got}, expected {scale} px a side or more")
    return resize(image[:height, :width], 1 / scale)


def pair(name: str, image: np.ndarray, small: np.ndarray, scale: int) -> Pair:
    """`image` cropped to `scale` times the size of `small`; both [H, W, 3] uint8."""
    height, width = (length * scale for length in small.shape[:2])
    if not (0 <= image.shape[0] - height < scale and 0 <= image.shape[1] - width < scale):
        got = f"{image.shape[1]}×{image.shape[0]} px, its reduction {small.shape[1]}×{small.shape[0]} px"
        raise InvalidInput("validate", f"{name} is {got}; expected {scale} times the reduction's size")
    return Pair(planes(image[:height, :width]), planes(small))
