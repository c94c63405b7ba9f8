"""RowFile: libvips reads every pixel format and shape from it correctly, and its memory is freed afterwards."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import pyvips

from runtime.errors import Cancelled
from runtime.niceness import PER_THREAD, give_way, niceness
from runtime.pictures.formats import WRITABLE, Encoding, PixelFormat
from runtime.pictures.rowfile import STRIP_BYTES, RowFile
from runtime.pictures.writing import Output
from runtime.tensors import Array

PIXEL_FORMATS = [
    PixelFormat(colours, alpha, bits) for colours in (1, 3) for alpha in (False, True) for bits in (8, 16, 32)
]


def noise(height: int, width: int, pixel_format: PixelFormat) -> Array:
    random = np.random.default_rng(height + width)
    if pixel_format.bits == 32:
        return random.random((height, width, pixel_format.channels), np.float32)
    return random.integers(
        0, 2**pixel_format.bits, (height, width, pixel_format.channels), pixel_format.dtype
    )


def bands_of(pixels: Array, rows: int) -> Callable[[], Array]:
    left: Iterator[Array] = iter([pixels[start : start + rows] for start in range(0, len(pixels), rows)])
    return lambda: next(left)


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS, ids=str)
@pytest.mark.parametrize(
    ("width", "height", "rows"),
    [
        (1, 1, 1),
        (7, 5, 2),
        (1, 70_000, 999),
        (70_000, 1, 1),
        (STRIP_BYTES // 2 + 1, 3, 1),  # a row is more than a strip
        (600, 1_000, 130),  # several strips, and bands that end in the middle of one
    ],
)
def test_libvips_reads_the_rows_unchanged(
    pixel_format: PixelFormat, width: int, height: int, rows: int
) -> None:
    pixels = noise(height, width, pixel_format)
    image = RowFile(width, height, pixel_format, bands_of(pixels, rows)).image()
    assert (image.width, image.height, image.bands) == (width, height, pixel_format.channels)
    assert bool(image.hasalpha()) == pixel_format.alpha
    answer = np.frombuffer(image.write_to_memory(), pixel_format.dtype).reshape(pixels.shape)
    np.testing.assert_array_equal(answer, pixels)


def test_no_band_is_taken_before_it_is_needed() -> None:
    taken: list[int] = []

    def take() -> Array:
        taken.append(len(taken))
        return np.zeros((100, 50, 3), np.uint8)

    image = RowFile(50, 1_000, PixelFormat(3), take).image()
    assert taken == []
    region = pyvips.Region.new(image)
    region.fetch(0, 0, 50, 10)
    assert len(taken) < 10


def written(output: Output, take: Callable[[], Array]) -> bytes:
    with tempfile.TemporaryFile() as file:
        output.to_descriptor(take, file.fileno())
        file.seek(0)
        return file.read()


def output(format: str, height: int = 100, width: int = 40) -> Output:
    return Output(width, height, PixelFormat(3), width, height, 8, Encoding(format))


@pytest.mark.parametrize("format", WRITABLE)
def test_a_file_of_bands_is_the_file_of_the_whole(format: str) -> None:
    pixels = noise(100, 40, PixelFormat(3))
    wanted = output(format).to_memory(pixels)
    for rows in (1, 7, 64, 100):
        answer = written(output(format), bands_of(pixels, rows))
        left, right = (pyvips.Image.new_from_buffer(each, "").numpy() for each in (answer, wanted))
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_error_of_the_rows_ends_the_reading_and_is_kept(format: str, after: int) -> None:
    bands = bands_of(noise(100, 40, PixelFormat(3)), 10)
    count = iter(range(100))

    def take() -> Array:
        if next(count) == after:
            raise Cancelled("the request has ended")
        return bands()

    with pytest.raises(Cancelled, match="the request has ended"):
        written(output(format), take)


@pytest.mark.parametrize("fails", [False, True])
def test_bands_are_freed_without_garbage_collection(fails: bool) -> None:
    alive: list[weakref.ref[Any]] = []

    def take() -> Array:
        if fails and len(alive) == 5:
            raise Cancelled("the request has ended")
        band = noise(10, 40, PixelFormat(3))
        alive.append(weakref.ref(band))
        return band

    gc.collect()
    gc.disable()
    try:
        if fails:
            with pytest.raises(Cancelled) as caught:
                written(output("png"), take)
            assert caught.value.__context__ is None  # which would hold libvips' frames, and they its objects
        else:
            written(output("png"), take)
        assert len(alive) >= 5
        assert [each() for each in alive if each() is not None] == []
    finally:
        gc.enable()


@pytest.mark.skipif(not PER_THREAD, reason="needs a niceness of each thread")
def test_threads_that_read_become_as_nice_as_the_one_that_encodes() -> None:
    # libvips keeps its threads: those that a thumbnail started would compete for posters as urgently as for thumbnails.
    def encoding() -> tuple[int, RowFile]:
        give_way(niceness() + 1)
        return niceness(), RowFile(4, 4, PixelFormat(3), bands_of(np.zeros((4, 4, 3), np.uint8), 4))

    def reading(rows: RowFile) -> tuple[int, int]:
        before = niceness()
        rows._read(1)
        return before, niceness()

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        nice, rows = first.submit(encoding).result()
        before, after = second.submit(reading, rows).result()
    assert before == niceness()
    assert after == nice == before + 1
