"""Measures networks that take a picture: compares their answers with originals by PSNR, SSIM and a perceptual distance.

measures.py and benchmarks/figures.py call `pairs` to read the pictures, `measure` for the Quality of a Subject's answer to
each, and `mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.data import Pair, planes, read_pairs, saved_as_jpeg
from export.evaluation.metrics import inside, luma, psnr_db, ssim
from export.evaluation.progress import with_progress
from export.evaluation.subjects import Subject
from export.networks.features import Features
from runtime.errors import InvalidInput
from runtime.pixels import to_float
from runtime.tensors import Array

Distance = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Quality:
    """How near an answer is to the original. perceptual: mean absolute difference of features; None if not measured."""

    psnr_y_db: float
    ssim_y: float
    psnr_rgb_db: float
    ssim_rgb: float
    perceptual: float | None = None


def pairs(originals: Path, inputs: Path | None, subject: Subject, jpeg: int | None = None) -> dict[str, Pair]:
    """Every picture in the folder `originals` and the network's input for it, by the picture's name.

    inputs: the folder of the inputs. None makes them by reducing the originals, which works only for upscalers.
    jpeg: save each input as JPEG of this quality (4:2:0) first.
    Raises InvalidInput naming a picture that cannot be read, or whose input is missing or of the wrong size.
    """
    if inputs is None and not subject.task.outscale:
        raise InvalidInput(
            "lr",
            f"is missing; {subject.name} is for the task {subject.task.name}, whose inputs cannot be made from --hr: "
            "give the folder of its inputs",
        )
    try:
        found = read_pairs(originals, inputs, subject.scale)
    except InvalidInput as error:
        raise InvalidInput("hr", error.problem) from error
    if jpeg is None:
        return found
    return {
        name: replace(pair, low=planes(saved_as_jpeg(as_image(pair.low), jpeg)))
        for name, pair in found.items()
    }


def measure(
    subject: Subject, pictures: Mapping[str, Pair], distance: Distance | None = None
) -> dict[str, Quality]:
    """The Quality of the subject's answer to each of `pictures`, by name. A border as wide as the scale is left out.

    distance: also measured, if given. Raises InvalidInput if an answer has the wrong size.
    """
    qualities = {}
    for name in with_progress(list(pictures), f"running {subject.name}"):
        pair = pictures[name]
        answer = subject.convert(as_image(pair.low))
        qualities[name] = compare(answer, as_image(pair.high), subject.scale, distance)
    return qualities


def compare(answer: Array, original: Array, border_px: int, distance: Distance | None = None) -> Quality:
    """The Quality of `answer`, both [H, W, 3] uint8. Raises InvalidInput if their sizes differ.

    distance: called with both pictures without their borders.
    """
    if answer.shape != original.shape:
        got, expected = (f"{image.shape[1]}×{image.shape[0]} px" for image in (answer, original))
        raise InvalidInput("subject", f"answered with {got}, expected {expected}")
    grey = luma(answer), luma(original)
    return Quality(
        psnr_y_db=psnr_db(*grey, border_px),
        ssim_y=ssim(*grey, border_px),
        psnr_rgb_db=psnr_db(answer, original, border_px),
        ssim_rgb=ssim(answer, original, border_px),
        perceptual=distance(inside(answer, border_px), inside(original, border_px)) if distance else None,
    )


def mean(qualities: Mapping[str, Quality]) -> Quality:
    """The mean of each figure over the pictures."""
    return Quality(
        **{
            name: float(np.mean([getattr(quality, name) for quality in qualities.values()]))
            for name in measured(qualities)
        }
    )


def measured(qualities: Mapping[str, Quality]) -> list[str]:
    """The names of the figures that were measured."""
    first = asdict(next(iter(qualities.values())))
    return [field.name for field in fields(Quality) if first[field.name] is not None]


def perceptual_distance(features: Features, device: torch.device) -> Distance:
    """A function that gives the mean absolute difference of two pictures' features, as in ESRGAN's perceptual loss.

    It takes pictures as [H, W, 3] uint8.
    """
    features = features.to(device)

    @torch.inference_mode()
    def distance(image: Array, reference: Array) -> float:
        seen, expected = (
            features(torch.from_numpy(to_float(picture))[None].to(device)) for picture in (image, reference)
        )
        return float((seen - expected).abs().mean())

    return distance


def as_image(planes: Tensor) -> Array:
    """[C, H, W] → [H, W, C]."""
    return planes.permute(1, 2, 0).numpy()
