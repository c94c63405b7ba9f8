"""Bytes of requests before they are parsed: what is taken out unparsed, and what is refused. And what a refusal costs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from protos import ganforge_pb2 as pb
from runtime.errors import InvalidInput
from server.grpc_front import messages as answers
from server.grpc_front import wire
from server.grpc_front.exchange import Exchange
from server.grpc_front.messages import ANSWER_IMAGE, ANSWER_IMAGES
from server.limits import MESSAGE_MARGIN_BYTES, Limits
from tests.server.conftest import (
    LATENT,
    FakeGenerator,
    FakeUpscaler,
    Serve,
    Served,
    held,
    png,
    refusal,
    until,
)

UNARY = "/ganforge.v1.ImageGenerator/"


@given(image=st.binary(max_size=300), model=st.text(max_size=20), quality=st.integers(0, 2**32 - 1))
def test_a_picture_is_taken_out_and_the_rest_parses_as_before(image: bytes, model: str, quality: int) -> None:
    request = pb.UpscaleRequest(model=model, image=image, quality=quality, outscale=2.0)
    others, value = wire.split(request.SerializeToString(), 2)
    assert (value or b"") == image
    request.image = b""
    assert pb.UpscaleRequest.FromString(others) == request


def test_the_last_of_several_values_counts_and_an_absent_one_is_none() -> None:
    first, second = (pb.UpscaleRequest(image=image).SerializeToString() for image in (b"first", b"second"))
    assert wire.split(first + second, 2) == (b"", b"second")
    assert wire.split(pb.UpscaleRequest(model="m").SerializeToString(), 2)[1] is None
    assert wire.split(b"\x12\x00", 2) == (b"", b"")


@given(images=st.lists(st.binary(max_size=300), max_size=5), model=st.text(max_size=20))
def test_files_are_joined_to_a_message_as_protobuf_writes_them(images: list[bytes], model: str) -> None:
    without = pb.GenerateResponse(model=model, seed=2**64 - 1)
    joined = wire.join(without.SerializeToString(), ANSWER_IMAGES, images)
    assert pb.GenerateResponse.FromString(joined) == pb.GenerateResponse(
        model=model, seed=2**64 - 1, images=images
    )
    for kind in (pb.UpscaleResponse, pb.TranslateResponse):
        for image in images:
            joined = wire.join(kind(model=model).SerializeToString(), ANSWER_IMAGE, [image])
            assert kind.FromString(joined) == kind(model=model, image=image)


def test_protobuf_does_not_see_the_files_of_answers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would copy them several times while it holds Python's lock, and with it all other calls.
    seen: list[bytes] = []

    def watched(make: Callable[..., Any], *arguments: Any) -> Any:
        seen.append(make(*arguments).SerializeToString())
        return make(*arguments)

    for name in ("image_response", "generate_response"):
        monkeypatch.setattr(answers, name, partial(watched, getattr(answers, name)))
    image = served.stub.Upscale(pb.UpscaleRequest(image=png(9, 9))).image
    images = served.stub.Generate(pb.GenerateRequest(model="generator", count=3, seed=1)).images
    assert len(seen) == 2
    assert len(images) == 3
    assert not any(file in data for file in (image, *images) for data in seen)


@given(st.binary(max_size=60))
def test_any_bytes_are_split_or_refused(data: bytes) -> None:
    try:
        others, value = wire.split(data, 2)
    except InvalidInput:
        return
    assert len(others) + len(value or b"") <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",
        b"\x12\x05abc",
        b"\x80" * 11,
        b"\x0b\x0c",
        b"\x09\x01",
        b"\x0d\x01",
        b"\x12\xff\xff\xff\xff\x7f",
    ],
    ids=["no length", "too short", "endless tag", "group", "half a fixed64", "half a fixed32", "huge length"],
)
def test_malformed_messages_are_refused(served: Served, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="no message of this method"):
        wire.split(data, 2)
    error = refusal(lambda: raw(served, "Upscale")(data))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def raw(served: Served, method: str, service: str = UNARY) -> Callable[[bytes], bytes]:
    """A unary call that sends bytes as they are."""
    return served.channel.unary_unary(service + method, None, None)


def test_a_picture_may_be_large_but_not_what_is_beside_it(served: Served) -> None:
    error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(model="x" * MESSAGE_MARGIN_BYTES)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{MESSAGE_MARGIN_BYTES} bytes" in error.details()
    fields = pb.UpscaleRequest(quality=5).SerializeToString() * (wire.MOST_FIELDS + 1)
    error = refusal(lambda: raw(served, "Upscale")(fields))
    assert f"{wire.MOST_FIELDS} fields" in error.details()


@pytest.mark.parametrize(
    ("method", "service"),
    [("ListModels", UNARY), ("Check", "/grpc.health.v1.Health/")],
)
def test_messages_without_a_picture_are_a_few_kilobytes_at_most(
    served: Served, method: str, service: str
) -> None:
    message = health_pb2.HealthCheckRequest(service="x" * 5000).SerializeToString()
    error = refusal(lambda: raw(served, method, service)(message))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected at most 4096" in error.details()


def test_generate_takes_as_many_latents_as_samples_and_refuses_more_before_parsing(serve: Serve) -> None:
    served = serve(FakeGenerator(), limits=Limits(max_count=2_000))
    latent = pb.Latent(values=[0.5] * LATENT)
    full = pb.GenerateRequest(count=2_000, latents=[latent] * 2_000, labels=[1] * 2_000)
    error = refusal(lambda: served.stub.Generate(pb.GenerateRequest(count=1, latents=[latent] * 2_000)))
    assert "count = 1" in error.details()
    assert len(served.stub.Generate(full).images) == 2_000
    error = refusal(lambda: raw(served, "Generate")(b"\x2a\x00" * 2**18))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "--max-count" in error.details()


def test_a_unary_call_has_exactly_one_message(served: Served) -> None:
    call = served.channel.stream_unary(UNARY + "ListModels", None, None)
    for messages, word in (([], "without a message"), ([b"", b""], "second message")):
        error = refusal(lambda messages=messages: call(iter(messages)))  # type: ignore[misc]
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert word in error.details()
    assert call(iter([b""]))


@contextmanager
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def calls_in_memory() -> int:
    return sum(type(each) is Exchange for each in gc.get_objects())


def test_ended_calls_leave_memory_without_a_collection(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine, limits=Limits(max_calls=1))
    with no_collections():
        for request in (
            pb.UpscaleRequest(image=b"text"),
            pb.UpscaleRequest(model="nope"),
            pb.UpscaleRequest(image=png(4, 4), quality=0),
            pb.UpscaleRequest(model="x" * MESSAGE_MARGIN_BYTES),
        ):
            refusal(lambda request=request: served.stub.Upscale(request))  # type: ignore[misc]
        assert served.stub.Upscale(pb.UpscaleRequest(image=png(4, 4))).width == 16
        with held(engine):
            first = served.stub.Upscale.future(pb.UpscaleRequest(image=png(8, 8)))
            engine.entered.wait()
            refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=png(4, 4))))
            first.cancel()
        until(lambda: calls_in_memory() == 0)
