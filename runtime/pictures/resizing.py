"""Resizes a picture in bands, in little memory. runtime/pictures/writing.py calls it for answers of another size.

libvips' own resize would hold nearly two thousand lines of the network's output, because each of its steps keeps a cache
for rows that are asked for out of order. Here the rows come in order: each block of them is added to the answer's rows that
it is a part of (a product of two small matrices), and rows that are complete go on to libvips, which resizes across.
The weights are those of libvips' resize and affine: boxes and lanczos3 for axes that shrink, bicubic for axes that grow.
The blocks begin at fixed rows, so the result is the same to the last bit whatever the bands are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from runtime.tensors import Array

# Source rows of a block, at most, and the answer's rows that a block completes, about.
BLOCK_ROWS, BLOCK_TO_ROWS = 16, 8
# Complete rows are resized across in pieces of about so many bytes, at least a row.
PIECE_BYTES = 2 * 2**20
# libvips' copies of a piece, for each step across and to levels: most that was measured, of one that shrinks or grows.
PIECE_COPIES, GROWN_PIECE_COPIES = 16, 36
# libvips rounds the positions between two pixels to this part of one.
PHASES = 64
# An axis shrinks by boxes as long as at least this factor is left for lanczos3.
GAP = 2.0
LOBES = 3
# Columns of one matrix product: so few that BLAS does not spread it over threads.
COLUMNS = 256


@dataclass(frozen=True)
class Axis:
    """How the rows of an answer are made of the rows of its source. size, to_size: their numbers."""

    size: int
    to_size: int

    @cached_property
    def shrink(self) -> float:
        """Source rows for each row of the answer."""
        return 1 / (self.to_size / self.size)

    @cached_property
    def box(self) -> int:
        """Source rows that are averaged before the kernel is applied."""
        return max(1, math.floor(self.size / self.to_size / GAP))

    @cached_property
    def boxes(self) -> int:
        """Rows that the kernel is applied to."""
        return -(-self.size // self.box)

    @cached_property
    def masks(self) -> Array:
        """[PHASES + 1, taps] float64: the kernel's weights, by the position between two rows."""
        phases = np.arange(PHASES + 1)[:, None] / PHASES
        if self.shrink < 1:
            return bicubic(phases)
        factor = self.shrink / self.box
        if factor == 1:
            return np.ones((PHASES + 1, 1))
        taps = 2 * round(LOBES * factor) + 1
        weights = lanczos((np.arange(taps) - (phases + taps / 2 - 1)) / factor)
        return weights / weights.sum(1, keepdims=True)

    @property
    def rows_begun(self) -> int:
        """At most the answer's rows that one block is a part of."""
        return math.ceil((self.block_rows + (self.masks.shape[1] + 2) * self.box) / self.shrink) + 2

    @property
    def block_rows(self) -> int:
        """Source rows of one block."""
        return max(1, min(BLOCK_ROWS, math.ceil(BLOCK_TO_ROWS * self.shrink), self.size))

    def taps(self, start: int, stop: int) -> tuple[Array, Array]:
        """Of the answer's rows [start, stop): the first box of each, [rows], and its weights, [rows, taps]."""
        rows = np.arange(start, stop)
        if self.shrink < 1:
            at = (rows + 0.5) * self.shrink - 0.5
            first = -1
        else:
            factor, taps = self.shrink / self.box, self.masks.shape[1]
            unused = (self.to_size * self.shrink - self.size) / self.box
            at = (rows + 0.5) * factor - 0.5 - ((1 + unused) / 2 - 1)
            first = 1 - math.ceil(taps / 2)
            if taps == 1:
                at = rows.astype(np.float64)
        whole = np.floor(at)
        phase = (np.floor((at - whole) * 2 * PHASES).astype(np.int64) + 1) >> 1
        return whole.astype(np.int64) + first, self.masks[phase]

    def firsts(self, start: int, stop: int) -> Array:
        """The first source row that each of the answer's rows [start, stop) needs."""
        return self.taps(start, stop)[0].clip(0, self.boxes - 1) * self.box

    def lasts(self, start: int, stop: int) -> Array:
        """The last source row that each of the answer's rows [start, stop) needs."""
        boxes = self.taps(start, stop)[0] + (self.masks.shape[1] - 1)
        return ((boxes.clip(0, self.boxes - 1) + 1) * self.box).clip(max=self.size) - 1

    def weights(self, start: int, stop: int, low: int, high: int) -> Array:
        """[stop - start, high - low] float32: the part of source rows [low, high) in the answer's rows [start, stop)."""
        first, masks = self.taps(start, stop)
        boxes = (first[:, None] + np.arange(masks.shape[1])).clip(0, self.boxes - 1)  # edges are repeated
        sources = (boxes[..., None] * self.box + np.arange(self.box)).clip(max=self.size - 1)
        parts = np.broadcast_to(masks[..., None] / self.box, sources.shape)
        inside = (sources >= low) & (sources < high)
        answers = np.broadcast_to(np.arange(stop - start)[:, None, None], sources.shape)
        found = np.zeros((stop - start, high - low))
        np.add.at(found, (answers[inside], sources[inside] - low), parts[inside])
        return found.astype(np.float32)


def bicubic(phases: Array) -> Array:
    """[P, 4]: Catmull-Rom's weights at positions [P, 1] from 0 to 1 between the second and the third of four rows."""
    away = 1 - phases
    return np.concatenate(
        [
            -phases * away**2 / 2,
            1 - phases**2 * (5 - 3 * phases) / 2,
            1 - away**2 * (5 - 3 * away) / 2,
            -away * phases**2 / 2,
        ],
        axis=1,
    )


def lanczos(at: Array) -> Array:
    """The kernel lanczos3."""
    return np.where(np.abs(at) <= LOBES, np.sinc(at) * np.sinc(at / LOBES), 0.0)


def resized_down(
    next_rows: Callable[[], Array], size: int, to_size: int, *, weighted: bool = False
) -> Iterator[Array]:
    """The rows of a picture of `size` rows, resized to `to_size` rows, in pieces from the top down.

    next_rows: returns the next band, [rows, W, C] uint8, uint16 or float32 in [0, 1].
    weighted: whether colours are multiplied with alpha, the last channel; in the result they then still are.
    Yields [rows, W, C] float32, at least one row, to be used before the next. Kernels swing beyond 0 and 1.
    Raises what `next_rows` raises.
    """
    axis = Axis(size, to_size)
    begun: Array | None = None  # sums of the answer's rows [done, done + len(begun))
    done = 0
    for low, block in _blocks(next_rows, axis):
        high = low + len(block)
        if weighted:
            block[..., :-1] *= block[..., -1:]
        stop = _count(axis.firsts, high, done, to_size, axis.rows_begun)
        row_shape = block.shape[1:]
        sums = _product(axis.weights(done, stop, low, high), block.reshape(len(block), -1))
        if begun is not None:
            sums[: len(begun)] += begun
        complete = _count(axis.lasts, high, done, stop, axis.rows_begun) - done
        if complete:
            yield sums[:complete].reshape(complete, *row_shape)
        begun, done = sums[complete:].copy(), done + complete
        del sums


def pieces(rows: Array, to_width: int) -> Iterator[Array]:
    """Cut [rows, W, C] float32 into pieces that are small even with `to_width` columns."""
    row_bytes = max(rows.shape[1], to_width) * rows.shape[2] * rows.itemsize
    step = max(1, PIECE_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def memory_bytes(size: tuple[int, int], to_size: tuple[int, int], channels: int) -> int:
    """The most memory that resizing takes, beside the bands given. size, to_size: (width, height) in px."""
    axis = Axis(size[1], to_size[1])
    row_bytes = size[0] * channels * np.dtype(np.float32).itemsize
    wide_bytes = max(size[0], to_size[0]) * channels * np.dtype(np.float32).itemsize
    # The block; sums of this block, of those before it, and those that are kept for the next.
    lines = axis.block_rows + 4 * min(axis.rows_begun, axis.to_size)
    piece = max(wide_bytes, min(PIECE_BYTES, wide_bytes * min(axis.rows_begun, axis.to_size)))
    copies = PIECE_COPIES if to_size <= size else GROWN_PIECE_COPIES
    return lines * row_bytes + copies * piece


def _blocks(next_rows: Callable[[], Array], axis: Axis) -> Iterator[tuple[int, Array]]:
    """(first row, rows) of each block. The array is used again for the next."""
    held: Array | None = None
    band, used = next_rows(), 0
    for low in range(0, axis.size, axis.block_rows):
        count = min(axis.block_rows, axis.size - low)
        if held is None:
            held = np.empty((axis.block_rows, *band.shape[1:]), np.float32)
        filled = 0
        while filled < count:
            if used == len(band):
                del band  # free its memory while waiting for the next
                band, used = next_rows(), 0
            step = min(count - filled, len(band) - used)
            rows = held[filled : filled + step]
            rows[:] = band[used : used + step]
            if band.dtype != np.float32:
                rows /= np.float32(np.iinfo(band.dtype).max)
            filled, used = filled + step, used + step
        yield low, held[:count]


def _count(rows: Callable[[int, int], Array], limit: int, start: int, stop: int, step: int) -> int:
    """The first of the answer's rows [start, stop) whose source row is not below `limit`. rows: ascending source rows."""
    while start < stop:
        end = min(start + step, stop)
        below = int(np.searchsorted(rows(start, end), limit))
        start += below
        if start < end:
            break
    return start


def _product(weights: Array, block: Array) -> Array:
    """weights @ block, on this thread. [R, K] and [K, N] float32 → [R, N]."""
    columns = block.shape[1]
    result = np.empty((len(weights), columns), np.float32)
    even = columns - columns % COLUMNS
    if even:
        parts = block[:, :even].reshape(len(block), -1, COLUMNS).transpose(1, 0, 2)
        into = result[:, :even].reshape(len(weights), -1, COLUMNS).transpose(1, 0, 2)
        np.matmul(weights, parts, out=into)
    if even < columns:
        np.matmul(weights, block[:, even:], out=result[:, even:])
    return result
