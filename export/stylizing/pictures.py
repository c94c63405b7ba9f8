"""The pictures of a style transfer: reads content and style, makes the picture to start from, and keeps the content's colours.

export/stylize.py calls it. Tensors are [1, 3, H, W] float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runtime import pixels
from runtime.errors import InvalidInput
from runtime.tensors import Array

MAX_PIXELS = 100_000_000
MAX_SIDE_PX = 4096  # of the pictures that are worked on
LUMA = (0.299, 0.587, 0.114)  # BT.601


def read(field: str, path: Path, size_px: int) -> Tensor:
    """The picture in a file, upright, reduced until its longer side has `size_px`; a smaller one stays as it is.

    Grey becomes three equal channels, transparency is blended with white. Raises InvalidInput for `field` if there is no such
    file, it is no picture or damaged, or has more than MAX_PIXELS.
    """
    try:
        image = pixels.decode(path.read_bytes(), max_pixels=MAX_PIXELS)
    except OSError as error:
        raise InvalidInput(field, f"{path} cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidInput(field, f"{path.name} cannot be used: {error.problem}") from error
    scale = min(1, size_px / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return as_tensor(resized(image, width, height))


def check_size(field: str, picture: Tensor, least_px: int) -> None:
    """Raises InvalidInput for `field` if a side is shorter than `least_px`."""
    height, width = picture.shape[2:]
    if min(height, width) < least_px:
        raise InvalidInput(
            field,
            f"is {width}×{height} px at this size, expected {least_px} px a side or more, because VGG19 reduces it; "
            "give a larger picture, or raise --size",
        )


def resized(image: Array, width: int, height: int) -> Array:
    return image if image.shape[:2] == (height, width) else pixels.resize(image, width, height)


def as_tensor(image: Array) -> Tensor:
    """[H, W, 3] uint8 → [1, 3, H, W]."""
    return torch.from_numpy(pixels.to_float(image))[None]


def as_image(picture: Tensor) -> Array:
    """[1, 3, H, W] → [H, W, 3] uint8."""
    return np.ascontiguousarray(pixels.to_uint8(picture[0].numpy()).transpose(1, 2, 0))


def noise(content: Tensor, style: Tensor, seed: int) -> Tensor:
    """Uniform noise of the content's size."""
    return torch.rand(content.shape, generator=torch.Generator().manual_seed(seed))


# What the optimisation can start from, besides a file: functions of the content, the style and the seed.
STARTS: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "content": lambda content, style, seed: content,
    "noise": noise,
    "style": lambda content, style, seed: style,
}


def start(source: str, content: Tensor, style: Tensor, seed: int) -> Tensor:
    """The picture that the optimisation starts from, with the content's size.

    source: one of STARTS, or the path of a picture. Raises InvalidInput, as `read` does.
    """
    made = STARTS.get(source)
    picture = made(content, style, seed) if made else read("from", Path(source), MAX_SIDE_PX)
    if picture.shape == content.shape:
        return picture
    height, width = content.shape[2:]
    return as_tensor(resized(as_image(picture), width, height))


def luma(picture: Tensor) -> Tensor:
    """[N, 3, H, W] → [N, 1, H, W]."""
    return (picture * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def without_colours(content: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Both pictures in grey, the style's with the mean and contrast of the content's (Gatys et al. 2016, arXiv 1606.05897)."""
    grey, paint = luma(content), luma(style)
    paint = (paint - paint.mean()) * (grey.std() / paint.std().clamp_min(1e-3)) + grey.mean()
    return grey.expand_as(content).contiguous(), paint.clamp(0, 1).expand_as(style).contiguous()


def with_colours_of(content: Tensor, picture: Tensor) -> Tensor:
    """The content with the luminance of `picture`: its colour differences stay as they are."""
    return (content + luma(picture) - luma(content)).clamp(0, 1)
