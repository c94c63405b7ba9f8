"""Measures an engine called directly, without a server, and the codecs: what served.py compares the server with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.load import Duration, Measured, direct
from export.build import photographs
from runtime import pixels
from runtime.backends.base import Engine
from runtime.backends.openvino_backend import compile_graph, native_precisions
from runtime.backends.precisions import fastest_allowed
from runtime.latents import draw, draw_labels
from runtime.sample_work import sample_inputs
from runtime.tensors import Array
from runtime.tiling.canvas import Canvas
from runtime.tiling.geometry import Span, Tile
from runtime.tiling.inline import run_picture, run_whole

# A decoded photograph enlarged by repetition would compress better than a network's output; this much noise is added.
NOISE_STD = 0.004


def photograph(height: int, width: int) -> Array:
    """A shipped photograph, mirrored where it is too small: [3, H, W] float32 in [0, 1]."""
    return photographs.crop(height, width)


def png(image: Array) -> bytes:
    """[3, H, W] float32 in [0, 1] → a PNG file."""
    return pixels.encode(pixels.to_uint8(np.ascontiguousarray(image.transpose(1, 2, 0))), "png")


def tiles(engine: Engine, *, duration: Duration) -> Measured:
    """Tiles a second: each of as many threads as the engine has slots runs one tile after another."""
    (source,) = engine.manifest.inputs
    side = engine.manifest.tile_sizes[-1]
    inputs = {source.name: photograph(side, side)[None]}
    return direct(lambda: engine.run(inputs), callers=engine.slots, duration=duration)


def pictures(engine: Engine, image: Array, *, duration: Duration) -> Measured:
    """Pictures a second, cut into tiles as the server cuts them, in as many threads as the engine has slots.

    image: [C, H, W] float32 in [0, 1].
    """
    return direct(lambda: run_picture(engine, image), callers=engine.slots, duration=duration)


def samples(engine: Engine, count: int, *, duration: Duration) -> Measured:
    """Calls a second for `count` samples each, in the engine's largest batches, by one caller."""
    manifest = engine.manifest
    labels = draw_labels(1, 0, count, max(manifest.classes, 1))
    inputs = sample_inputs(manifest, draw(1, 0, count, manifest.latent_size), labels)

    def call() -> None:
        for first in range(0, count, engine.max_batch):
            engine.run({name: array[first : first + engine.max_batch] for name, array in inputs.items()})

    return direct(call, callers=1, duration=duration)


def codec_s(engine: Engine, file: bytes, *, repeats: int = 15) -> float:
    """Seconds that one core spends on an answer beside the engine: decoding `file`, a picture's bytes, and converting it
    to floats, then rounding, stitching and encoding the result. The median of `repeats`.
    """
    manifest = engine.manifest
    image = pixels.to_float(pixels.decode(file, max_pixels=2**24))
    height, width = image.shape[1:]
    output = np.repeat(np.repeat(image, manifest.scale, axis=1), manifest.scale, axis=2)
    output = output + np.random.default_rng(0).normal(0, NOISE_STD, output.shape).astype(np.float32)
    tile = Tile(Span(0, height, 0, height), Span(0, width, 0, width))

    def once() -> None:
        pixels.to_float(pixels.decode(file, max_pixels=2**24))
        canvas = Canvas(
            channels=3, height=height, width=width, scale=manifest.scale, output=manifest.outputs[0]
        )
        canvas.paste(tile, output)
        pixels.encode(canvas.pixels, "png")

    once()
    return statistics.median(seconds(once) for _ in range(repeats))


def whole_image(engine: Engine, image: Array) -> Callable[[], object]:
    """A function that runs the network once over the whole of `image`, at that fixed shape. It was called once already.

    image: [C, H, W] float32. For OpenVINO, whose streams each use only some of the cores, the graph is compiled again to
    run one image at a time on all of them.
    """
    inputs = {engine.manifest.inputs[0].name: image[None]}
    if engine.backend == "openvino":
        precision = fastest_allowed(native_precisions(), engine.manifest.precision)
        compiled = compile_graph(engine.bundle, precision, "LATENCY", inputs[next(iter(inputs))].shape)

        def run() -> object:
            return compiled(inputs)
    else:

        def run() -> object:
            return run_whole(engine, image)

    run()
    return run


def seconds(function: Callable[[], object]) -> float:
    """How long one call of `function` takes."""
    started_s = time.perf_counter()
    function()
    return time.perf_counter() - started_s
