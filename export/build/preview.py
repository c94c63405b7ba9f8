"""Draws the bundle's preview.png, which shows what the model does, with the engine that serves it. pipeline.py calls it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from export.build import photographs
from runtime import pixels, tasks
from runtime.backends.base import Engine
from runtime.latents import draw, draw_labels
from runtime.sample_work import run_samples
from runtime.sides import side_within
from runtime.tasks.task import Source
from runtime.tensors import Array
from runtime.tiling.inline import run_picture

# The largest side of the crop, in pixels; slow networks take 10 s for it.
CROP_PX = 128
SAMPLES = 64
# With classes: one column each, this many samples down.
SAMPLES_A_CLASS = 6
COLUMNS = 16


def preview(engine: Engine) -> bytes:
    """A PNG file. A model that takes pictures: a photograph, resized to the output's size, beside the model's output. A
    model that takes latents: a sheet of samples of seed 0.
    """
    return pixels.encode(PREVIEWS[tasks.of(engine.manifest).source](engine), "png")


def _beside_source(engine: Engine) -> Array:
    """[H, 2·W, C] uint8."""
    manifest = engine.manifest
    channels = manifest.inputs[0].shape[1]
    assert isinstance(channels, int), "channels are fixed in every signature"
    side = side_within(manifest, min(CROP_PX, math.isqrt(manifest.max_whole_px or CROP_PX**2)))
    source = photographs.crop(side, side, channels=channels)
    result = _showable(run_picture(engine, source).transpose(1, 2, 0))
    height, width = result.shape[:2]
    bicubic = pixels.resize(np.ascontiguousarray(source.transpose(1, 2, 0)), width, height, kernel="cubic")
    colours = (height, width, max(result.shape[2], _showable(bicubic).shape[2]))
    beside = [np.broadcast_to(picture, colours) for picture in (_showable(bicubic), result)]
    return np.concatenate([pixels.to_uint8(picture) for picture in beside], axis=1)


def _samples(engine: Engine) -> Array:
    """[H, W, C] uint8: a sheet; with classes, one column a class."""
    manifest = engine.manifest
    columns = min(manifest.classes, COLUMNS) or None
    count = columns * SAMPLES_A_CLASS if columns else SAMPLES
    labels = np.arange(count) % columns if columns else draw_labels(0, 0, count, 1)
    samples = run_samples(engine, draw(0, 0, count, manifest.latent_size), labels)
    return pixels.grid([pixels.to_uint8(_showable(sample.transpose(1, 2, 0))) for sample in samples], columns)


def _showable(image: Array) -> Array:
    """[H, W, C] → [H, W, 1 or 3]: what a PNG can hold."""
    return image[:, :, : 3 if image.shape[2] >= 3 else 1]


PREVIEWS: Mapping[Source, Callable[[Engine], Array]] = {"picture": _beside_source, "latents": _samples}
