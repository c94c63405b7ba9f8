"""TiledPicture: runs one picture through one network, a band of rows at a time.

For each band, the caller passes the input rows to `begin`, runs the tiles with `job` (on a scheduler or inline) and takes
the output pixels with `finish`. runtime/picture_work.py does this for requests, runtime/tiling/inline.py for the arrays of
build, evaluation and benchmarks. A band has as many rows of tiles as a memory budget allows: a small picture is one band,
a poster is many. Bands start and finish from the top down; several may be in progress at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime import tasks
from runtime.errors import Cancelled, InvalidInput
from runtime.jobs import Flow, Job, Runner
from runtime.manifest import Manifest
from runtime.pictures.formats import PixelFormat
from runtime.pictures.transparency import ROWS_SEEN_BEYOND, enlarge, fill, rows_seen
from runtime.sides import side_of
from runtime.tensors import Array
from runtime.tiling.canvas import Canvas
from runtime.tiling.geometry import Band, Tile, bands, cut
from runtime.tiling.padding import pad, rows_read
from runtime.tiling.passes import Pass, answer_format, passes
from runtime.tiling.runs import Runs, TilesOfPass, not_flat
from runtime.values import from_model, to_model

# Called with (tiles done, tiles in total), from any thread.
OnTilesDone = Callable[[int, int], None]


@dataclass
class BandInWork:
    """A band between `begin` and `finish`.

    planes: its input rows, [C, H, W] float32 in the model's range. runs: of the network. filled: tiles that need no run.
    """

    planes: Array
    canvas: Canvas
    runs: Runs
    filled: int


class TiledPicture:
    """One picture on its way through one network, as arrays. Call `begin`, `job` and `finish` for each band.

    manifest: the engine's, or one with other tile sizes. height, width: of the picture, in px. pixel_format: of the input.
    dtype: of the answer: uint8, uint16, or float32 for values in [0, 1] that are not clipped.
    band_bytes: limit on the memory of one band's answer; None for a single band. flow: of its jobs; None for a new one.
    Raises InvalidInput if the model takes whole pictures only and this one is too large for it.
    """

    def __init__(
        self,
        engine: Runner,
        manifest: Manifest,
        *,
        height: int,
        width: int,
        pixel_format: PixelFormat,
        dtype: np.dtype[Any],
        band_bytes: int | None = None,
        flow: Flow | None = None,
    ) -> None:
        check_whole_size(height, width, manifest)
        self._engine, self._manifest = engine, manifest
        self.height, self.width, self.pixel_format, self.dtype = height, width, pixel_format, dtype
        self.channels = answer_format(pixel_format, manifest).channels
        self.passes = passes(pixel_format, manifest)
        most_rows = None if band_bytes is None else band_bytes // self.canvas_row_bytes
        self.bands = bands(*cut(height, width, manifest), most_rows)
        self.tiles_total = self.bands.tiles * len(self.passes)
        self.computed_px = self.bands.computed_px * len(self.passes)
        self._alpha_beside = pixel_format.alpha and tasks.of(manifest).alpha == "beside"
        self._in_work: dict[int, BandInWork] = {}
        self._flow = flow or Flow()
        self._lock, self._done = threading.Lock(), 0

    @property
    def canvas_row_bytes(self) -> int:
        """Bytes of the answer for one row of the input."""
        return self.width * self._manifest.scale**2 * self.channels * self.dtype.itemsize

    def rows_needed(self, index: int) -> tuple[int, int]:
        """[start, stop) of the picture's rows that a band needs: for its windows, and more for filling transparent pixels."""
        start, stop = self._rows_read(self.bands[index])
        return rows_seen(start, stop, self.height) if self.pixel_format.alpha else (start, stop)

    @property
    def most_rows_needed(self) -> int:
        """At least the rows that `rows_needed` says for any band, without looking at each."""
        spare = 2 * ROWS_SEEN_BEYOND if self.pixel_format.alpha else 0
        return min(self.height, self.bands.most_rows + spare)

    @property
    def most_window_rows(self) -> int:
        """At least the rows that the windows of any band cover, padding included."""
        return self.bands.most_rows

    @property
    def most_canvas_rows(self) -> int:
        """At least the rows of the input that any band's cores fill."""
        return min(self.height, self.bands.most_rows)

    @property
    def padded_width(self) -> int:
        """Columns that the network sees."""
        return self.bands.columns.length

    def begin(self, index: int, planes: Array) -> None:
        """Start a band. planes: the rows of `rows_needed`, [C, rows, W] float32 in [0, 1]."""
        band, manifest = self.bands[index], self._manifest
        top, _ = self.rows_needed(index)
        canvas = Canvas(
            channels=self.channels,
            height=min(band.high, self.height) - band.low,
            width=self.width,
            scale=manifest.scale,
            output=manifest.outputs[0],
            top=band.low,
            dtype=self.dtype,
        )
        if self.pixel_format.alpha:
            colours, alpha = planes[:-1], planes[-1]
            if self._alpha_beside:
                canvas.put(self._enlarged(alpha, band, top), self.channels - 1)
            first, last = self._rows_read(band)
            window = slice(first - top, last - top)
            planes = np.concatenate((fill(colours, alpha)[:, window], planes[-1:, window]))
        planes = to_model(planes, manifest.inputs[0])
        planes = self._padded(planes, band)
        parts = [TilesOfPass(pass_, self._to_run(band, planes, pass_, canvas)) for pass_ in self.passes]
        runs = Runs(band, parts)
        filled = len(band) * len(self.passes) - len(runs)
        self._flow.skipped_px += self.computed_px * filled // self.tiles_total
        self._in_work[index] = BandInWork(planes, canvas, runs, filled)

    def _rows_read(self, band: Band) -> tuple[int, int]:
        """[first, last) of the picture's rows that the band's windows show, in the padding too."""
        return rows_read(band.start, band.stop, self.height, self._manifest.padding)

    def _padded(self, planes: Array, band: Band) -> Array:
        """[C, rows, W] of the rows that `_rows_read` says → [C, window rows, padded width]."""
        first, _ = self._rows_read(band)
        down = max(band.stop - self.height, 0)
        padded = pad(planes, down, self.padded_width - self.width, self._manifest.padding)
        return padded[:, band.start - first :]

    def _to_run(self, band: Band, planes: Array, pass_: Pass, canvas: Canvas) -> range | Array:
        """The numbers of the band's tiles that must go through the network in this pass. The others are filled."""
        if not pass_.keeps_flat:
            return range(len(band))
        source = self._manifest.inputs[0]
        value = _flat_value(planes[pass_.sources[0]])
        if value is not None:  # opaque, as most pictures are
            level = from_model(np.full((1, 1), value, np.float32), source)
            canvas.put(level, pass_.targets.start)
            return range(0)
        flat = np.zeros(len(band), np.bool_)
        for number, tile in enumerate(band.tiles):
            value = _flat_value(_window(tile, pass_.sources[:1], planes, band))
            if value is not None:
                level = from_model(np.full(1, value, np.float32), source)[0]
                canvas.fill(tile, float(level), pass_.targets)
                flat[number] = True
        return not_flat(flat)

    def job(
        self,
        index: int,
        *,
        deadline_s: float | None = None,
        on_tiles_done: OnTilesDone = lambda done, total: None,
    ) -> Job:
        """The job of a band after `begin`: one item per tile and pass. deadline_s: on the scheduler's clock."""
        in_work = self._in_work[index]
        source, target = self._manifest.inputs[0], self._manifest.outputs[0]
        runs = in_work.runs
        if in_work.filled:
            self._count(in_work.filled, on_tiles_done)
        del in_work  # so that `free` releases its memory while the job still exists

        def inputs(item: int) -> dict[str, Array]:
            in_work = self._in_work.get(index)
            if in_work is None:
                raise Cancelled("the request has ended")
            tile, pass_ = runs.at(item)
            return {source.name: _window(tile, pass_.sources, in_work.planes, runs.band)}

        def deliver(item: int, outputs: dict[str, Array]) -> None:
            in_work = self._in_work.get(index)
            if in_work is None:
                return  # the request ended while this tile was on the device
            tile, pass_ = runs.at(item)
            values = outputs[target.name]
            if pass_.targets.stop - pass_.targets.start < len(values):
                values = values.mean(axis=0, keepdims=True)
            in_work.canvas.paste(tile, values, pass_.targets)
            self._count(1, on_tiles_done)

        return Job(self._engine, runs, inputs=inputs, deliver=deliver, deadline_s=deadline_s, flow=self._flow)

    def finish(self, index: int) -> Array:
        """The output of a band whose job is done: [rows, S·W, C], owned by the caller. The band is then forgotten."""
        return self._in_work.pop(index).canvas.pixels

    def free(self) -> None:
        """Release the memory now. The reference cycle of a job and its future would keep it until garbage collection."""
        self._in_work.clear()

    def _enlarged(self, alpha: Array, band: Band, top: int) -> Array:
        """The enlarged transparency of a band, [S·rows, S·W]. alpha: [rows, W]; its first row is the picture's `top`."""
        scale, high = self._manifest.scale, min(band.high, self.height)
        if scale == 1:
            return alpha[band.low - top : high - top]
        # The interpolation needs one more row at each end.
        first, last = max(band.low - 1, 0), min(high + 1, self.height)
        enlarged = enlarge(alpha[first - top : last - top], scale)
        return enlarged[(band.low - first) * scale : (high - first) * scale]

    def _count(self, tiles: int, on_tiles_done: OnTilesDone) -> None:
        with self._lock:
            self._done += tiles
            on_tiles_done(self._done, self.tiles_total)


def check_whole_size(height: int, width: int, manifest: Manifest) -> None:
    """Raises InvalidInput if the model takes whole pictures only and this size is too large for it."""
    if tasks.items_of(manifest) != "whole" or not manifest.max_whole_px:
        return
    rows, columns = side_of(manifest, height), side_of(manifest, width)
    if rows * columns > manifest.max_whole_px:
        padded = "" if (rows, columns) == (height, width) else f", padded to {columns}×{rows},"
        raise InvalidInput(
            "image",
            f"{width}×{height}{padded} is {rows * columns} pixels; {manifest.name} cannot be tiled and takes at most "
            f"{manifest.max_whole_px}; send a smaller image",
        )


def _flat_value(window: Array) -> float | None:
    """The value of a constant window; None if the window is not constant."""
    first = window.flat[0]
    return float(first) if (window == first).all() else None


def _window(tile: Tile, sources: tuple[int, ...], planes: Array, band: Band) -> Array:
    """The channels `sources` of a tile's window, [len(sources), height, width] float32. A view if they are in order."""
    window = tile.window(planes, band.start)
    return window[: len(sources)] if sources == tuple(range(len(sources))) else window[list(sources)]
