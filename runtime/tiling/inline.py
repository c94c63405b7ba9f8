"""Runs pictures (arrays) through an engine on the calling thread, for build, evaluation and benchmarks.

Tiles, their order and values are the same as in the server; only the scheduler is left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runtime.backends.base import Engine
from runtime.jobs import run_inline
from runtime.manifest import Manifest
from runtime.pictures.formats import PixelFormat
from runtime.tensors import Array
from runtime.tiling.tiled_picture import TiledPicture


def run_picture(engine: Engine, image: Array, manifest: Manifest | None = None) -> Array:
    """Run a picture tile by tile: [C, H, W] float32 in [0, 1] → [C', S·H, S·W] float32, nominally in [0, 1], not clipped.

    manifest: None for the engine's; or one with other tile sizes and halo, to try them. Without tile sizes the picture is
    a single window. Raises InvalidInput if the picture is too large for a model that takes whole pictures.
    """
    channels, height, width = image.shape
    picture = TiledPicture(
        engine,
        manifest or engine.manifest,
        height=height,
        width=width,
        pixel_format=PixelFormat(colours=channels, bits=32),
        dtype=np.dtype(np.float32),
    )
    picture.begin(0, image)
    run_inline(picture.job(0))
    return picture.finish(0).transpose(2, 0, 1)


def run_whole(engine: Engine, image: Array) -> Array:
    """As `run_picture`, with the whole picture as a single window, whatever the bundle's tile sizes."""
    return run_picture(engine, image, replace(engine.manifest, tile_sizes=(), halo=0))
