"""What a bundle does, as a picture: made through the engine that serves it."""

from __future__ import annotations

import numpy as np

from export.build import photographs
from runtime import pixels
from runtime.backends.base import Engine
from runtime.latents import draw, draw_labels
from runtime.tensors import Array
from runtime.tiling import run_tiled

# A crop of this many pixels a side; slow networks take 10 s for it.
CROP_PX = 128
SAMPLES = 64
# With classes: one column each, this many samples down.
SAMPLES_A_CLASS = 6
COLUMNS = 16


def preview(engine: Engine) -> bytes:
    """A PNG: bicubic beside upscaled, or a sheet of samples of seed 0."""
    return pixels.encode(
        _beside_bicubic(engine) if engine.manifest.task == "upscale" else _samples(engine), "png"
    )


def _beside_bicubic(engine: Engine) -> Array:
    """[H, 2·W, C] uint8."""
    manifest = engine.manifest
    channels = manifest.inputs[0].shape[1]
    assert isinstance(channels, int), "channels are fixed in every signature"
    image = photographs.crop(CROP_PX, CROP_PX, channels=channels)
    tile = manifest.tile_sizes[0]
    upscaled = run_tiled(engine, image, tile=tile, halo=manifest.halo)
    side = CROP_PX * manifest.scale
    bicubic = pixels.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), side, side, kernel="cubic")
    low, high = manifest.outputs[0].range or (0.0, 1.0)
    found = pixels.to_uint8(_showable(upscaled.transpose(1, 2, 0)), low, high)
    return np.concatenate((pixels.to_uint8(_showable(bicubic)), found), axis=1)


def _samples(engine: Engine) -> Array:
    """[H, W, C] uint8: a sheet; with classes, one column a class."""
    manifest = engine.manifest
    columns = min(manifest.classes, COLUMNS) or None
    count = columns * SAMPLES_A_CLASS if columns else SAMPLES
    labels = np.arange(count) % columns if columns else draw_labels(0, 0, count, 1)
    given = {"float32": draw(0, 0, count, manifest.latent_size), "int64": labels.astype(np.int64)}
    inputs = {spec.name: given[spec.dtype] for spec in manifest.inputs}
    batches = [
        {name: array[first : first + engine.max_batch] for name, array in inputs.items()}
        for first in range(0, count, engine.max_batch)
    ]
    output = manifest.outputs[0]
    samples = np.concatenate([engine.run(batch)[output.name] for batch in batches])
    low, high = output.range or (-1.0, 1.0)
    return pixels.grid(
        [pixels.to_uint8(_showable(sample.transpose(1, 2, 0)), low, high) for sample in samples], columns
    )


def _showable(image: Array) -> Array:
    """[H, W, C] → [H, W, 1 or 3]: what a PNG can hold."""
    return image[:, :, : 3 if image.shape[2] >= 3 else 1]
