"""The work of Generate: its items for the scheduler, where their outputs go, and the memory it takes meanwhile."""

from __future__ import annotations

import numpy as np

from runtime import pixels
from runtime.scheduler import Item, Job
from runtime.tensors import Array
from server.models import Model
from server.params import SampleParams, sample_shape

FLOAT_BYTES = 4


class Samples:
    """Samples to draw; `pixels` holds them once the job is done, each [H, W, C] uint8."""

    def __init__(self, model: Model, params: SampleParams) -> None:
        self.model, self.params = model, params
        channels, height, width = sample_shape(model.manifest)
        self.items = [Item((), height * width)] * params.count
        self.cost_px = params.count * height * width
        self.cost_bytes = (
            self.cost_px * channels * (2 + FLOAT_BYTES)
        )  # the graph's output, pixels, and the file
        self.pixels: list[Array] = [np.empty(0)] * params.count

    def free(self) -> None:
        """As a Picture's."""
        self.pixels.clear()

    def file(self, index: int) -> bytes:
        """The file of a sample, once the job is done."""
        encoding = self.params.encoding
        return pixels.encode(self.pixels[index], encoding.format, encoding.quality)

    def job(self, deadline_s: float | None) -> Job:
        manifest, params = self.model.manifest, self.params
        target = manifest.outputs[0]
        low, high = target.range or (-1.0, 1.0)

        def inputs(index: int) -> dict[str, Array]:
            given = {"latent": params.latents[index]}
            return given | {"label": params.labels[index]} if manifest.classes else given

        def deliver(index: int, outputs: dict[str, Array]) -> None:
            if not self.pixels:
                return  # the request ended while this sample was on the device
            sample = outputs[target.name].transpose(1, 2, 0)  # [H, W, C]
            self.pixels[index] = pixels.to_uint8(sample, low, high)

        return Job(self.model.engine, self.items, inputs=inputs, deliver=deliver, deadline_s=deadline_s)
