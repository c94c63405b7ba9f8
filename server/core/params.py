"""Validates requests: turns an ImageRequest or SamplesRequest into parameters that need no further checks.

server/core/images.py calls `image_params` after a picture's header is read and before its pixels are decoded, and
server/core/samples.py calls `sample_params` before anything is drawn. Both raise InvalidInput naming the field, the value
and what was expected.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime import latents as draws
from runtime import tasks
from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.pictures.formats import WRITABLE, Encoding
from runtime.pictures.reading import Header
from runtime.sample_work import sample_shape
from server.core.requests import ImageRequest, SamplesRequest
from server.limits import MAX_LATENT, Limits

# Sides are clamped to it before they are rounded to integers. It is over every limit anyway.
LARGEST_SIDE_PX = 1e18
NAMES_LISTED = 10  # class names in an error message


@dataclass(frozen=True)
class ImageParams:
    """The answer to a picture: width and height in px, and the encoding of its file."""

    width: int
    height: int
    encoding: Encoding


@dataclass(frozen=True)
class SampleParams:
    """Samples to draw.

    latents: [count, Z] float32. labels: [count] int64, empty if the model has no classes.
    seed: the seed of latents and labels, 0 if the caller gave both. width, height: of a sample, in px.
    """

    count: int
    seed: int
    latents: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    width: int
    height: int
    encoding: Encoding


def image_params(request: ImageRequest, header: Header, manifest: Manifest, limits: Limits) -> ImageParams:
    """Validate a request and compute the answer's size and encoding. header: of the input picture.

    Raises InvalidInput.
    """
    outscale = _outscale(request, manifest)
    width, height = (
        max(1, round(min(side * outscale, LARGEST_SIDE_PX))) for side in (header.width, header.height)
    )
    # The network's output has this size, before it is resized to the size asked for.
    output_px = header.pixels * manifest.scale**2
    if max(output_px, width * height) > limits.max_output_pixels:
        raise InvalidInput(
            "image" if output_px > limits.max_output_pixels else "outscale",
            f"{header.width}×{header.height} pixels become {max(output_px, width * height)}, the limit of "
            f"--max-output-pixels is {limits.max_output_pixels}; send a smaller image, or parts of it",
        )
    kept = header.format if _can_hold(header.format, width, height) else "png"
    encoding = Encoding(
        request.format or kept,
        quality=request.quality,
        lossless=request.lossless,
        compression=request.compression,
    )
    encoding.check_size(width, height)
    return ImageParams(width, height, encoding)


def sample_params(request: SamplesRequest, manifest: Manifest, limits: Limits) -> SampleParams:
    """Validate a request, and draw the latents and labels that the caller did not give. Raises InvalidInput."""
    count = request.count
    if not 1 <= count <= limits.max_count:
        raise InvalidInput("count", f"got {count}, expected 1 to {limits.max_count} (--max-count)")
    _, height, width = sample_shape(manifest)
    if count * height * width > limits.max_output_pixels:
        raise InvalidInput(
            "count",
            f"{count} samples of {width}×{height} are {count * width * height} pixels, the limit of "
            f"--max-output-pixels is {limits.max_output_pixels}",
        )
    if request.latents and request.seed is not None:
        raise InvalidInput("seed", "was given together with latents; give only one of them")
    draws_something = not request.latents or (manifest.classes > 0 and not request.labels)
    drawn_from = secrets.randbits(64) if draws_something else 0
    seed = drawn_from if request.seed is None else request.seed
    return SampleParams(
        count=count,
        seed=seed,
        latents=_latents(request, seed, manifest.latent_size),
        labels=_labels(request.labels, count, seed, manifest),
        width=width,
        height=height,
        encoding=Encoding(request.format or "png"),
    )


def _outscale(request: ImageRequest, manifest: Manifest) -> float:
    """Output pixels per input pixel along a side."""
    if request.outscale is None:
        return float(manifest.scale)
    if not tasks.of(manifest).outscale:
        raise InvalidInput(
            "outscale",
            f"got {request.outscale}, expected none: the output size of {manifest.name} cannot be changed",
        )
    if not 0 < request.outscale < math.inf:  # NaN fails the comparison
        raise InvalidInput("outscale", f"got {request.outscale}, expected a finite factor above 0")
    return request.outscale


def _can_hold(format: str, width: int, height: int) -> bool:
    return format in WRITABLE and max(width, height) <= WRITABLE[format].longest


def _latents(request: SamplesRequest, seed: int, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[count, size] float32."""
    if not request.latents:
        if request.truncation is not None and not 0 < request.truncation < math.inf:
            raise InvalidInput("truncation", f"got {request.truncation}, expected a finite number above 0")
        return draws.draw(seed, 0, request.count, size, request.truncation)
    if request.truncation is not None:
        raise InvalidInput(
            "truncation", "was given together with latents; it applies only to latents drawn from a seed"
        )
    if len(request.latents) != request.count:
        raise InvalidInput("latents", f"got {len(request.latents)} latents, expected count = {request.count}")
    for index, values in enumerate(request.latents):
        if len(values) != size:
            raise InvalidInput(f"latents[{index}]", f"got {len(values)} values, expected {size}")
    latents = np.array(request.latents, np.float32)
    outside = ~(np.abs(latents) <= MAX_LATENT)  # NaN fails the comparison
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise InvalidInput(
            f"latents[{row}]",
            f"value {column} is {latents[row, column]}, expected a finite number within ±{MAX_LATENT:g}",
        )
    return latents


def _labels(
    asked: Sequence[int], count: int, seed: int, manifest: Manifest
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[count] int64, or empty if the model has no classes."""
    classes = manifest.classes
    if not classes:
        if asked:
            raise InvalidInput(
                "labels", f"got {len(asked)} labels, but {manifest.name!r} has no classes; give none"
            )
        return np.empty(0, np.int64)
    if not asked:
        return draws.draw_labels(seed, 0, count, classes)
    if len(asked) not in (1, count):
        raise InvalidInput("labels", f"got {len(asked)} labels, expected none, 1 or count = {count}")
    if not all(0 <= label < classes for label in asked):
        wrong = next(label for label in asked if not 0 <= label < classes)
        names = f" ({_listed(manifest.class_names)})" if manifest.class_names else ""
        raise InvalidInput("labels", f"got {wrong}, expected 0 to {classes - 1}{names}")
    return np.resize(np.array(asked, np.int64), count)


def _listed(names: Sequence[str]) -> str:
    listed = [f"{index} {name}" for index, name in enumerate(names[:NAMES_LISTED])]
    return ", ".join(listed) + (", …" if len(names) > NAMES_LISTED else "")
