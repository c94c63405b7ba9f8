"""What the bare engine does without a server around it, and what the codecs cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.load import Loop, Measured, direct
from export.build import photographs
from runtime import pixels
from runtime.backends.base import Engine
from runtime.backends.openvino_backend import compile_graph
from runtime.latents import draw, draw_labels
from runtime.tensors import Array
from runtime.tiling.canvas import Canvas
from runtime.tiling.geometry import Span, Tile


def photograph(height: int, width: int) -> Array:
    """[3, H, W] float32 in [0, 1]: a photograph that ships, mirrored where it is too small."""
    return photographs.crop(height, width)


def png(image: Array) -> bytes:
    """[3, H, W] float32 → a PNG file."""
    return pixels.encode(pixels.to_uint8(np.ascontiguousarray(image.transpose(1, 2, 0))), "png")


def tiles(engine: Engine, *, loop: Loop) -> Measured:
    """One tile after another, in as many threads as the engine has slots."""
    (source,) = engine.manifest.inputs
    side = engine.manifest.tile_sizes[-1]
    inputs = {source.name: photograph(side, side)[None]}
    return direct(lambda: engine.run(inputs), callers=engine.slots, loop=loop)


def samples(engine: Engine, count: int, *, loop: Loop) -> Measured:
    """`count` samples a call, in batches that the engine is prepared for; one caller."""
    manifest = engine.manifest
    made: dict[str, Array] = {
        "float32": draw(1, 0, count, manifest.latent_size),
        "int64": draw_labels(1, 0, count, max(manifest.classes, 1)),
    }
    inputs = {spec.name: made[spec.dtype] for spec in manifest.inputs}

    def call() -> None:
        for first in range(0, count, engine.max_batch):
            engine.run({name: array[first : first + engine.max_batch] for name, array in inputs.items()})

    return direct(call, callers=1, loop=loop)


def codec_s(engine: Engine, file: bytes, *, repeats: int = 15) -> float:
    """Seconds of one core for one answer around the engine: decode, to floats; round, stitch and encode."""
    manifest = engine.manifest
    image = pixels.to_float(pixels.decode(file, max_pixels=2**24))
    height, width = image.shape[1:]
    output = np.repeat(np.repeat(image, manifest.scale, axis=1), manifest.scale, axis=2)
    output = output + np.random.default_rng(0).normal(0, 0.004, output.shape).astype(
        np.float32
    )  # photographs have noise
    tile = Tile(Span(0, height, 0, height), Span(0, width, 0, width))

    def once() -> None:
        pixels.to_float(pixels.decode(file, max_pixels=2**24))
        canvas = Canvas(
            channels=3, height=height, width=width, scale=manifest.scale, output=manifest.outputs[0]
        )
        canvas.paste(tile, output)
        pixels.encode(canvas.pixels, "png")

    return timed(once, repeats)


def whole_image_s(engine: Engine, image: Array, *, repeats: int) -> float:
    """Seconds for one whole image, with no tiles, on every core the device has.

    Where the engine's own streams each have but a part of the cores (OpenVINO), the graph is compiled for one image
    at a time instead.
    """
    source = engine.manifest.inputs[0].name
    if engine.backend != "openvino":
        return timed(lambda: engine.run({source: image[None]}), repeats)
    compiled = compile_graph(engine.bundle, engine.precision, "LATENCY")
    return timed(lambda: compiled({source: image[None]}), repeats)


def timed(function: Callable[[], object], repeats: int) -> float:
    """The median of some runs, after one that does not count where there are more than two."""
    seconds = []
    for _ in range(repeats + (repeats > 2)):
        started_s = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds[-repeats:])
