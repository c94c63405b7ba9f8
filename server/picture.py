"""One picture to upscale, from the top down: bands of its rows are decoded, cut into tiles, put together and written.

A band is as many rows of tiles as a budget of memory allows, so a small picture is one band and a poster is many. The
network sees three channels (or one) whatever the picture has: `passes` says which of them it is shown, one run after
the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime import tiling
from runtime.errors import Cancelled, EngineError
from runtime.manifest import Manifest
from runtime.pictures.forms import WRITABLE, Form
from runtime.pictures.reading import Opened, Rows
from runtime.pictures.transparency import fill, rows_seen
from runtime.pictures.writing import Output
from runtime.scheduler import Flow, Item, Job
from runtime.tensors import Array
from server.models import Model
from server.params import ImageParams

FLOAT_BYTES = 4
# Of one band's canvas. Two bands are in work, and one is being written.
BAND_BYTES = 64 * 2**20
BANDS_ALIVE = 3
# A file dearer than this a pixel (16-bit RGBA, uncompressed) counts as the pixels that it could have held.
FILE_BYTES_PER_PIXEL = 8


@dataclass(frozen=True)
class Pass:
    """One run of the network over every tile.

    sources: the picture's channel behind each of the network's. targets: the canvas's channels that its output goes
    to; the mean of the output, where it is one. keeps_flat: a tile that is one value all over stays exactly so.
    """

    sources: tuple[int, ...]
    targets: slice
    keeps_flat: bool = False


def passes(form: Form, taken: int) -> tuple[Pass, ...]:
    """How a picture of `form` goes through a network that takes so many channels."""
    if taken not in (1, 3):
        raise EngineError(f"the model takes {taken} channels, expected 1 (grey) or 3 (RGB)")
    if taken == form.colours:
        colours = [Pass(tuple(range(taken)), slice(0, taken))]
    else:
        colours = [Pass((channel,) * taken, slice(channel, channel + 1)) for channel in range(form.colours)]
    if not form.alpha:
        return tuple(colours)
    last = form.colours
    return (*colours, Pass((last,) * taken, slice(last, last + 1), keeps_flat=True))


@dataclass(frozen=True)
class Band:
    """Tiles whose cores fill the rows [low, high) of the padded picture, and need those of [start, stop)."""

    tiles: tuple[tiling.Tile, ...]

    @property
    def start(self) -> int:
        return self.tiles[0].rows.start

    @property
    def stop(self) -> int:
        return self.tiles[-1].rows.stop

    @property
    def low(self) -> int:
        return self.tiles[0].rows.low

    @property
    def high(self) -> int:
        return self.tiles[-1].rows.high


@dataclass
class Work:
    """A band in work. planes: [C, H, W] float32 of the rows it needs. canvas: where its tiles are put together."""

    planes: Array
    canvas: tiling.Canvas


class Picture:
    """opened: the file, its header read. params: what is asked for. file_bytes: how large the file is."""

    def __init__(self, model: Model, opened: Opened, params: ImageParams, file_bytes: int) -> None:
        self.model, self.params = model, params
        manifest, header = model.manifest, opened.header
        self._opened: Opened | None = opened
        self._header = header
        self._rows: Rows | None = None
        self._work: dict[int, Work] = {}
        self._flow = Flow()
        self._lock, self._done = threading.Lock(), 0
        self._low, self._high = manifest.outputs[0].range or (0.0, 1.0)
        self._passes = passes(header.form, int(manifest.inputs[0].shape[1]))
        self.output = self._output(opened)
        self.bands = bands(header.height, header.width, manifest, self._canvas_row_bytes())
        tiles = [tile for band in self.bands for tile in band.tiles]
        self.tiles_total = len(tiles) * len(self._passes)
        self.cost_px = max(
            sum(tile.pixels for tile in tiles) * len(self._passes), file_bytes // FILE_BYTES_PER_PIXEL
        )
        self.cost_bytes = file_bytes + self._pixel_bytes(opened.by_rows)

    def decode(self, index: int) -> None:
        """The rows of a band into float32, and an empty canvas; bands from the top down. Raises InvalidInput."""
        opened = self._opened
        if opened is None:
            raise Cancelled("the request has ended")
        if self._rows is None:
            self._rows = opened.rows()
        band, header, manifest = self.bands[index], self._header, self.model.manifest
        start, stop = self._rows_read(band)
        planes = self._rows.read(start, stop)
        if header.form.alpha:
            planes = np.concatenate((fill(planes[:-1], planes[-1]), planes[-1:]))
        planes = planes[:, band.start - start : min(band.stop, header.height) - start]
        canvas = tiling.Canvas(
            channels=header.form.channels,
            height=min(band.high, header.height) - band.low,
            width=header.width,
            scale=manifest.scale,
            top=band.low,
            dtype=self.output.form.dtype,
            low=self._low,
            high=self._high,
        )
        self._work[index] = Work(tiling.pad_to_multiple(planes, manifest.size_multiple), canvas)
        if self._opened is None:  # the request ended meanwhile
            self.free()

    def job(self, index: int, deadline_s: float | None, tell: Callable[[int, int], None]) -> Job:
        """Every tile of a decoded band an item, once a pass; `tell` hears (tiles done, tiles in all), from any thread."""
        manifest, band = self.model.manifest, self.bands[index]
        source, target = manifest.inputs[0].name, manifest.outputs[0].name
        runs: list[tuple[tiling.Tile, Pass]] = []
        for one in self._passes:
            for tile in band.tiles:
                value = self._flat(index, tile, one) if one.keeps_flat else None
                if value is not None:
                    level = self._low + value * (self._high - self._low)
                    self._work[index].canvas.fill(tile, level, one.targets)
                    self._count(tell)
                else:
                    runs.append((tile, one))

        def inputs(item: int) -> dict[str, Array]:
            work = self._work.get(index)
            if work is None:
                raise Cancelled("the request has ended")
            tile, one = runs[item]
            return {source: self._window(work, band, tile, one.sources)}

        def deliver(item: int, outputs: dict[str, Array]) -> None:
            work = self._work.get(index)
            if work is None:
                return  # the request ended while this tile was on the device
            tile, one = runs[item]
            values = outputs[target]
            if one.targets.stop - one.targets.start < len(values):
                values = values.mean(axis=0, keepdims=True)
            work.canvas.paste(tile, values, one.targets)
            self._count(tell)

        items = [Item((tile.height, tile.width), tile.pixels) for tile, _ in runs]
        return Job(
            self.model.engine, items, inputs=inputs, deliver=deliver, deadline_s=deadline_s, flow=self._flow
        )

    def finished(self, index: int) -> Array:
        """[rows, W, C] of a band whose job is done; its memory is the caller's."""
        pixels = self._work.pop(index).canvas.pixels
        if pixels.dtype.kind != "f":
            return pixels
        pixels -= self._low
        pixels *= 1 / (self._high - self._low)
        return pixels.clip(0, 1, out=pixels)

    def whole(self) -> bytes:
        """The file of a picture that is one band."""
        return self.output.to_memory(self.finished(0))

    def write(self, take: Callable[[], Array], descriptor: int) -> None:
        """The file of a picture of many bands, which `take` gives one after the other. Closes the descriptor."""
        try:
            self.output.to_descriptor(take, descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give the memory back now: a job and its future refer to each other, and wait for the garbage collector."""
        self._opened = self._rows = None
        self._work.clear()

    def _rows_read(self, band: Band) -> tuple[int, int]:
        """[start, stop) of the rows that are decoded for a band: what is hidden is filled from a little further away."""
        height = self._header.height
        if not self._header.form.alpha:
            return band.start, min(band.stop, height)
        return rows_seen(band.start, min(band.stop, height), height)

    def _flat(self, index: int, tile: tiling.Tile, one: Pass) -> float | None:
        """The one value that the tile's window has all over; None where there are several."""
        window = self._window(self._work[index], self.bands[index], tile, one.sources[:1])
        first = window.flat[0]
        return float(first) if (window == first).all() else None

    def _window(self, work: Work, band: Band, tile: tiling.Tile, sources: tuple[int, ...]) -> Array:
        """[len(sources), height, width] float32; a view where the sources are the first channels in order."""
        rows, columns = tile.rows, tile.columns
        window = work.planes[
            :, rows.start - band.start : rows.stop - band.start, columns.start : columns.stop
        ]
        return window[: len(sources)] if sources == tuple(range(len(sources))) else window[list(sources)]

    def _count(self, tell: Callable[[int, int], None]) -> None:
        with self._lock:
            self._done += 1
            tell(self._done, self.tiles_total)

    def _output(self, opened: Opened) -> Output:
        header, params, scale = opened.header, self.params, self.model.manifest.scale
        width, height = header.width * scale, header.height * scale
        bits = WRITABLE[params.encoding.format].hold(header.form).bits
        resized = (width, height) != (params.width, params.height)
        return Output(
            width=width,
            height=height,
            form=Form(header.form.colours, header.form.alpha, 32 if resized else bits),
            to_width=params.width,
            to_height=params.height,
            bits=bits,
            encoding=params.encoding,
            metadata=opened.metadata,
            resolution_scale=(params.width / header.width, params.height / header.height),
        )

    def _canvas_row_bytes(self) -> int:
        """Of the canvas, for one row of the input."""
        form = self.output.form
        return self._header.width * self.model.manifest.scale**2 * form.channels * form.dtype.itemsize

    def _pixel_bytes(self, by_rows: bool) -> int:
        """Memory while in work: what the decoder holds, the bands' rows and canvases, and what is made of them."""
        header, output = self._header, self.output
        tallest = max(stop - start for start, stop in map(self._rows_read, self.bands))
        alive = min(BANDS_ALIVE, len(self.bands))
        decoder = 0 if by_rows else header.pixels * header.form.channels * header.form.dtype.itemsize
        planes = header.width * tallest * header.form.channels * FLOAT_BYTES * 2
        canvases = max(band.high - band.low for band in self.bands) * self._canvas_row_bytes()
        answer = output.to_width * output.to_height * output.form.channels * output.bits // 8
        written = len(self.bands) > 1 and WRITABLE[output.encoding.format].by_rows
        return decoder + alive * (planes + canvases) + (0 if written else 2 * answer)


def bands(height: int, width: int, manifest: Manifest, canvas_row_bytes: int) -> tuple[Band, ...]:
    """The tiles of a height × width picture, rows of them together while a canvas stays within BAND_BYTES."""
    multiple = manifest.size_multiple
    height, width = (-(-side // multiple) * multiple for side in (height, width))
    tile = tiling.choose_tile(
        height, width, tile_sizes=manifest.tile_sizes, halo=manifest.halo, multiple=multiple
    )
    rows = tiling.split(height, tile=tile, halo=manifest.halo, multiple=multiple)
    columns = tiling.split(width, tile=tile, halo=manifest.halo, multiple=multiple)
    found: list[list[tiling.Span]] = []
    for row in rows:
        if found and (row.high - found[-1][0].low) * canvas_row_bytes <= BAND_BYTES:
            found[-1].append(row)
        else:
            found.append([row])
    return tuple(
        Band(tuple(tiling.Tile(row, column) for row in group for column in columns)) for group in found
    )
