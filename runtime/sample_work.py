"""One request of Generate: makes a job of the latents, one item per sample, and encodes the samples.

server/core/samples.py makes a SampleWork for each request. Build, evaluation and benchmarks call `run_samples`, which draws
on the calling thread and returns an array.
"""

from __future__ import annotations

import numpy as np

from runtime import pixels
from runtime.backends.base import Engine
from runtime.cost import Cost
from runtime.jobs import Flow, Item, Job
from runtime.manifest import Manifest
from runtime.pictures.formats import Encoding
from runtime.stopping import Stop
from runtime.tensors import Array
from runtime.values import from_model, value_range

FLOAT_BYTES = 4


class SampleWork:
    """Samples to draw. After the job is done, `pixels` holds them, each [H, W, C] uint8.

    latents: [N, Z] float32. labels: [N] int64; ignored if the model has no classes. encoding: of the samples' files.
    flow: of its job; None for a new one.
    cost_px, cost_bytes: for admission: pixels to compute, and memory needed meanwhile.
    """

    def __init__(
        self, engine: Engine, latents: Array, labels: Array, encoding: Encoding, flow: Flow | None = None
    ) -> None:
        self._engine, self._encoding, self._flow = engine, encoding, flow
        self._inputs = sample_inputs(engine.manifest, latents, labels)
        channels, height, width = sample_shape(engine.manifest)
        count = len(latents)
        self.items = [Item((), height * width)] * count
        self.cost_px = count * height * width
        # A sample as the graph's float32 output, as pixels and as a file.
        self.cost_bytes = self.cost_px * channels * (2 + FLOAT_BYTES)
        self.pixels: list[Array] = [np.empty(0)] * count

    @property
    def cost(self) -> Cost:
        """What they need, without the seconds."""
        return Cost(pixels=self.cost_px, memory_bytes=self.cost_bytes, field="count")

    def job(self, deadline_s: float | None) -> Job:
        """The job that draws the samples, one item each. deadline_s: on the scheduler's clock."""
        output = self._engine.manifest.outputs[0]
        low, high = value_range(output)

        def inputs(index: int) -> dict[str, Array]:
            return {name: array[index] for name, array in self._inputs.items()}

        def deliver(index: int, outputs: dict[str, Array]) -> None:
            if not self.pixels:
                return  # the request ended while this sample was on the device
            sample = outputs[output.name].transpose(1, 2, 0)  # [H, W, C]
            self.pixels[index] = pixels.to_uint8(sample, low, high)

        return Job(
            self._engine, self.items, inputs=inputs, deliver=deliver, deadline_s=deadline_s, flow=self._flow
        )

    def files(self, first: int, end: int, stop: Stop | None = None) -> list[bytes]:
        """Encode samples [first, end) and return the files' bytes. Call it after the job is done.

        Raises Cancelled soon after `stop`.
        """
        files: list[bytes] = []
        for index in range(first, end):
            if stop is not None:
                stop.check()
            encoding = self._encoding
            files.append(pixels.encode(self.pixels[index], encoding.format, encoding.quality))
        return files

    def free(self) -> None:
        """Release the memory now. Called at the end of every request, successful or not."""
        self.pixels.clear()


def sample_shape(manifest: Manifest) -> tuple[int, int, int]:
    """(channels, height, width) of a model's output; 0 for axes that vary, as they do for models of pictures."""
    channels, height, width = (axis if isinstance(axis, int) else 0 for axis in manifest.outputs[0].shape[1:])
    return channels, height, width


def sample_inputs(manifest: Manifest, latents: Array, labels: Array) -> dict[str, Array]:
    """The graph's inputs by name: the latents, and the labels if the model has classes.

    latents: [N, Z] float32. labels: [N] integers.
    """
    by_dtype = {"float32": latents, "int64": labels.astype(np.int64, copy=False)}
    return {spec.name: by_dtype[spec.dtype] for spec in manifest.inputs}


def run_samples(engine: Engine, latents: Array, labels: Array) -> Array:
    """Draw samples on the calling thread, in the engine's largest batches.

    latents: [N, Z] float32. labels: [N] integers. Returns [N, C, H, W] float32, nominally in [0, 1], not clipped.
    """
    inputs = sample_inputs(engine.manifest, latents, labels)
    output, batch = engine.manifest.outputs[0], engine.max_batch
    parts = [
        engine.run({name: array[first : first + batch] for name, array in inputs.items()})[output.name]
        for first in range(0, len(latents), batch)
    ]
    return from_model(np.concatenate(parts), output)
