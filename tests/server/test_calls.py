"""What the core does for every call of any front: deadlines, limits, request ids, one log line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from runtime.errors import DeadlineExceeded, InvalidInput, NotReady, Overloaded
from server.core.calls import Call
from server.core.requests import ImageRequest, PieceIn, PieceOut, SamplesRequest
from server.core.service import Service
from server.limits import Limits
from server.models.models import Models
from tests.server.conftest import FakeGenerator, FakeUpscaler, held, png, until

Lines = list[MutableMapping[str, Any]]
TIMEOUT_S = 30  # of a wait that ends at once unless the code is wrong


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield captured


@contextmanager
def serving(*engines: Any, limits: Limits = Limits()) -> Iterator[Service]:  # noqa: B008 - frozen
    """The core alone, on the test's own event loop."""
    service = Service(limits)
    service.ready(Models(engines))
    try:
        yield service
    finally:
        for engine in engines:
            engine.gate.set()
        service.close()


async def upscaled(service: Service, request: ImageRequest, image: bytes, call: Call) -> None:
    async with service.open(call):
        await service.image("upscale", request, image, ignore, call)


async def streamed_image(
    service: Service, pieces: AsyncIterator[PieceIn], send: Callable[[PieceOut], Awaitable[None]], call: Call
) -> None:
    async with service.open(call):
        await service.image_stream("upscale", pieces, send, call)


async def drawn(service: Service, request: SamplesRequest, call: Call) -> None:
    async with service.open(call):
        await service.samples("generate", request, ignore, call)


async def listed(service: Service) -> None:
    async with service.open(Call.begin("ListModels")):
        await service.list_models()


def one_line(lines: Lines) -> MutableMapping[str, Any]:
    (line,) = [line for line in lines if line["event"] == "call"]
    return line


async def test_a_call_is_logged_in_one_line(lines: Lines) -> None:
    with serving(FakeUpscaler()) as service:
        await upscaled(service, ImageRequest(), png(20, 10), Call.begin("Upscale", request_id="id-1"))
    line = one_line(lines)
    assert (line["code"], line["method"], line["request_id"]) == ("OK", "Upscale", "id-1")
    assert (line["model"], line["size"]) == ("upscaler", "20×10 png → 80×40 png")
    assert line["ms"] > 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_ends_at_its_deadline_while_its_tiles_are_on_the_device(
    lines: Lines, streamed: bool
) -> None:
    engine = FakeUpscaler()
    with serving(engine) as service, held(engine):
        call = Call.begin("Upscale", time_left_s=0.1)
        ending = (
            streamed_image(service, stream(png(200, 200)), ignore, call)
            if streamed
            else upscaled(service, ImageRequest(), png(200, 200), call)
        )
        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await asyncio.wait_for(ending, TIMEOUT_S)
        assert call.time_left_s() is not None
    assert one_line(lines)["code"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("work", ["one band", "many bands", "samples"])
async def test_expired_items_leave_the_queue_though_the_event_loop_is_busy(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if work == "many bands":
        monkeypatch.setattr("runtime.picture_work.BAND_BYTES", 1)
    engine = FakeGenerator() if work == "samples" else FakeUpscaler()
    with serving(engine) as service, held(engine):
        call = Call.begin("Upscale", time_left_s=1.0)
        ending: Coroutine[Any, Any, object] = (
            drawn(service, SamplesRequest(count=64), call)
            if work == "samples"
            else upscaled(service, ImageRequest(), png(200, 200), call)
        )
        task = asyncio.create_task(ending)
        assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
        (scheduler,) = service.models.schedulers.values()
        # From here on until the last line the event loop gets no turn, and cannot cancel anything.
        until(lambda: (call.time_left_s() or 0) < 0)
        engine.gate.set()
        until(lambda: scheduler.stats().items_dropped > 0 and engine.items_run > 0, within_s=5)
        assert engine.items_run == engine.max_batch
        with pytest.raises(DeadlineExceeded):
            await task


async def test_samples_end_at_their_deadline(lines: Lines) -> None:
    engine = FakeGenerator()
    with serving(engine) as service, held(engine):
        call = Call.begin("Generate", time_left_s=0.1)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(drawn(service, SamplesRequest(model="generator"), call), TIMEOUT_S)
    assert one_line(lines)["code"] == "DEADLINE_EXCEEDED"


async def test_an_upload_ends_at_its_deadline_too(lines: Lines) -> None:
    async def nothing_more() -> AsyncIterator[PieceIn]:
        yield ImageRequest()
        await asyncio.Event().wait()

    with serving(FakeUpscaler()) as service:
        call = Call.begin("UpscaleStream", time_left_s=0.1)
        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await asyncio.wait_for(streamed_image(service, nothing_more(), ignore, call), TIMEOUT_S)


async def test_a_call_without_a_deadline_has_none() -> None:
    assert Call.begin("Upscale").time_left_s() is None


async def test_a_reader_that_takes_nothing_ends_the_call(lines: Lines) -> None:
    async def stands_still(piece: PieceOut) -> None:
        await asyncio.Event().wait()

    with serving(FakeUpscaler(), limits=Limits(idle_s=0.05)) as service:
        call = Call.begin("UpscaleStream")
        with pytest.raises(DeadlineExceeded, match="nothing was read"):
            await asyncio.wait_for(
                streamed_image(service, stream(png(20, 10)), stands_still, call), TIMEOUT_S
            )
    assert one_line(lines)["code"] == "DEADLINE_EXCEEDED"


async def test_a_reader_that_takes_nothing_past_its_deadline_ends_the_call(lines: Lines) -> None:
    async def stands_still(piece: PieceOut) -> None:
        await asyncio.Event().wait()

    with serving(FakeUpscaler()) as service:
        call = Call.begin("UpscaleStream", time_left_s=0.2)
        with pytest.raises(DeadlineExceeded, match="the deadline passed"):
            await asyncio.wait_for(
                streamed_image(service, stream(png(20, 10)), stands_still, call), TIMEOUT_S
            )
    assert one_line(lines)["code"] == "DEADLINE_EXCEEDED"


async def test_calls_beyond_the_limit_are_refused_and_finished_calls_are_not_counted(lines: Lines) -> None:
    engine = FakeUpscaler()
    with serving(engine, limits=Limits(max_calls=1)) as service:
        with held(engine):
            first = asyncio.create_task(upscaled(service, ImageRequest(), png(8, 8), Call.begin("Upscale")))
            await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
            with pytest.raises(Overloaded, match="--max-calls") as refused:
                await listed(service)
            assert refused.value.retry_after_s > 0
        await first
        for _ in range(3):
            await listed(service)
    assert [line["code"] for line in lines] == ["RESOURCE_EXHAUSTED", "OK", "OK", "OK", "OK"]


async def test_a_cancelled_call_is_logged_as_such_and_its_tiles_are_dropped(lines: Lines) -> None:
    engine = FakeUpscaler()
    with serving(engine) as service, held(engine):
        task = asyncio.create_task(upscaled(service, ImageRequest(), png(200, 200), Call.begin("Upscale")))
        await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (scheduler,) = service.models.schedulers.values()
        assert scheduler.stats().items_dropped > 0
    assert one_line(lines)["code"] == "CANCELLED"


async def test_before_the_models_are_warm_a_call_raises_not_ready(lines: Lines) -> None:
    service = Service(Limits())
    with pytest.raises(NotReady, match="warming up"):
        await upscaled(service, ImageRequest(), png(4, 4), Call.begin("Upscale"))
    service.close()
    assert one_line(lines)["code"] == "UNAVAILABLE"


async def test_an_internal_error_is_logged_with_its_traceback_and_a_bad_request_without(lines: Lines) -> None:
    engine = FakeUpscaler()
    with serving(engine) as service:
        with pytest.raises(InvalidInput):
            await upscaled(service, ImageRequest(quality=0), png(4, 4), Call.begin("Upscale"))
        engine.failure = ZeroDivisionError("secret")
        with pytest.raises(ZeroDivisionError):
            await upscaled(service, ImageRequest(), png(4, 4), Call.begin("Upscale"))
    refused, failed = lines
    assert (refused["code"], refused["log_level"]) == ("INVALID_ARGUMENT", "info")
    assert "exc_info" not in refused
    assert (failed["code"], failed["log_level"]) == ("INTERNAL", "error")
    assert failed["exc_info"] is engine.failure


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 65, "ünïcode", "a\n"])
def test_a_request_id_that_is_no_plain_word_is_replaced(given: str | None) -> None:
    first, second = (Call.begin("Upscale", request_id=given).request_id for _ in range(2))
    assert given not in (first, second)
    assert first != second
    assert len(first) == 16


async def stream(image: bytes) -> AsyncIterator[PieceIn]:
    yield ImageRequest()
    yield image


async def ignore(answer: object) -> None:
    pass
