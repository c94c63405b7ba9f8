"""Upscalers against originals: PSNR and SSIM by the papers' protocol, and a perceptual distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.data import Pair, read_pairs
from export.evaluation.metrics import inside, luma, psnr_db, ssim
from export.evaluation.progress import followed
from export.evaluation.subjects import Subject
from export.networks.features import Features
from runtime.errors import InvalidInput
from runtime.pixels import to_float
from runtime.tensors import Array

Distance = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Quality:
    """How near one picture came. perceptual: mean absolute difference of the features, None where none were asked."""

    psnr_y_db: float
    ssim_y: float
    psnr_rgb_db: float
    ssim_rgb: float
    perceptual: float | None = None


def originals(high: Path, low: Path | None, scale: int) -> dict[str, Pair]:
    """Every picture of the folder `high` with its reduction: from the folder `low`, or made where that is None.

    Raises InvalidInput naming a picture that cannot be read or does not fit its reduction.
    """
    try:
        return read_pairs(high, low, scale)
    except InvalidInput as error:
        raise InvalidInput("hr", error.problem) from error


def measure(
    subject: Subject, pairs: Mapping[str, Pair], distance: Distance | None = None
) -> dict[str, Quality]:
    """Upscale and compare each of `pairs`; the border that does not count is as wide as the scale, in pixels."""
    return {
        name: compare(
            subject.upscale(image(pairs[name].low)), image(pairs[name].high), subject.scale, distance
        )
        for name in followed(list(pairs), f"upscaling with {subject.name}")
    }


def compare(upscaled: Array, truth: Array, border_px: int, distance: Distance | None = None) -> Quality:
    """Two [H, W, 3] uint8 pictures of one size. distance: of two such pictures, without their borders."""
    if upscaled.shape != truth.shape:
        got, expected = (f"{one.shape[1]}×{one.shape[0]} px" for one in (upscaled, truth))
        raise InvalidInput("subject", f"gave {got}, expected {expected}")
    grey = luma(upscaled), luma(truth)
    return Quality(
        psnr_y_db=psnr_db(*grey, border_px),
        ssim_y=ssim(*grey, border_px),
        psnr_rgb_db=psnr_db(upscaled, truth, border_px),
        ssim_rgb=ssim(upscaled, truth, border_px),
        perceptual=distance(inside(upscaled, border_px), inside(truth, border_px)) if distance else None,
    )


def mean(qualities: Mapping[str, Quality]) -> Quality:
    """The mean over pictures of each figure."""
    columns = {name: [asdict(one)[name] for one in qualities.values()] for name in measured(qualities)}
    return Quality(**{name: float(np.mean(values)) for name, values in columns.items()})


def measured(qualities: Mapping[str, Quality]) -> list[str]:
    """The names of the figures that there are."""
    first = next(iter(qualities.values()))
    return [field.name for field in fields(Quality) if getattr(first, field.name) is not None]


def perceptual_distance(features: Features) -> Distance:
    """The mean absolute difference of two pictures' features, as ESRGAN's perceptual loss takes it."""

    @torch.inference_mode()
    def distance(image: Array, reference: Array) -> float:
        pair = [features(torch.from_numpy(to_float(one))[None]) for one in (image, reference)]
        return float((pair[0] - pair[1]).abs().mean())

    return distance


def image(planes: Tensor) -> Array:
    """[C, H, W] → [H, W, C]."""
    return planes.permute(1, 2, 0).numpy()
