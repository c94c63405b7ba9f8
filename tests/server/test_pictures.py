"""Every kind of picture through gRPC into every format: right pixels, depth, colours and transparency."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import grpc
import numpy as np
import pytest
import pyvips
from PIL import Image

from protos import ganforge_pb2 as pb
from runtime.errors import InvalidInput
from runtime.pictures.scaling import scaled
from runtime.pictures.transparency import fill
from runtime.tensors import Array
from tests.runtime.mutations import mutated, seeds
from tests.server.conftest import SCALE, Served, refusal, smooth_and_enlarge
from tests.server.kinds import HEIGHT, KINDS, WIDTH, Kind, levels, planes, saved, tiff_by_hand, vips

FORMATS = ("png", "jpeg", "webp", "tiff")
# The deepest samples that a format holds.
DEEPEST = {"png": 16, "jpeg": 8, "webp": 8, "tiff": 32}
# Pillow's names → libvips' names for the same.
MODES = {(1, 8): "L", (2, 8): "LA", (3, 8): "RGB", (4, 8): "RGBA", (1, 16): "I;16", (1, 32): "F"}


def read_back(file: bytes, bits: int) -> Array:
    """[C, H, W] float32 in [0, 1] of an answer, by Pillow where it knows the kind. Asserts that it has those bits."""
    image = pyvips.Image.new_from_buffer(file, "")
    assert image.format == {8: "uchar", 16: "ushort", 32: "float"}[bits]
    mode = MODES.get((image.bands, bits))
    if mode is None:
        return planes(image.numpy())
    with Image.open(io.BytesIO(file)) as opened:
        assert opened.mode == mode
        return planes(np.asarray(opened))


def reference(kind: Kind, format: str) -> Array:
    """[C, H, W] float32: the fake upscaler on the picture itself, as the format can hold it."""
    shown = kind.planes
    if kind.alpha:
        shown = np.concatenate([fill(shown[:-1], shown[-1]), shown[-1:]])
    upscaled = smooth_and_enlarge(shown[None])[0].clip(0, 1)
    if kind.alpha and (kind.planes[-1] == kind.planes[-1].flat[0]).all():
        upscaled[-1] = kind.planes[-1].flat[0]
    if format == "jpeg" and kind.alpha:
        upscaled = upscaled[:-1] * upscaled[-1:] + (1 - upscaled[-1:])
    if format == "webp" and len(upscaled) < 3:
        upscaled = np.concatenate([upscaled[:1].repeat(3, 0), upscaled[1:]])
    if format == "webp" and len(upscaled) == 4 and (upscaled[3] == 1).all():
        upscaled = upscaled[:3]  # libwebp leaves out an alpha that hides nothing
    return upscaled


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_upscaled_as_its_pixels_are(served: Served, name: str) -> None:
    kind = KINDS[name]()
    for format in (None, *FORMATS):
        answer = served.client.upscale(kind.file, format=format)
        written = format or kind.format
        assert answer.format == written
        assert (answer.width, answer.height) == (WIDTH * SCALE, HEIGHT * SCALE)
        bits = min(kind.bits, DEEPEST[written])
        pixels_read, wanted = read_back(answer.image, bits), reference(kind, written)
        assert pixels_read.shape == wanted.shape, written
        difference = np.abs(pixels_read - wanted) * 255
        if written in ("png", "tiff"):
            # Half a level for its rounding, and as much for the order of the sum of nine that is rounded.
            rounding = {8: 1.0, 16: 1 / 257, 32: 1e-3}[bits]
            assert difference.max() <= rounding + kind.levels, written
        else:
            # The mean over all: a lossy format keeps these slopes, and not each pixel at the edge of the dark rim.
            assert difference.mean() <= 2.5 + kind.levels, written


# Sizes.


def file_of(pixels: Array) -> bytes:
    """A PNG of [H, W, C] uint8 or uint16, or a TIFF of float32."""
    channels = pixels.shape[2]
    words = {"u1": ("b-w", "srgb"), "u2": ("grey16", "rgb16"), "f4": ("b-w", "scrgb")}[pixels.dtype.str[1:]]
    image = vips(pixels, words[channels > 2])
    return image.tiffsave_buffer() if pixels.dtype.kind == "f" else image.pngsave_buffer()


def noise(height: int, width: int, channels: int, dtype: Any) -> Array:
    random = np.random.default_rng(height * width + channels)
    if np.dtype(dtype).kind == "f":
        return random.random((height, width, channels), np.float32)
    return random.integers(1, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def answered(side: int, outscale: float) -> int:
    """The answer's side; on the wire a factor is a 32-bit float."""
    return max(1, round(side * float(np.float32(outscale))))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 2), (5000, 1), (1, 5000), (2, 33), (65, 31)])
def test_any_size_of_any_kind_of_file_is_upscaled_correctly(
    served: Served, width: int, height: int, channels: int, dtype: Any
) -> None:
    pixels = noise(height, width, channels, dtype)
    bits = np.dtype(dtype).itemsize * 8
    answer = served.client.upscale(file_of(pixels))
    pixels_read = read_back(answer.image, bits)
    wanted = reference(Kind(b"", planes(pixels), bits), answer.format)
    assert pixels_read.shape == wanted.shape
    colours = channels - (channels in (2, 4))
    # Alpha stays exact in a tile that is one value all over, as one of a single pixel is.
    compared = slice(0, colours) if width * height < 3 else slice(None)
    assert np.abs(pixels_read - wanted)[compared].max() * 255 <= {8: 1.0, 16: 1 / 257, 32: 1e-3}[bits]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_another_scale_is_resized_before_rounding_in_every_depth(
    served: Served, channels: int, dtype: Any
) -> None:
    pixels = noise(37, 50, channels, dtype)
    bits = np.dtype(dtype).itemsize * 8
    whole = reference(Kind(b"", planes(pixels), bits), "png").transpose(1, 2, 0)
    for outscale in (0.001, 0.02, 0.33, 1.0, 2.0, 3.999, 4.001, 5.5, 12.0):
        answer = served.client.upscale(file_of(pixels), outscale=outscale)
        width, height = answered(50, outscale), answered(37, outscale)
        pixels_read = read_back(answer.image, bits)
        assert pixels_read.shape == (channels, height, width)
        image = vips(whole, {1: "b-w", 2: "b-w", 3: "scrgb", 4: "scrgb"}[channels])
        wanted = planes(scaled(image, width, height).numpy().reshape(height, width, -1)).clip(0, 1)
        # The order of the sums that resizing makes, beside the rounding.
        assert np.abs(pixels_read - wanted).max() * 255 <= {8: 1.0, 16: 2 / 257, 32: 1e-2}[bits]


@pytest.mark.parametrize("outscale", [0.01, 0.3, 7.0])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (5000, 1), (1, 5000)])
def test_extreme_shapes_at_extreme_scales(served: Served, width: int, height: int, outscale: float) -> None:
    for dtype in (np.uint8, np.uint16, np.float32):
        answer = served.client.upscale(file_of(noise(height, width, 3, dtype)), outscale=outscale)
        wanted = answered(width, outscale), answered(height, outscale)
        pixels_read = read_back(answer.image, np.dtype(dtype).itemsize * 8)
        assert (answer.width, answer.height) == wanted == pixels_read.shape[:0:-1]


@pytest.mark.parametrize("outscale", [0.4, 1.5, 3.0, 6.0])
def test_an_answer_can_be_sent_again(served: Served, outscale: float) -> None:
    """A float TIFF above all: kernels swing beyond black and white, and such pixels would be refused."""
    harsh = np.zeros((40, 40, 3), np.float32)
    harsh[::8], harsh[:, ::8] = 1, 1
    answer = served.client.upscale(file_of(harsh), outscale=outscale)
    assert answer.format == "tiff"
    pixels_read = pyvips.Image.new_from_buffer(answer.image, "")
    assert pixels_read.min() >= 0
    assert pixels_read.max() <= 1
    again = served.client.upscale(answer.image)
    assert again.width == answer.width * SCALE


# Files that are refused, each for a reason that says so.


def test_pixels_without_an_agreed_meaning_are_refused(served: Served) -> None:
    rgb = {258: ("H", [8] * 3), 277: ("H", [3])}
    pixels = levels(3).tobytes()
    refused = {
        "YCbCr": tiff_by_hand({**rgb, 262: ("H", [6]), 530: ("H", [1, 1])}, [pixels]),
        "ICCLab": tiff_by_hand({**rgb, 262: ("H", [9])}, [pixels]),
        "bands": tiff_by_hand({**rgb, 262: ("H", [1])}, [pixels]),
        "pixel (3, 2) is nan": file_of(with_pixel(np.nan)),
        "pixel (3, 2) is 1.2": file_of(with_pixel(1.2)),
        "pixel (3, 2) is -0.2": file_of(with_pixel(-0.2)),
        "bands of int": saved(Image.fromarray(np.full((9, 9), 70_000, np.int32)), "TIFF"),
    }
    for words, file in refused.items():
        error = refusal(lambda file=file: served.stub.Upscale(pb.UpscaleRequest(image=file)))  # type: ignore[misc]
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert words in error.details()


def with_pixel(value: float) -> Array:
    pixels = np.full((9, 9, 3), 0.5, np.float32)
    pixels[2, 3, 1] = value
    return pixels


def test_a_jpeg_inside_a_tiff_is_ycbcr_and_is_read(served: Served) -> None:
    flat = np.full((32, 32, 3), (200, 80, 40), np.uint8)
    file = vips(flat, "srgb").tiffsave_buffer(compression="jpeg", Q=95)
    pixels_read = read_back(served.client.upscale(file).image, 8)[:, 64, 64] * 255
    assert np.abs(pixels_read - (200, 80, 40)).max() <= 2


def test_damaged_files_of_every_kind_are_refused_with_a_message(served: Served) -> None:
    originals = list(seeds().values())
    ends: Counter[str] = Counter()
    for number in range(400):
        try:
            served.client.upscale(mutated(number, 4, originals))
            ends["upscaled"] += 1
        except InvalidInput as error:  # any other error fails the test
            ends[error.field] += 1
    assert set(ends) == {"upscaled", "image"}
