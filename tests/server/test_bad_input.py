"""Wrong requests: refused with the right status and field, and the next request is served."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import ganforge_pb2 as pb
from runtime.errors import EngineError
from server.limits import Limits
from tests.server.conftest import LATENT, FakeGenerator, FakeUpscaler, Serve, Served, png, refusal

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture(autouse=True)
def next_request_is_served(served: Served) -> Iterator[None]:
    yield
    assert served.client.upscale(png(5, 4)).width == 20
    assert len(served.client.generate(2, model="generator").images) == 2


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def refused(call: Callable[[], Any], code: grpc.StatusCode, *words: str, field: str | None = None) -> None:
    """The call ends with `code`, its message holds all `words`, and its BadRequest detail names `field`."""
    error = refusal(call)
    assert error.code() == code, error.details()
    for word in words:
        assert word in error.details()
    status = rpc_status.from_call(error)
    assert any(key == "x-request-id" for key, _ in error.trailing_metadata())
    if code == INVALID:
        (detail,) = status.details
        bad = error_details_pb2.BadRequest()
        assert detail.Unpack(bad)
        (violation,) = bad.field_violations
        assert violation.field == field
        assert violation.description


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", ["0 bytes", "png"]),
        (b"hello, I am text and no image at all", ["are not an image"]),
        (png(60, 60)[:1500], ["damaged or cut short"]),
        (png(60, 60)[:20], ["image"]),
        (bomb(100_000, 100_000), ["100000×100000", "67108864"]),
        (bomb(2_000, 2_000), ["damaged or cut short"]),
        (bomb(0, 5), ["image"]),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", ["image"]),
        (b"%PDF-1.4", ["image"]),
    ],
    ids=["empty", "text", "truncated", "stub", "bomb", "hollow", "no-width", "svg", "pdf"],
)
def test_a_file_that_is_not_an_image_is_refused(served: Served, image: bytes, words: list[str]) -> None:
    refused(lambda: served.stub.Upscale(pb.UpscaleRequest(image=image)), INVALID, *words, field="image")
    refused(lambda: list(served.stub.UpscaleStream(stream(image))), INVALID, *words, field="image")


def stream(*data: bytes) -> Iterator[pb.UpscaleStreamRequest]:
    yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
    for piece in data:
        yield pb.UpscaleStreamRequest(data=piece)


@pytest.mark.parametrize(
    ("options", "field", "word"),
    [
        ({"outscale": 0.0}, "outscale", "above 0"),
        ({"outscale": -1.0}, "outscale", "-1.0"),
        ({"outscale": math.nan}, "outscale", "nan"),
        ({"outscale": math.inf}, "outscale", "inf"),
        ({"outscale": 1e30}, "outscale", "--max-output-pixels"),
        ({"quality": 0}, "quality", "1 to 100"),
        ({"quality": 101}, "quality", "101"),
        ({"format": 77}, "format", "got '77', expected one of png"),
        ({"model": "generator"}, "model", "upscaler"),
    ],
)
def test_wrong_options_of_upscale_are_refused_by_field(
    served: Served, options: dict[str, Any], field: str, word: str
) -> None:
    request = pb.UpscaleRequest(image=png(4, 4), **options)
    refused(lambda: served.stub.Upscale(request), INVALID, word, field=field)


@pytest.mark.parametrize("name", ["nope", "x" * 50_000, "esrgan\n\x00é😀", "../../etc/passwd"])
def test_an_unknown_model_is_refused_with_the_known_ones(served: Served, name: str) -> None:
    refused(
        lambda: served.stub.Upscale(pb.UpscaleRequest(model=name, image=png(2, 2))), NOT_FOUND, "upscaler"
    )
    refused(lambda: served.stub.Generate(pb.GenerateRequest(model=name, count=1)), NOT_FOUND, "generator")


NAN = pb.Latent(values=[math.nan] * LATENT)
FINE = pb.Latent(values=[0.5] * LATENT)


@pytest.mark.parametrize(
    ("options", "field", "word"),
    [
        ({"count": 0}, "count", "1 to 256"),
        ({"count": 1_000_000}, "count", "--max-count"),
        ({"count": 2**32 - 1}, "count", "--max-count"),
        ({"count": 1, "labels": [3]}, "labels", "0 to 2 (0 class0"),
        ({"count": 1, "labels": [2**32 - 1]}, "labels", "0 to 2"),
        ({"count": 3, "labels": [1, 1]}, "labels", "none, 1 or count = 3"),
        (
            {"count": 1, "latents": [pb.Latent(values=[0.0] * (LATENT - 1))]},
            "latents[0]",
            f"expected {LATENT}",
        ),
        ({"count": 1, "latents": [pb.Latent()]}, "latents[0]", "0 values"),
        ({"count": 2, "latents": [FINE]}, "latents", "count = 2"),
        ({"count": 2, "latents": [FINE, NAN]}, "latents[1]", "nan"),
        ({"count": 1, "latents": [pb.Latent(values=[math.inf] * LATENT)]}, "latents[0]", "inf"),
        ({"count": 1, "latents": [pb.Latent(values=[3e38] * LATENT)]}, "latents[0]", "±100"),
        ({"count": 1, "latents": [FINE], "seed": 4}, "seed", "latents"),
        ({"count": 1, "latents": [FINE], "truncation": 1.0}, "truncation", "latents"),
        ({"count": 1, "truncation": 0.0}, "truncation", "above 0"),
        ({"count": 1, "truncation": math.nan}, "truncation", "nan"),
        ({"count": 1, "format": 9}, "format", "9"),
        ({"count": 1, "model": ""}, "model", "generator, plain"),
        ({"count": 1, "model": "upscaler"}, "model", "generator, plain"),
    ],
)
def test_wrong_options_of_generate_are_refused_by_field(
    served: Served, options: dict[str, Any], field: str, word: str
) -> None:
    request = pb.GenerateRequest(**{"model": "generator", **options})
    refused(lambda: served.stub.Generate(request), INVALID, word, field=field)


def test_labels_for_a_model_without_classes_are_refused(served: Served) -> None:
    request = pb.GenerateRequest(model="plain", count=1, labels=[0])
    refused(lambda: served.stub.Generate(request), INVALID, "no classes", field="labels")


HEADER = pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
DATA = pb.UpscaleStreamRequest(data=b"x")


@pytest.mark.parametrize(
    ("parts", "field", "word"),
    [
        ([], "part", "ended without"),
        ([DATA], "part", "expected a header"),
        ([pb.UpscaleStreamRequest()], "part", "expected a header"),
        ([HEADER, HEADER], "part", "got header"),
        ([HEADER, pb.UpscaleStreamRequest()], "part", "neither"),
        ([HEADER], "image", "0 bytes"),
        ([pb.UpscaleStreamRequest(header=pb.UpscaleRequest(image=b"abc"))], "header.image", "3 bytes"),
    ],
)
def test_a_stream_in_the_wrong_order_is_refused(
    served: Served, parts: list[pb.UpscaleStreamRequest], field: str, word: str
) -> None:
    refused(lambda: list(served.stub.UpscaleStream(iter(parts))), INVALID, word, field=field)


def test_a_request_over_a_limit_is_refused_with_the_flag(serve: Serve) -> None:
    limits = Limits(max_pixels=500, max_output_pixels=6_000, max_upload_bytes=3_000, max_count=10_000)
    small = serve(FakeUpscaler(), FakeGenerator(), limits=limits)
    refused(
        lambda: small.stub.Upscale(pb.UpscaleRequest(image=png(30, 30))),
        INVALID,
        "500",
        field="image",
    )
    large = pb.UpscaleRequest(image=png(20, 20))
    refused(lambda: small.stub.Upscale(large), INVALID, "--max-output-pixels", field="image")
    refused(
        lambda: list(small.stub.UpscaleStream(stream(png(60, 60)))),
        INVALID,
        "--max-upload-bytes",
        field="data",
    )
    many = pb.GenerateRequest(count=200)
    refused(lambda: small.stub.Generate(many), INVALID, "--max-output-pixels", field="count")


def test_a_message_over_the_cap_is_refused_and_the_next_one_served(serve: Serve) -> None:
    small = serve(FakeUpscaler(), limits=Limits(max_message_bytes=100_000))
    error = refusal(lambda: small.stub.Upscale(pb.UpscaleRequest(image=bytes(200_000))))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # gRPC's own answer, before any of our code
    assert small.client.upscale(png(5, 5)).width == 20


def test_an_engine_failure_or_a_bug_is_internal_with_the_request_id(
    upscaler: tuple[Served, FakeUpscaler],
) -> None:
    served, engine = upscaler
    request = pb.UpscaleRequest(image=png(4, 4))
    for failure in (EngineError("output holds NaN"), ZeroDivisionError("secret")):
        engine.failure = failure
        error = refusal(lambda: served.stub.Upscale(request, metadata=(("x-request-id", "abc-1"),)))
        assert error.code() == grpc.StatusCode.INTERNAL
        assert ("x-request-id", "abc-1") in error.trailing_metadata()
        assert "secret" not in error.details()
    engine.failure = None
    assert served.client.upscale(png(4, 4)).width == 16
    logged = [line for line in served.lines if line.get("request_id") == "abc-1"]
    assert [line["code"] for line in logged] == ["INTERNAL"] * 2
    assert isinstance(logged[1]["exc_info"], ZeroDivisionError)


@settings(max_examples=150)
@given(st.data())
def test_a_mutated_file_is_answered_or_refused(served: Served, data: st.DataObject) -> None:
    image = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(image) - 1))
        image[at] = data.draw(st.integers(0, 255))
    image = image[: data.draw(st.integers(1, len(image)))] if data.draw(st.booleans()) else image
    call = served.stub.Upscale.future(pb.UpscaleRequest(image=bytes(image), format=pb.IMAGE_FORMAT_PNG))
    assert call.code() in (grpc.StatusCode.OK, INVALID), call.details()


def seeds() -> list[bytes]:
    from runtime import pixels
    from tests.server.conftest import picture

    return [pixels.encode(picture(9, 7), format) for format in ("png", "jpeg", "webp", "tiff")]


SEEDS = seeds()
