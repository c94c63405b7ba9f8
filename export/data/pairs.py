"""Whole pictures with their ×S reductions, which super-resolution is measured on; recipes and the evaluation read them."""

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
    """Set5's layout, `HR/` and `LR_bicubic/X<scale>/`; a folder of plain pictures is reduced here."""
    if (folder / "HR").is_dir():
        return read_pairs(folder / "HR", folder / "LR_bicubic" / f"X{scale}", scale)
    return read_pairs(folder, None, scale)


def read_pairs(high: Path, low: Path | None, scale: int) -> dict[str, Pair]:
    """Every picture of the folder `high`, by its path in there without the ending.

    low: the folder of their reductions, NAMEx<scale>.png or of the same name; None to compute them, bicubic, from the
    pictures cropped to a multiple of `scale`. Raises InvalidInput naming a picture without a reduction, or whose size
    does not fit it: leaving it out would change the figure.
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
        got = f"{image.shape[1]}×{image.shape[0]} px, its reduction {small.shape[1]}×{small.shape[0]}"
        raise InvalidInput("validate", f"{name} is {got}; expected it {scale} times as large")
    return Pair(planes(image[:height, :width]), planes(small))
