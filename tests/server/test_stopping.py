"""Calls that come, run or are read while the server stops, and readers who go away: what callers and the log are told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import structlog

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import Cancelled
from server.core.calls import Call
from server.core.transit import Transit
from server.grpc_front.exchange import Exchange
from server.limits import Limits
from server.logs import configure
from tests.server.conftest import OPTIONS, FakeUpscaler, Serve, held, png, until

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("attempt", range(3))
def test_calls_that_arrive_while_the_server_stops_are_done_or_unavailable(serve: Serve, attempt: int) -> None:
    served = serve(FakeUpscaler())
    codes: Counter[grpc.StatusCode] = Counter()
    over = threading.Event()

    def call_again_and_again() -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        with grpc.insecure_channel(served.address, options) as channel:
            stub = pb_grpc.ImageGeneratorStub(channel)
            while not over.is_set():
                calls = [stub.ListModels.future(pb.ListModelsRequest()) for _ in range(8)]
                codes.update(call.code() for call in calls)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(call_again_and_again)
        until(lambda: codes[OK] > 20)
        served.run(served.server.drain(10))
        over.set()
    assert set(codes) == {OK, UNAVAILABLE}


def test_calls_that_are_not_done_in_time_are_unavailable_with_a_sentence(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine)
    with held(engine):
        call = served.stub.Upscale.future(pb.UpscaleRequest(image=png(200, 200)))
        engine.entered.wait()
        served.run(served.server.drain(0.01))
        assert call.code() == UNAVAILABLE
        assert "the server stopped before this call was done" in call.details()
        until(lambda: any("before this call was done" in line.get("message", "") for line in served.lines))
        assert next(iter(served.models)).scheduler.stats().items_dropped > 0


def test_a_call_that_comes_too_late_is_told_so(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine)
    with held(engine):
        running = served.stub.Upscale.future(pb.UpscaleRequest(image=png(8, 8)))
        engine.entered.wait()
        drained = asyncio.run_coroutine_threadsafe(served.server.drain(20), served.loop)
        late: list[Any] = []

        def told() -> bool:
            late.append(served.stub.ListModels.future(pb.ListModelsRequest()))
            return late[-1].code() == UNAVAILABLE

        until(told)
        engine.gate.set()
        assert running.code() == OK
        drained.result(20)
    assert {call.code() for call in late} <= {OK, UNAVAILABLE}


class Gone:
    """gRPC's context of a call whose caller is gone, before that is told to the handler."""

    async def write(self, data: bytes) -> None:
        raise grpc.aio.InternalError("Failed grpc_call_start_batch: 8")

    async def read(self) -> bytes:
        raise grpc.aio.InternalError("Failed grpc_call_start_batch: 8")


async def test_an_answer_to_a_caller_who_is_gone_is_cancelled_and_no_error_of_the_server() -> None:
    exchange = Exchange(Gone(), Call.begin("Upscale"), Transit(Limits()))  # type: ignore[arg-type]
    with pytest.raises(Cancelled, match="went away"):
        await exchange.send(b"answer")
    with pytest.raises(asyncio.CancelledError):
        await exchange.end(Cancelled("went away"))
    with pytest.raises(Cancelled, match="went away"):
        await exchange.request(pb.ListModelsRequest)


def test_readers_who_go_away_amid_their_answers_are_no_errors_of_the_server(serve: Serve) -> None:
    served = serve(FakeUpscaler())
    image = png(300, 300)
    parts = [pb.UpscaleStreamRequest(header=pb.UpscaleRequest()), pb.UpscaleStreamRequest(data=image)]
    for _ in range(10):
        options = (("grpc.use_local_subchannel_pool", 1), *OPTIONS)
        with grpc.insecure_channel(served.address, options) as channel:
            for answer in pb_grpc.ImageGeneratorStub(channel).UpscaleStream(iter(parts)):
                if answer.HasField("header"):
                    break
    until(lambda: served.service.stats().open_calls == 0)
    assert served.calls("INTERNAL") == 0


def test_what_a_caller_wrote_cannot_forge_or_reverse_a_line_of_the_log(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\u202eb\u2066c\nd\u200b\x1b[2Je"
    served = serve(FakeUpscaler())
    call = served.stub.Upscale.future(pb.UpscaleRequest(model=name, image=png(4, 4)))
    assert call.code() == grpc.StatusCode.NOT_FOUND
    assert call.details().isprintable()
    kept = structlog.get_config()
    try:
        configure()
        structlog.get_logger().info("call", message=name, model=name)
    finally:
        structlog.configure(**kept)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert json.loads(line)["model"] == "a\\u202eb\\u2066c\\nd\\u200b\\x1b[2Je"
