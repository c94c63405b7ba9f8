"""A tiny upscaler that each backend must run and whose answer is known. models.py calls `tiny_bundle` and `difference`.

tiny_upscaler.onnx is a 3×3 mean over each channel and then every pixel twice along each side. tests/server/test_doctor.py
builds the same graph and compares.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from runtime.backends.base import Engine
from runtime.backends.precisions import SIGNIFICAND_BITS
from runtime.bundle import GRAPH, Bundle, Writer
from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec

GRAPH_FILE = Path(__file__).with_name("tiny_upscaler.onnx")
SIDE_PX, SCALE, HALO_PX = 16, 2, 1


def tiny_bundle(folder: Path) -> Bundle:
    """Write the tiny upscaler as a bundle into `folder`."""
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))
    manifest = Manifest(
        "self-test",
        "upscale",
        "float32",
        (image,),
        (upscaled,),
        scale=SCALE,
        halo=HALO_PX,
        tile_sizes=(SIDE_PX,),
    )
    with Writer(folder, manifest.name) as writer:
        shutil.copyfile(GRAPH_FILE, writer.path / GRAPH)
        return writer.commit(manifest)


def picture() -> Array:
    """The self-test's picture: [1, 3, H, W] float32 in [0, 1], a gradient with an edge."""
    ramp = np.linspace(0, 1, 3 * SIDE_PX * SIDE_PX, dtype=np.float32).reshape(1, 3, SIDE_PX, SIDE_PX)
    ramp[..., SIDE_PX // 2 :] = 1 - ramp[..., SIDE_PX // 2 :]
    return ramp


def expected() -> Array:
    """What the tiny upscaler makes of `picture`: [1, 3, 2H, 2W] float32."""
    padded = np.pad(picture(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    mean: Array = windows.mean(axis=(-2, -1))
    return mean.repeat(SCALE, axis=2).repeat(SCALE, axis=3)


def difference(engine: Engine) -> tuple[float, float]:
    """The largest difference of an engine's answer from the expected one, and how much its precision allows."""
    answer = engine.run({"image": picture()})["upscaled"]
    # Values are at most 1; nine products and eight sums round once each.
    allowed = 17 * 2.0 ** -SIGNIFICAND_BITS[engine.precision]
    return float(np.abs(answer - expected()).max()), allowed
