"""Callers that cancel, hang up or run out of time: their remaining work is dropped. And full queues."""

from __future__ import annotations

import gc
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import server.grpc_front.exchange
import server.grpc_front.front
from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import Overloaded
from server.client import Client
from server.limits import Limits
from server.models.models import Model
from tests.server.conftest import (
    OPTIONS,
    FakeUpscaler,
    Serve,
    Served,
    held,
    memory_for_one,
    png,
    refusal,
    until,
)

TILES = 64  # of a 200×200 picture: 8 × 8 windows of 32 with a halo of 4


def only_model(served: Served) -> Model:
    return next(iter(served.models))


def pieces(image: bytes) -> Iterator[pb.UpscaleStreamRequest]:
    yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
    yield pb.UpscaleStreamRequest(data=image)


def waiting_px(served: Served) -> int:
    """Pixels that wait for admission."""
    return served.admission.waiting_px


def rest_is_dropped(served: Served, engine: FakeUpscaler) -> None:
    """Every tile but those of the batch at the gate is dropped, the place is free, and the next request is served."""
    scheduler = only_model(served).scheduler
    until(lambda: scheduler.stats().items_dropped == TILES - engine.max_batch)
    until(lambda: served.admission.working_bytes == 0)
    engine.gate.set()
    until(lambda: engine.items_run == engine.max_batch)
    assert served.client.upscale(png(8, 8)).width == 32
    assert engine.items_run == engine.max_batch + 1


def test_a_cancelled_call_drops_its_tiles(upscaler: tuple[Served, FakeUpscaler]) -> None:
    served, engine = upscaler
    engine.gate.clear()
    call = served.stub.Upscale.future(pb.UpscaleRequest(image=png(200, 200)))
    engine.entered.wait()
    call.cancel()
    rest_is_dropped(served, engine)


def test_a_cancelled_stream_drops_its_tiles(upscaler: tuple[Served, FakeUpscaler]) -> None:
    served, engine = upscaler
    engine.gate.clear()
    call = served.stub.UpscaleStream(pieces(png(200, 200)))
    engine.entered.wait()
    call.cancel()
    rest_is_dropped(served, engine)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_caller_that_hangs_up_drops_its_tiles(
    upscaler: tuple[Served, FakeUpscaler], streamed: bool
) -> None:
    served, engine = upscaler
    engine.gate.clear()
    channel = grpc.insecure_channel(served.address, (("grpc.use_local_subchannel_pool", 1),))
    stub = pb_grpc.ImageGeneratorStub(channel)
    image = png(200, 200)
    call = (
        stub.UpscaleStream(pieces(image)) if streamed else stub.Upscale.future(pb.UpscaleRequest(image=image))
    )
    engine.entered.wait()
    channel.close()
    rest_is_dropped(served, engine)
    del call


@pytest.mark.parametrize("streamed", [False, True])
def test_past_its_deadline_a_request_drops_its_tiles(
    upscaler: tuple[Served, FakeUpscaler], streamed: bool
) -> None:
    served, engine = upscaler
    engine.gate.clear()
    image = png(200, 200)
    call = (
        served.stub.UpscaleStream(pieces(image), timeout=0.5)
        if streamed
        else served.stub.Upscale.future(pb.UpscaleRequest(image=image), timeout=0.5)
    )
    error = refusal(lambda: list(call) if streamed else call.result())
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    rest_is_dropped(served, engine)


def test_a_request_cancelled_while_waiting_frees_its_place(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine, limits=Limits(max_active_bytes=memory_for_one(80, 80)))
    with ThreadPoolExecutor(1) as pool, held(engine):
        first = pool.submit(served.client.upscale, png(80, 80))
        engine.entered.wait()
        waiter = served.stub.Upscale.future(pb.UpscaleRequest(image=png(80, 80)))
        until(lambda: waiting_px(served) > 0)
        waiter.cancel()
        until(lambda: waiting_px(served) == 0)
        engine.gate.set()
        assert first.result(30).width == 320


def test_a_full_queue_refuses_at_once_with_a_retry_delay(serve: Serve) -> None:
    engine = FakeUpscaler()
    request_px = 9 * 32 * 32  # 60×60 is 3 × 3 windows of 32 with a halo of 4
    served = serve(
        engine, limits=Limits(max_active_bytes=memory_for_one(60, 60), max_queue_pixels=request_px)
    )
    request = pb.UpscaleRequest(image=png(60, 60))
    with ThreadPoolExecutor(1) as pool, held(engine):
        first = pool.submit(served.client.upscale, png(60, 60))
        engine.entered.wait()
        waiting = served.stub.Upscale.future(request)
        until(lambda: waiting_px(served) == request_px)
        error = refusal(lambda: served.stub.Upscale(request))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(error).details[0].Unpack(retry)
        assert retry.retry_delay.ToNanoseconds() > 0
        assert any(key == "grpc-retry-pushback-ms" for key, _ in error.trailing_metadata())
        engine.gate.set()
        assert first.result(30).width == 240
        assert waiting.result(30).width == 240


def test_calls_beyond_the_limit_are_refused_with_a_retry_delay(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine, limits=Limits(max_calls=1))
    with ThreadPoolExecutor(1) as pool, held(engine):
        first = pool.submit(served.client.upscale, png(40, 40))
        engine.entered.wait()
        with pytest.raises(Overloaded, match="--max-calls") as caught:
            served.client.upscale(png(4, 4))
        assert caught.value.retry_after_s > 0
        assert served.client.serving()  # health is no call of ours
        engine.gate.set()
        assert first.result(30).width == 160


def test_the_client_retries_when_the_queue_was_full(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine, limits=Limits(max_active_bytes=memory_for_one(40, 40), max_queue_pixels=1))
    image = png(40, 40)
    with ThreadPoolExecutor(2) as pool, Client(served.address) as patient, held(engine):
        first = pool.submit(served.client.upscale, image)
        engine.entered.wait()
        with pytest.raises(Overloaded, match="queue"):
            served.client.upscale(image)
        second = pool.submit(patient.upscale, image)
        engine.gate.set()
        assert first.result(30).width == second.result(30).width == 160


def test_a_stalled_upload_is_ended(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(idle_s=0.05))
    ended = threading.Event()

    def stands_still() -> Iterator[pb.UpscaleStreamRequest]:
        yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
        ended.wait(30)

    error = refusal(lambda: list(served.stub.UpscaleStream(stands_still())))
    ended.set()
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "nothing was uploaded" in error.details()


def test_a_stalled_reader_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.grpc_front.exchange, "STATUS_S", 0.2)
    served = serve(FakeUpscaler(), limits=Limits(idle_s=0.2, max_calls=1))
    small_window = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535), *OPTIONS)
    with grpc.insecure_channel(served.address, small_window) as channel:
        call = pb_grpc.ImageGeneratorStub(channel).UpscaleStream(pieces(png(700, 700)))
        until(lambda: served.calls("DEADLINE_EXCEEDED") > 0)
        with Client(served.address) as patient:  # there is room for one call, and it is free again
            assert patient.upscale(png(8, 8)).width == 32
        until(lambda: not coroutines_of_the_front())  # nor does the status wait for a reader
        call.cancel()


def coroutines_of_the_front() -> list[Any]:
    """The front's coroutines that are not finished."""
    # By type(): isinstance asks an object for its class, and torch's deprecated ones answer with a warning.
    coroutines = [each for each in gc.get_objects() if type(each) is types.CoroutineType]
    return [
        each
        for each in coroutines
        if each.cr_code.co_filename in (server.grpc_front.front.__file__, server.grpc_front.exchange.__file__)
        and each.cr_frame
    ]
