"""Reading pictures a band at a time: equal to reading them as a whole."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.pictures.reading import open_picture
from tests.runtime.mutations import MAX_PIXELS, seeds

FILES = seeds()


@settings(max_examples=80)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_overlapping_bands_equal_the_rows_of_the_whole_picture(kind: str, data: st.DataObject) -> None:
    opened = open_picture(FILES[kind], max_pixels=MAX_PIXELS)
    height = opened.header.height
    whole = opened.rows().read(0, height)
    rows, start, stop = opened.rows(), 0, 0
    while stop < height:
        # As bands with halos do: each begins within the one before, or right behind it, and ends further down.
        start = data.draw(st.integers(start, stop))
        stop = data.draw(st.integers(max(stop, start) + 1, height))
        np.testing.assert_array_equal(rows.read(start, stop), whole[:, start:stop])


def test_a_picture_can_be_read_more_than_once() -> None:
    for kind, file in FILES.items():
        opened = open_picture(file, max_pixels=MAX_PIXELS)
        first, second = (opened.rows().read(0, opened.header.height) for _ in range(2))
        np.testing.assert_array_equal(first, second, err_msg=kind)


WHOLE = {"png, interlaced", "jpeg, progressive", "jpeg", "png", "bmp", "bmp, palette", "bmp, one bit"}
WHOLE |= {kind for kind in FILES if kind.startswith(("webp", "gif", "avif"))}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_says_whether_it_can_be_read_by_rows(kind: str) -> None:
    """It counts as memory where it cannot. "png" and "jpeg" lie on their side, by their EXIF orientation."""
    assert open_picture(FILES[kind], max_pixels=MAX_PIXELS).by_rows == (kind not in WHOLE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_only_pictures_that_are_not_rotated_are_read_by_rows(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (9, 5)).save(file, "JPEG", exif=exif)
    assert open_picture(file.getvalue(), max_pixels=MAX_PIXELS).by_rows == (orientation in (1, 2))


def resident_bytes(name: str) -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "options"),
    [("png", {}), ("jpeg", {}), ("tiff", {"compression": "deflate"}), ("tiff", {"tile_height": 16_000})],
)
def test_a_large_picture_is_never_in_memory_as_a_whole(
    format: str, options: dict[str, Any], tmp_path: Any
) -> None:
    width, height, band = 1_500, 16_000, 64
    path = tmp_path / f"large.{format}"
    noise = pyvips.Image.gaussnoise(width, height, mean=128).cast("uchar")
    slope = pyvips.Image.grey(width, height, uchar=True)
    noise.bandjoin([slope, slope]).copy(interpretation="srgb").write_to_file(str(path), **options)
    opened = open_picture(path, max_pixels=width * height)
    assert opened.by_rows
    rows = opened.rows()
    rows.read(0, band)
    before, most = resident_bytes("RssAnon"), 0
    for start in range(0, height, band):
        rows.read(start, min(start + band, height))
        most = max(most, resident_bytes("RssAnon") - before)
    # A band is floats, in several copies: some 24 MiB in all. The picture is 69 MiB.
    assert most < width * height * 3 / 2
