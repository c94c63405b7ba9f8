"""The work of one request: its items for the scheduler, where their outputs go, and the memory it takes meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from runtime import pixels, tiling
from runtime.errors import Cancelled, InvalidInput
from runtime.scheduler import Item, Job
from server.models import Model
from server.orders import GenerateOrder, UpscaleOrder, sample_shape

Array = np.ndarray[Any, Any]
FLOAT_BYTES = 4
# A file dearer than this a pixel (16-bit RGBA, uncompressed) counts as the pixels that it could have held.
FILE_BYTES_PER_PIXEL = 8


class Picture:
    """One image to upscale: decoded, cut into tiles, put together, encoded."""

    def __init__(self, model: Model, header: pixels.Header, order: UpscaleOrder, image: bytes) -> None:
        manifest = model.manifest
        self.model, self.order = model, order
        self._header, self._file = header, image
        self._image: Array | None = None
        self._canvas: tiling.Canvas | None = None
        multiple = manifest.size_multiple
        height, width = (-(-side // multiple) * multiple for side in (header.height, header.width))
        tile = tiling.choose_tile(
            height, width, tile_sizes=manifest.tile_sizes, halo=manifest.halo, multiple=multiple
        )
        self._tiles = tiling.plan(height, width, tile=tile, halo=manifest.halo, multiple=multiple)
        self.items = [Item((tile.height, tile.width), tile.pixels) for tile in self._tiles]
        self.cost_px = max(sum(item.pixels for item in self.items), len(image) // FILE_BYTES_PER_PIXEL)
        self.cost_bytes = 2 * len(image) + self._pixel_bytes()

    def decode(self, max_pixels: int) -> None:
        """The file into [3, H, W] float32, and an empty canvas. Raises InvalidInput."""
        image = pixels.decode(self._file, max_pixels=max_pixels)  # [H, W, 3] uint8
        if image.shape[:2] != (self._header.height, self._header.width):
            raise InvalidInput(
                "image", f"decodes to {image.shape[1]}×{image.shape[0]} pixels, not what its header says"
            )
        manifest = self.model.manifest
        self._image = tiling.pad_to_multiple(pixels.to_float(image), manifest.size_multiple)
        self._low, self._high = manifest.outputs[0].range or (0.0, 1.0)
        self._canvas = tiling.Canvas(
            channels=image.shape[2],
            height=image.shape[0],
            width=image.shape[1],
            scale=manifest.scale,
            kind="float32" if self.order.resized else "uint8",
            low=self._low,
            high=self._high,
        )

    def job(self, deadline_s: float | None, tell: Callable[[int, int], None]) -> Job:
        """Every tile an item; `tell` hears (tiles done, tiles in all), from any thread."""
        source, target = self.model.manifest.inputs[0].name, self.model.manifest.outputs[0].name
        lock, done = threading.Lock(), 0

        def inputs(index: int) -> dict[str, Array]:
            image = self._image
            if image is None:
                raise Cancelled("the request has ended")
            return {source: self._tiles[index].window(image)}

        def deliver(index: int, outputs: dict[str, Array]) -> None:
            nonlocal done
            canvas = self._canvas
            if canvas is None:
                return  # the request ended while this tile was on the device
            canvas.paste(self._tiles[index], outputs[target])
            with lock:
                done += 1
                tell(done, len(self._tiles))

        return Job(self.model.engine, self.items, inputs=inputs, deliver=deliver, deadline_s=deadline_s)

    def encode(self) -> bytes:
        """The canvas as a file, resized before rounding where another scale than the model's was asked for."""
        assert self._canvas is not None, "decode comes first"
        image = self._canvas.pixels  # [SH, SW, 3]
        if self.order.resized:
            np.clip(image, self._low, self._high, out=image)
            image = pixels.resize(image, self.order.width, self.order.height)
            image = pixels.to_uint8(image, self._low, self._high)
        return pixels.encode(image, self.order.format, self.order.quality)

    def free(self) -> None:
        """Give the memory back now: a job and its future refer to each other, and wait for the garbage collector."""
        self._file = b""
        self._image = self._canvas = None

    def _pixel_bytes(self) -> int:
        """Memory while in work: the image twice (uint8, float32), the canvas, what is made of it, the answer's file."""
        given = self._header.width * self._header.height * 3
        canvas = given * self.model.manifest.scale**2
        answer = self.order.width * self.order.height * 3
        resized = (canvas + answer) * FLOAT_BYTES if self.order.resized else canvas
        return given * (1 + FLOAT_BYTES) + resized + 2 * answer


class Samples:
    """Samples to draw; `pixels` holds them once the job is done, each [H, W, C] uint8."""

    def __init__(self, model: Model, order: GenerateOrder) -> None:
        self.model, self.order = model, order
        channels, height, width = sample_shape(model.manifest)
        self.items = [Item((), height * width)] * order.count
        self.cost_px = order.count * height * width
        self.cost_bytes = (
            self.cost_px * channels * (2 + FLOAT_BYTES)
        )  # the graph's output, pixels, and the file
        self.pixels: list[Array] = [np.empty(0)] * order.count

    def free(self) -> None:
        """As a Picture's."""
        self.pixels.clear()

    def job(self, deadline_s: float | None) -> Job:
        manifest, order = self.model.manifest, self.order
        target = manifest.outputs[0]
        low, high = target.range or (-1.0, 1.0)

        def inputs(index: int) -> dict[str, Array]:
            given = {"latent": order.latents[index]}
            return given | {"label": order.labels[index]} if manifest.classes else given

        def deliver(index: int, outputs: dict[str, Array]) -> None:
            if not self.pixels:
                return  # the request ended while this sample was on the device
            sample = outputs[target.name].transpose(1, 2, 0)  # [H, W, C]
            self.pixels[index] = pixels.to_uint8(sample, low, high)

        return Job(self.model.engine, self.items, inputs=inputs, deliver=deliver, deadline_s=deadline_s)


class Progress:
    """The newest (done, total), from any thread to one reader on the event loop; older ones are skipped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._newest: tuple[int, int] | None = None
        self._ended = False

    def tell(self, done: int, total: int) -> None:
        self._loop.call_soon_threadsafe(self._set, (done, total))

    def end(self) -> None:
        """No more will come. On the event loop's thread."""
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, int]]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._newest is not None:
                newest, self._newest = self._newest, None
                yield newest
            if self._ended:
                return

    def _set(self, newest: tuple[int, int]) -> None:
        self._newest = newest
        self._changed.set()
