"""Requests checked once: what a caller asked for, as plain values that cannot be wrong any more.

Every function raises InvalidInput with the request's field, what came and what was expected.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protos import ganforge_pb2 as pb
from runtime import latents as draws
from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.pictures.forms import WRITABLE, Encoding
from runtime.pictures.reading import Header
from server import formats
from server.limits import MAX_LATENT, Limits


@dataclass(frozen=True)
class UpscaleOrder:
    """One upscaled image. width, height: px of the answer; encoding: how it is written."""

    width: int
    height: int
    encoding: Encoding


@dataclass(frozen=True)
class GenerateOrder:
    """Samples to draw. latents: [count, Z] float32; labels: [count] int64, empty where the model has no classes.

    seed: what they were drawn from, 0 where nothing was drawn.
    """

    count: int
    seed: int
    latents: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    width: int
    height: int
    format: str


def upscale_order(
    request: pb.UpscaleRequest, header: Header, manifest: Manifest, limits: Limits
) -> UpscaleOrder:
    """Everything about the answer that the image's header tells, before any pixel is decoded."""
    scale = request.outscale if request.HasField("outscale") else float(manifest.scale)
    if not 0 < scale < math.inf:  # NaN fails the comparison
        raise InvalidInput("outscale", f"got {scale}, expected a finite factor above 0")
    # The limit below is on whole pixels; a float that no limit allows need not become one.
    width, height = (max(1, round(min(side * scale, 1e18))) for side in (header.width, header.height))
    # The canvas is the model's own scale, whatever is made of it afterwards.
    canvas = header.pixels * manifest.scale**2
    if max(canvas, width * height) > limits.max_output_pixels:
        raise InvalidInput(
            "image" if canvas > limits.max_output_pixels else "outscale",
            f"{header.width}×{header.height} pixels become {max(canvas, width * height)}, the limit of "
            f"--max-output-pixels is {limits.max_output_pixels}; send the image in parts, or a smaller one",
        )
    asked = asked_format(request.format)
    chosen = asked or (header.format if _can_hold(header.format, width, height) else "png")
    encoding = Encoding(
        chosen,
        quality=request.quality if request.HasField("quality") else None,
        lossless=request.lossless,
        compression=request.compression if request.HasField("compression") else None,
    )
    encoding.check_size(width, height)
    return UpscaleOrder(width, height, encoding)


def generate_order(request: pb.GenerateRequest, manifest: Manifest, limits: Limits) -> GenerateOrder:
    """Checks a request and draws its latents and labels."""
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
    drawn = not request.latents or (manifest.classes > 0 and not request.labels)
    if request.latents and request.HasField("seed"):
        raise InvalidInput("seed", "came together with latents; give one of the two")
    seed = request.seed if request.HasField("seed") else secrets.randbits(64) if drawn else 0
    return GenerateOrder(
        count=count,
        seed=seed,
        latents=_latents(request, seed, manifest.latent_size),
        labels=_labels(request.labels, count, seed, manifest),
        width=width,
        height=height,
        format=asked_format(request.format) or "png",
    )


def sample_shape(manifest: Manifest) -> tuple[int, int, int]:
    """(channels, height, width) of what a model generates."""
    channels, height, width = (int(axis) for axis in manifest.outputs[0].shape[1:])
    return channels, height, width


def asked_format(number: pb.ImageFormat) -> str | None:
    """The format's name, or None where the caller left it to us."""
    if number == pb.IMAGE_FORMAT_UNSPECIFIED:
        return None
    if number not in formats.NAMES:
        raise InvalidInput("format", f"got {number}, expected one of {', '.join(pb.ImageFormat.keys())}")
    return formats.NAMES[number]


def _can_hold(format: str, width: int, height: int) -> bool:
    return format in WRITABLE and max(width, height) <= WRITABLE[format].longest


def _latents(request: pb.GenerateRequest, seed: int, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[count, size] float32."""
    truncation = request.truncation if request.HasField("truncation") else None
    if not request.latents:
        if truncation is not None and not 0 < truncation < math.inf:
            raise InvalidInput("truncation", f"got {truncation}, expected a finite number above 0")
        return draws.draw(seed, 0, request.count, size, truncation)
    if truncation is not None:
        raise InvalidInput(
            "truncation", "came together with latents; it only bounds latents drawn from a seed"
        )
    if len(request.latents) != request.count:
        raise InvalidInput("latents", f"got {len(request.latents)} latents, expected count = {request.count}")
    for index, latent in enumerate(request.latents):
        if len(latent.values) != size:
            raise InvalidInput(f"latents[{index}]", f"got {len(latent.values)} values, expected {size}")
    values = np.array([latent.values for latent in request.latents], np.float32)
    if not (np.abs(values) <= MAX_LATENT).all():  # NaN fails the comparison
        row, column = np.argwhere(~(np.abs(values) <= MAX_LATENT))[0]
        raise InvalidInput(
            f"latents[{row}]",
            f"value {column} is {values[row, column]}, expected a finite number within ±{MAX_LATENT:g}",
        )
    return values


def _labels(
    asked: Sequence[int], count: int, seed: int, manifest: Manifest
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[count] int64, or empty where there are no classes."""
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
    if max(asked) >= classes:
        names = f" ({_named(manifest.class_names)})" if manifest.class_names else ""
        raise InvalidInput("labels", f"got {max(asked)}, expected 0 to {classes - 1}{names}")
    return np.resize(np.array(asked, np.int64), count)


def _named(names: Sequence[str]) -> str:
    listed = [f"{index} {name}" for index, name in enumerate(names[:10])]
    return ", ".join(listed) + (", …" if len(names) > 10 else "")
