"""Encoding options (quality, lossless, compression) through gRPC, the Python client and the command line."""

from __future__ import annotations

import io
from typing import Any

import grpc
import numpy as np
import pytest
import pyvips
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from protos import ganforge_pb2 as pb
from tests.server.conftest import Served, decoded, expected, levels_apart, picture, png, refusal
from tests.server.kinds import saved, vips, waves


def field_refused(served: Served, **options: Any) -> str:
    """The request's field that the server names when it refuses."""
    request = pb.UpscaleRequest(image=png(9, 9), **options)
    error = refusal(lambda: served.stub.Upscale(request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = error_details_pb2.BadRequest()
    assert rpc_status.from_call(error).details[0].Unpack(details)
    return str(details.field_violations[0].field)


# What is asked for.


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_changes_the_file_size_and_has_the_documented_default(served: Served, format: str) -> None:
    file = png(40, 40)
    sizes = [len(served.client.upscale(file, format=format, quality=q).image) for q in (1, 50, 100)]
    assert sizes[0] < sizes[1] < sizes[2]
    default = {"jpeg": 92, "webp": 90}[format]
    asked = served.client.upscale(file, format=format, quality=default)
    assert asked.image == served.client.upscale(file, format=format).image


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_a_lossless_format_takes_no_notice_of_quality(served: Served, format: str) -> None:
    answers = {served.client.upscale(png(20, 20), format=format, quality=q).image for q in (None, 1, 100)}
    assert len(answers) == 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_lossless_webp_has_the_pixels_of_the_png(served: Served, channels: int) -> None:
    random = np.random.default_rng(channels).integers(1, 256, (50, 40, channels), np.uint8)
    file = vips(random, "b-w" if channels == 1 else "srgb").pngsave_buffer()
    webp = served.client.upscale(file, format="webp", lossless=True, quality=5)
    same = served.client.upscale(file, format="png")
    mode = "RGBA" if channels == 4 else "RGB"
    left, right = (np.asarray(Image.open(io.BytesIO(answer.image)).convert(mode)) for answer in (webp, same))
    np.testing.assert_array_equal(left, right)
    assert served.client.upscale(file, format="webp").image != webp.image


def test_a_lossless_webp_can_be_answered_lossless(served: Served) -> None:
    file = saved(Image.fromarray(picture(20, 20)), "WEBP", lossless=True)
    kept = served.client.upscale(file, lossless=True)
    assert kept.format == "webp"
    assert levels_apart(decoded(kept.image), expected(picture(20, 20))) <= 1


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_compression_changes_the_size_and_never_the_pixels(served: Served, format: str) -> None:
    for bits, words in ((8, "srgb"), (16, "rgb16")):
        steps = np.rint(waves(3, 90, 90) * 6) / 6 * (2**bits - 1)  # repeats, which a better search finds
        file = vips(steps.astype(f"u{bits // 8}"), words).pngsave_buffer()
        answers = {c: served.client.upscale(file, format=format, compression=c).image for c in (0, 1, 9)}
        sizes = {c: len(answer) for c, answer in answers.items()}
        assert sizes[0] > 360 * 360 * 3 * bits // 8 > 2 * sizes[1]
        assert sizes[9] < sizes[1]
        first, *others = (pyvips.Image.new_from_buffer(file, "").numpy() for file in answers.values())
        for other in others:
            np.testing.assert_array_equal(first, other)
        assert served.client.upscale(file, format=format).image == answers[1]


def test_a_float_tiff_is_compressed_without_loss(served: Served) -> None:
    file = vips(waves(3, 40, 40), "scrgb").tiffsave_buffer()
    plain, packed = (served.client.upscale(file, compression=c).image for c in (0, 9))
    assert len(packed) < len(plain)
    left, right = (pyvips.Image.new_from_buffer(file, "").numpy() for file in (plain, packed))
    np.testing.assert_array_equal(left, right)


def test_impossible_encodings_are_refused_by_field(served: Served) -> None:
    jpeg, webp = pb.IMAGE_FORMAT_JPEG, pb.IMAGE_FORMAT_WEBP
    assert field_refused(served, format=jpeg, lossless=True) == "lossless"
    assert field_refused(served, compression=10) == "compression"
    assert field_refused(served, compression=2**32 - 1) == "compression"
    assert field_refused(served, format=webp, quality=0) == "quality"
    assert field_refused(served, format=webp, quality=101) == "quality"
    assert field_refused(served, format=webp, outscale=2000.0) == "format"  # 18,000 px are too long for it
    # A JPEG that came is as little lossless as one that was asked for.
    file = saved(Image.fromarray(picture(9, 9)), "JPEG")
    error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=file, lossless=True)))
    assert "png, webp, tiff" in error.details()
