"""Decoding and encoding of small pictures: lossless formats are exact, and damaged files raise InvalidInput only."""

from __future__ import annotations

import struct
import threading
import zlib
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.errors import InvalidInput
from runtime.pictures.formats import WRITABLE, Encoding, PixelFormat
from runtime.pictures.reading import READABLE, Header, open_picture
from runtime.pixels import decode, encode, grid, resize, to_float, to_uint8

LIMIT = 10**6
pictures = arrays.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3])))


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)


def smooth(height: int, width: int) -> Any:
    """A picture that a lossy format keeps nearly as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 / height, columns * 255 / width, np.full_like(rows, 90)], 2).astype(np.uint8)


def vips(pixels: Any, interpretation: str = "srgb") -> pyvips.Image:
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=interpretation)


# There and back.


@pytest.mark.parametrize("format", ["png", "tiff"])
@given(pixels=pictures)
@settings(max_examples=40)
def test_lossless_formats_come_back_bit_for_bit(format: str, pixels: Any) -> None:
    data = encode(pixels, format)
    assert open_picture(data, max_pixels=LIMIT).header == Header(
        pixels.shape[1], pixels.shape[0], PixelFormat(pixels.shape[2]), format
    )
    back = decode(data, max_pixels=LIMIT)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("bands", [1, 3])
def test_lossy_formats_come_back_nearly_as_they_were(format: str, bands: int) -> None:
    pixels = smooth(48, 64)[:, :, :bands]
    back = decode(encode(pixels, format), max_pixels=LIMIT)
    assert np.abs(back.astype(int) - pixels).mean() < 2  # grey levels; these formats give near one here


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_changes_the_file_size(format: str) -> None:
    files = [len(encode(noise(64, 64), format, quality)) for quality in (1, 50, 100)]
    assert files == sorted(files)
    assert files[0] < files[2] / 3


def test_rows_taken_from_a_larger_array_are_written_as_they_look() -> None:
    whole = noise(20, 30)
    part = whole[::2, 5:25][:, ::-1]
    np.testing.assert_array_equal(decode(encode(part, "png"), max_pixels=LIMIT), part)


# Every kind of file that people send.


def test_grey_becomes_three_equal_bands() -> None:
    pixels = noise(5, 7, 1)
    decoded = decode(vips(pixels, "b-w").pngsave_buffer(), max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded, pixels.repeat(3, 2))


@pytest.mark.parametrize("bands", [1, 3])
def test_transparent_pixels_lie_on_white(bands: int) -> None:
    pixels = np.concatenate([noise(6, 6, bands), np.zeros((6, 6, 1), np.uint8)], 2)
    pixels[:3, :, bands] = 255
    data = vips(pixels, "srgb" if bands == 3 else "b-w").pngsave_buffer()
    assert open_picture(data, max_pixels=LIMIT).header.pixel_format == PixelFormat(bands, alpha=True)
    decoded = decode(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded[:3], np.broadcast_to(pixels[:3, :, :bands], (3, 6, 3)))
    assert (decoded[3:] == 255).all()


@pytest.mark.parametrize("save", ["pngsave_buffer", "tiffsave_buffer"])
@pytest.mark.parametrize(("bands", "interpretation"), [(1, "grey16"), (3, "rgb16")])
def test_sixteen_bits_become_eight(save: str, bands: int, interpretation: str) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16, 1).repeat(bands, 2)
    decoded = decode(getattr(vips(levels * 257, interpretation), save)(), max_pixels=LIMIT)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.broadcast_to(levels, (16, 16, 3)))


def test_palettes_become_colours() -> None:
    pixels = noise(1, 8)[:, np.arange(64) % 8].reshape(8, 8, 3)
    data = vips(pixels).pngsave_buffer(palette=True, Q=100, dither=0)
    assert data[25] == 3  # PNG colour type: palette
    np.testing.assert_allclose(decode(data, max_pixels=LIMIT), pixels, atol=1)


def test_gif_is_read_and_not_written() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    data = vips(pixels).gifsave_buffer()
    assert open_picture(data, max_pixels=LIMIT).header.format == "gif"
    np.testing.assert_array_equal(decode(data, max_pixels=LIMIT), pixels)
    with pytest.raises(InvalidInput, match="gif"):
        encode(pixels, "gif")


def test_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = np.concatenate([np.full((4, 4, 3), 250, np.uint8), np.zeros((4, 4, 3), np.uint8)])
    moving = vips(frames)
    moving.set_type(pyvips.GValue.gint_type, "page-height", 4)
    decoded = decode(moving.gifsave_buffer(), max_pixels=16)
    assert decoded.shape == (4, 4, 3)
    assert (decoded > 200).all()


@pytest.mark.parametrize(
    ("ink", "colour"), [((0, 0, 0, 0), "white"), ((0, 0, 0, 255), "black"), ((0, 255, 255, 0), "red")]
)
def test_cmyk_becomes_rgb(ink: tuple[int, ...], colour: str) -> None:
    data = vips(np.full((8, 8, 4), ink, np.uint8), "cmyk").jpegsave_buffer(Q=100)
    assert open_picture(data, max_pixels=LIMIT).header.pixel_format == PixelFormat(3)
    red, green, blue = decode(data, max_pixels=LIMIT)[4, 4].tolist()
    if colour == "white":
        assert min(red, green, blue) > 245
    elif colour == "black":
        assert max(red, green, blue) < 70  # a press's black is no screen's
    else:
        assert red > 200 > 90 > max(green, blue)


# EXIF orientation → the array operation that sets the picture upright (EXIF 2.3, 4.6.4).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_set_upright(orientation: int) -> None:
    pixels = noise(5, 9)
    turned = vips(pixels)
    turned.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    data = turned.tiffsave_buffer()
    expected = UPRIGHT[orientation](pixels)
    np.testing.assert_array_equal(decode(data, max_pixels=LIMIT), expected)
    header = open_picture(data, max_pixels=LIMIT).header
    assert (header.height, header.width) == expected.shape[:2]


# Files that are wrong, or wicked.


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_that_claims(width: int, height: int, body: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(body))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("read", [open_picture, decode])
@pytest.mark.parametrize(
    ("width", "height"),
    [(1001, 1000), (50_000, 50_000), (1_000_000, 1_000_000), (2**31 - 1, 2**31 - 1), (1, 10**7)],
)
def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded(
    read: Any, width: int, height: int
) -> None:
    with pytest.raises(InvalidInput):
        read(png_that_claims(width, height, b"\0" * 1000), max_pixels=10**6)


def test_the_limit_is_exact_and_both_figures_are_in_the_message() -> None:
    data = encode(noise(10, 20), "png")
    assert open_picture(data, max_pixels=200).header.width == 20
    for read in (open_picture, decode):
        with pytest.raises(InvalidInput, match=r"20×10.*199"):
            read(data, max_pixels=199)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput):
        decode(png_that_claims(*size), max_pixels=LIMIT)


@pytest.mark.parametrize("bands", [6, 300])
def test_more_bands_than_a_picture_has_are_refused_from_the_header(bands: int) -> None:
    data = pyvips.Image.black(64, 64, bands=bands).copy(interpretation="srgb").tiffsave_buffer()
    for read in (open_picture, decode):
        with pytest.raises(InvalidInput, match=str(bands)):
            read(data, max_pixels=LIMIT)


@pytest.mark.parametrize("numbers", ["char", "short", "int", "uint"])
def test_numbers_without_an_agreed_white_are_refused_and_not_made_black(numbers: str) -> None:
    data = (
        (pyvips.Image.black(8, 8, bands=3) + 0.5).cast(numbers).copy(interpretation="srgb").tiffsave_buffer()
    )
    with pytest.raises(InvalidInput):
        decode(data, max_pixels=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"II*\0\x08\0\0\0",
        b"GIF89a",
        b"%PDF-1.4",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"P6 2 2 255 abcdefghijkl",
        b"\0" * 10_000,
    ],
)
def test_a_file_of_another_kind_is_invalid_input_and_the_formats_are_listed(data: bytes) -> None:
    for read in (open_picture, decode):
        with pytest.raises(InvalidInput) as refused:
            read(data, max_pixels=LIMIT)
        assert refused.value.field == "image"
        assert ", ".join(READABLE) in str(refused.value)


def samples() -> dict[str, bytes]:
    pixels = smooth(13, 17)
    files = {format: encode(pixels, format) for format in WRITABLE}
    files["gif"] = vips(pixels).gifsave_buffer()
    files["png, interlaced"] = vips(pixels).pngsave_buffer(interlace=True)
    files["png, palette"] = vips(pixels).pngsave_buffer(palette=True)
    files["jpeg, progressive"] = vips(pixels).jpegsave_buffer(interlace=True)
    files["webp, lossless"] = vips(pixels).webpsave_buffer(lossless=True)
    files["tiff, tiled"] = vips(pixels).tiffsave_buffer(
        tile=True, tile_width=16, tile_height=16, compression="lzw"
    )
    files["tiff, as jpeg"] = vips(pixels).tiffsave_buffer(compression="jpeg")
    return files


SAMPLES = samples()


def decodes_or_is_invalid(data: bytes) -> bool:
    """Whether a damaged file decodes all the same. Any other error than InvalidInput goes through."""
    try:
        header = open_picture(data, max_pixels=LIMIT).header
        pixels = decode(data, max_pixels=LIMIT)
    except InvalidInput:
        return False
    assert pixels.shape == (header.height, header.width, 3)
    assert pixels.dtype == np.uint8
    return True


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_file_cut_short_anywhere_is_invalid_input(kind: str) -> None:
    data = SAMPLES[kind]
    assert decodes_or_is_invalid(data)
    lengths = {
        *range(32),
        *range(32, len(data), 1 + len(data) // 64),
        *range(max(0, len(data) - 32), len(data)),
    }
    survivors = [length for length in sorted(lengths) if decodes_or_is_invalid(data[:length])]
    # Some formats end with bytes that hold no pixels (PNG's IEND, TIFF's tables of names, GIF's trailer).
    if not kind.startswith("tiff"):
        assert all(length >= len(data) - 64 for length in survivors)


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=25)
@given(st.data())
def test_flipped_bits_are_decoded_or_invalid_input(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[kind])
    for position in data.draw(st.lists(st.integers(0, len(damaged) * 8 - 1), min_size=1, max_size=8)):
        damaged[position // 8] ^= 1 << position % 8
    decodes_or_is_invalid(bytes(damaged))


@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=64), st.integers(0, 200))
@settings(max_examples=60)
def test_inserted_bytes_are_decoded_or_invalid_input(kind: str, extra: bytes, where: int) -> None:
    data = SAMPLES[kind]
    decodes_or_is_invalid(data[:where] + extra + data[where:])


def test_after_a_damaged_file_the_next_one_is_read() -> None:
    data = SAMPLES["png"]
    for _ in range(3):
        with pytest.raises(InvalidInput):
            decode(data[: len(data) // 2], max_pixels=LIMIT)
        np.testing.assert_array_equal(decode(data, max_pixels=LIMIT), smooth(13, 17))


def test_many_threads_decode_side_by_side() -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            for turn in range(20):
                pixels = noise(9 + seed, 11 + turn, seed=seed * 100 + turn)
                np.testing.assert_array_equal(decode(encode(pixels, "png"), max_pixels=LIMIT), pixels)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# The limits of what is written.


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_the_longest_side_of_a_format_is_accepted_and_one_more_pixel_refused(format: str) -> None:
    longest = WRITABLE[format].longest
    for shape in ((1, longest, 1), (longest, 1, 1)):
        data = encode(np.zeros(shape, np.uint8), format)
        assert open_picture(data, max_pixels=longest).header.width == shape[1]
    with pytest.raises(InvalidInput, match=str(longest)) as refused:
        encode(np.zeros((1, longest + 1, 1), np.uint8), format)
    assert refused.value.field == "format"


def test_webp_takes_sides_up_to_16383_px() -> None:
    Encoding("webp").check_size(16_383, 16_383)
    with pytest.raises(InvalidInput, match="png"):
        Encoding("webp").check_size(16_384, 1)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_a_very_long_picture_is_written_and_read(format: str) -> None:
    pixels = np.zeros((1, 1_000_001, 1), np.uint8)
    assert decode(encode(pixels, format), max_pixels=10**7).shape == (1, 1_000_001, 3)


@pytest.mark.parametrize("format", ["gif", "bmp", "", "PNG", "avif"])
def test_a_format_that_is_not_written_is_invalid_input(format: str) -> None:
    with pytest.raises(InvalidInput, match="png, jpeg, webp, tiff"):
        Encoding(format)


# Numbers.


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-0.5, 0.5)])
def test_every_level_comes_back(low: float, high: float) -> None:
    levels = np.arange(256, dtype=np.uint8)
    values = levels.astype(np.float32) / np.float32(255) * np.float32(high - low) + np.float32(low)
    np.testing.assert_array_equal(to_uint8(values, low, high), levels)


def test_to_float_and_back_is_the_same_picture() -> None:
    pixels = noise(7, 5)
    values = to_float(pixels)
    assert (values.shape, values.dtype.name, values.flags["C_CONTIGUOUS"]) == ((3, 7, 5), "float32", True)
    assert values.min() >= 0
    assert values.max() <= 1
    np.testing.assert_array_equal(to_uint8(values).transpose(1, 2, 0), pixels)
    assert to_float(np.array([[[0, 255]]], np.uint8)).ravel().tolist() == [0.0, 1.0]


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_values_are_clipped_rounded_and_left_as_they_were(values: Any) -> None:
    before = values.copy()
    levels = to_uint8(values)
    np.testing.assert_array_equal(values, before)
    expected = np.rint(values.astype(np.float32) * np.float32(255)).clip(0, 255)
    np.testing.assert_array_equal(levels, expected)


# Resizing and sheets.


@settings(max_examples=60)
@given(*[st.integers(1, 60)] * 4, st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.float32]))
def test_a_resized_picture_has_the_size_asked_for_and_one_colour_stays(
    height: int, width: int, to_height: int, to_width: int, bands: int, dtype: Any
) -> None:
    pixels = np.full((height, width, bands), 0.625 if dtype is np.float32 else 77, dtype)
    resized = resize(pixels, to_width, to_height)
    assert (resized.shape, resized.dtype) == ((to_height, to_width, bands), dtype)
    np.testing.assert_allclose(
        resized.astype(float), pixels[0, 0, 0], atol=1e-5 if dtype is np.float32 else 1
    )


def test_resizing_to_the_same_size_changes_nothing() -> None:
    pixels = noise(9, 12).astype(np.float32)
    np.testing.assert_allclose(resize(pixels, 12, 9), pixels, atol=1e-3)


def test_shrinking_averages_pixels() -> None:
    stripes = np.zeros((64, 64, 1), np.float32)
    stripes[:, ::2] = 1
    shrunk = resize(stripes, 8, 8)
    np.testing.assert_allclose(shrunk[1:-1, 1:-1], 0.5, atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [256, 128, 96, 70, 48, 32, 16])
def test_resizing_does_not_shift_the_picture(size: int, dtype: Any) -> None:
    """A ramp stays the same ramp, along both axes: pixels' centres map to pixels' centres."""
    ramp = (np.arange(64) + 0.5) * 4
    expected = ((np.arange(size) + 0.5) / size * 256)[size // 8 : -size // 8]
    across = np.broadcast_to(ramp[None, :, None], (8, 64, 3)).astype(dtype)
    # A tenth of a source pixel, which is four levels wide: libvips rounds positions to 1/64; uint8 rounds the levels.
    tolerance = 0.4 if dtype is np.float32 else 1.0
    for resized in (
        resize(across, size, 8)[4, :, 0],
        resize(across.transpose(1, 0, 2), 8, size)[:, 4, 0],
        resize(across, size, 20)[10, :, 0],
    ):
        np.testing.assert_allclose(resized[size // 8 : -size // 8], expected, atol=tolerance)


@settings(max_examples=40)
@given(st.integers(1, 12), st.none() | st.integers(1, 6), st.integers(0, 3))
def test_a_grid_holds_every_picture_in_reading_order(count: int, columns: int | None, gap: int) -> None:
    images = [np.full((2, 3, 3), number, np.uint8) for number in range(count)]
    sheet = grid(images, columns, gap)
    across = columns or int(np.ceil(np.sqrt(count)))
    assert sheet.shape == (-(-count // across) * (2 + gap) + gap, across * (3 + gap) + gap, 3)
    for number in range(count):
        row, column = divmod(number, across)
        top, left = row * (2 + gap) + gap, column * (3 + gap) + gap
        assert (sheet[top : top + 2, left : left + 3] == number).all()
    assert (sheet == 255).sum() == sheet.size - count * 2 * 3 * 3


def test_a_grid_of_no_pictures_is_invalid_input() -> None:
    with pytest.raises(InvalidInput):
        grid([])
