"""Pictures as arrays through an engine, on the calling thread: for build, evaluation and benchmarks.

The tiles, their order and their values are those of the server; only the scheduler is left out.
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
    """[C, H, W] float32 in [0, 1] → [C', S·H, S·W] float32 in [0, 1], not clipped.

    manifest: the engine's, or one with other tile sizes and another halo, to try them; without tile sizes the picture
    is one window. Raises InvalidInput where the model does not take so large a picture.
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
    """The same with the whole picture as the one window, whatever tiles the bundle has."""
    return run_picture(engine, image, replace(engine.manifest, tile_sizes=(), halo=0))
