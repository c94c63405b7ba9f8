"""Untrusted files: no other loaders, no change between header and pixels, no floats outside the range."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from runtime.errors import InvalidInput
from runtime.pictures.formats import Encoding, PixelFormat
from runtime.pictures.reading import open_picture
from runtime.pictures.writing import Output
from runtime.tensors import Array

MAX_PIXELS = 10**6
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'


def vips(values: Array, interpretation: str = "srgb") -> pyvips.Image:
    return pyvips.Image.new_from_array(values).copy(interpretation=interpretation)


def read(file: bytes | Path) -> Array:
    """[C, H, W]"""
    opened = open_picture(file, max_pixels=MAX_PIXELS)
    return opened.rows().read(0, opened.header.height)


def test_loaders_that_libvips_itself_calls_untrusted_are_never_asked() -> None:
    """SVG is one: its parser does not even see the file."""
    with pytest.raises(InvalidInput, match="are not an image in a readable format"):
        open_picture(SVG, max_pixels=MAX_PIXELS)


def test_a_loader_that_is_not_on_the_list_is_refused_by_its_name() -> None:
    matrix = vips(np.ones((3, 3), np.float32), "matrix").write_to_buffer(".mat")
    with pytest.raises(InvalidInput, match="got a file of type matrixload, expected one of png"):
        open_picture(matrix, max_pixels=MAX_PIXELS)


def test_a_file_that_changes_before_it_is_decoded_is_refused(tmp_path: Path) -> None:
    """An upload lies on the disk between its header and its pixels; the limits were checked on the first."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (9, 5)).save(path)
    opened = open_picture(path, max_pixels=MAX_PIXELS)
    for mode, size in (("RGB", (900, 500)), ("RGBA", (9, 5))):
        Image.new(mode, size).save(path)
        with pytest.raises(InvalidInput, match="not what its header says"):
            opened.rows()


def test_floats_a_little_beyond_black_and_white_are_clipped() -> None:
    values = np.array([[[-0.04, 0.5, 1.04]]], np.float32)
    file = vips(values, "scrgb").tiffsave_buffer()
    assert read(file).ravel().tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("value", [-0.06, 1.06, float("nan"), float("inf")])
def test_floats_far_outside_zero_to_one_are_refused(value: float) -> None:
    file = vips(np.array([[[0.5, value, 0.5]]], np.float32), "scrgb").tiffsave_buffer()
    with pytest.raises(InvalidInput, match="expected floats from 0"):
        read(file)


def grey_ink() -> bytes:
    """libvips' CMYK profile with its tables to Lab without their colour: whatever the ink, it looks grey."""
    profile = bytearray(pyvips.Image.profile_load("cmyk"))
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(count):
        name, start, _ = struct.unpack_from(">4sII", profile, 132 + 12 * entry)
        if not name.startswith(b"A2B"):
            continue
        kind, inputs, outputs, grid = struct.unpack_from(">4s4xBBB", profile, start)
        bytes_each = {b"mft1": 1, b"mft2": 2}[kind]
        if kind == b"mft1":
            start, entries_in, entries_out = start + 48, 256, 256
        else:
            entries_in, entries_out = struct.unpack_from(">HH", profile, start + 48)
            start += 52
        curves = start + (inputs * entries_in + grid**inputs * outputs) * bytes_each
        neutral = bytes([0x80]) if kind == b"mft1" else struct.pack(">H", 0x8000)
        of_a_and_b = curves + entries_out * bytes_each
        profile[of_a_and_b : of_a_and_b + 2 * entries_out * bytes_each] = neutral * (2 * entries_out)
    return bytes(profile)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_with_its_own_profile(format: str) -> None:
    ink = Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK")
    colours = []
    for profile in (pyvips.Image.profile_load("cmyk"), grey_ink()):
        file = io.BytesIO()
        ink.save(file, format, icc_profile=profile)
        colours.append(read(file.getvalue())[:, 4, 4])
    red, grey = colours
    assert red[0] > 0.8 > 0.4 > red[1:].max()
    assert np.ptp(grey) < 0.05


@pytest.mark.parametrize("from_bytes", [1, 10**9])
def test_a_tiff_too_large_for_32_bit_offsets_is_a_bigtiff(
    monkeypatch: pytest.MonkeyPatch, from_bytes: int
) -> None:
    """Compressed or not: how well it compresses is known too late."""
    monkeypatch.setattr("runtime.pictures.writing.BIG_TIFF_BYTES", from_bytes)
    for compression in (0, 1):
        encoding = Encoding("tiff", compression=compression)
        output = Output(9, 5, PixelFormat(3), 9, 5, 8, encoding)
        file = output.to_memory(np.zeros((5, 9, 3), np.uint8))
        assert file[:4] == (b"II+\0" if from_bytes == 1 else b"II*\0")
