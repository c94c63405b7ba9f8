"""Codec threads: turns are fair, work that waits is dropped and work that runs is stopped when its call ends."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from runtime.errors import Cancelled
from runtime.pictures.formats import Encoding, PixelFormat
from runtime.pictures.reading import open_picture
from runtime.pictures.writing import Output
from runtime.stopping import Stop
from server.core.calls import Call
from server.core.codec_threads import FILE_PX, Codecs, Work
from server.core.fair_threads import FairThreads
from server.core.pipeline import SAMPLES_PX, encode_samples
from tests.server.conftest import png, until

SOON_S = 20.0
QUICK = Work("quick", "encode", "png")


@pytest.fixture
def codecs() -> Iterator[Codecs]:
    codecs = Codecs(1)
    yield codecs
    codecs.close()


@pytest.fixture
def one_thread() -> Iterator[tuple[FairThreads, threading.Event]]:
    """A single thread, which is busy until the event is set."""
    threads, free = FairThreads(1, "test"), threading.Event()
    threads.submit("first", 0, free.wait)
    until(lambda: threads.waiting == 0)
    yield threads, free
    free.set()
    threads.close(SOON_S)


def test_calls_take_turns_by_the_cost_of_their_work(one_thread: tuple[FairThreads, threading.Event]) -> None:
    threads, free = one_thread
    order: list[str] = []
    tasks = [threads.submit("flood", 10, lambda: order.append("flood")) for _ in range(30)]
    tasks += [threads.submit("poster", 25, lambda: order.append("poster")) for _ in range(3)]
    tasks += [threads.submit("thumbnail", 1, lambda: order.append("thumbnail"))]
    free.set()
    for task in tasks:
        task.done.result(SOON_S)
    assert order[0] == "thumbnail"
    assert order.index("poster") <= 3
    assert 4 <= sum(name == "flood" for name in order[: len(order) - order[::-1].index("poster")]) <= 10


def test_waiting_work_of_a_call_that_ended_is_dropped(codecs: Codecs) -> None:
    started: list[int] = []
    free = threading.Event()

    async def run() -> None:
        busy = asyncio.create_task(codecs.run(QUICK, Call.begin("a"), free.wait))
        call = Call.begin("b")
        waiting = [asyncio.create_task(codecs.run(QUICK, call, started.append, n)) for n in range(100)]
        while codecs.stats().waiting["quick"] < 100:
            await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert codecs.stats().waiting["quick"] == 0
        free.set()
        await busy
        times = call.stopwatch.times()
        assert times.queue_s > 0
        assert times.codec_s == 0

    asyncio.run(run())
    assert started == []


def test_waiting_for_a_thread_is_queue_time(codecs: Codecs) -> None:
    free = threading.Event()

    async def run() -> None:
        busy = asyncio.create_task(codecs.run(QUICK, Call.begin("a"), free.wait))
        call = Call.begin("b")
        waiting = asyncio.create_task(codecs.run(QUICK, call, lambda: None))
        await asyncio.sleep(0.1)
        free.set()
        await asyncio.gather(busy, waiting)
        assert call.stopwatch.times().queue_s >= 0.05

    asyncio.run(run())


def test_what_codecs_did_is_counted_by_format(codecs: Codecs) -> None:
    work = Work("quick", "decode", "jpeg", 500)

    async def run() -> None:
        await asyncio.gather(*(codecs.run(work, Call.begin("a"), lambda: None) for _ in range(3)))

    asyncio.run(run())
    assert codecs.stats().pixels == {("decode", "jpeg"): 1500}
    assert codecs.stats().seconds[("decode", "jpeg")] >= 0
    until(lambda: codecs.stats().busy["quick"] == 0)


class Recorder(Codecs):
    """Remembers the work that was asked for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.works: list[Work] = []

    async def run(self, work: Work, call: Call, function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        self.works.append(work)
        return function(*args)


class Tiny:
    """Samples whose files are their numbers."""

    def files(self, first: int, end: int, stop: Stop) -> list[bytes]:
        return [bytes([number]) for number in range(first, end)]


@pytest.mark.parametrize("side", [1, 32, 64, 256])
def test_a_thumbnail_waits_for_few_samples_however_small_they_are(side: int) -> None:
    # Each file costs about a millisecond beside its pixels: by pixels alone, 64 samples of 32×32 would be one task.
    params: Any = SimpleNamespace(count=256, width=side, height=side, encoding=Encoding("png"))
    codecs, samples = Recorder(), cast(Any, Tiny())
    assert asyncio.run(encode_samples(samples, params, codecs, Call.begin("a"))) == [
        bytes([k]) for k in range(256)
    ]
    assert max(work.cost_px for work in codecs.works) <= max(SAMPLES_PX, FILE_PX + side**2)
    assert max(work.files for work in codecs.works) <= 4
    assert sum(work.pixels for work in codecs.works) >= 256 * side**2
    codecs.close()


def test_many_samples_leave_the_threads_of_thumbnails_alone() -> None:
    async def pools(count: int) -> set[str]:
        params: Any = SimpleNamespace(count=count, width=32, height=32, encoding=Encoding("png"))
        codecs = Recorder()
        await encode_samples(cast(Any, Tiny()), params, codecs, Call.begin("a"))
        codecs.close()
        return {work.pool for work in codecs.works}

    assert [asyncio.run(pools(count)) for count in (1, 16, 256)] == [{"quick"}, {"quick"}, {"slow"}]


# What is stopped. The pictures take far longer to encode than the test waits.

SIDE = 12_000


def endless_rows() -> Callable[[], Any]:
    band = np.random.default_rng(0).integers(0, 60, (64, SIDE, 3), np.uint8)
    return lambda: band


def output(side: int = SIDE, **encoding: Any) -> Output:
    return Output(SIDE, side, PixelFormat(3), SIDE, side, 8, Encoding(**encoding))


def enlarged(**encoding: Any) -> Output:
    """One row of pixels is read, and a great many are computed and encoded from it."""
    floats = PixelFormat(3, bits=32)
    return Output(64, 64, floats, SIDE, SIDE, 8, Encoding(**encoding))


@pytest.mark.parametrize(
    "encoding",
    [
        {"format": "png", "compression": 9},
        {"format": "tiff", "compression": 9},
        {"format": "webp", "lossless": True},
    ],
    ids=lambda encoding: encoding["format"],
)
@pytest.mark.parametrize("resized", [False, True], ids=["plain", "resized"])
def test_encoding_stops_when_its_call_ends(codecs: Codecs, encoding: dict[str, Any], resized: bool) -> None:
    begun = threading.Event()
    made = enlarged(**encoding) if resized else output(**encoding)
    rows = (lambda: np.zeros((64, 64, 3), np.float32)) if resized else endless_rows()

    def take() -> Any:
        begun.set()
        return rows()

    async def run() -> None:
        with tempfile.TemporaryFile() as file:
            call = Call.begin("a")
            work = Work("writers", "encode", encoding["format"])
            task = asyncio.create_task(
                codecs.run(work, call, made.to_descriptor, take, file.fileno(), call.stop)
            )
            await asyncio.to_thread(begun.wait, SOON_S)
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            until(lambda: codecs.stats().busy["writers"] == 0, SOON_S)

    asyncio.run(run())
    spent_s = time.process_time()
    threading.Event().wait(0.3)
    assert time.process_time() - spent_s < 0.2


def test_encoding_in_memory_stops_too() -> None:
    stop = Stop()
    made = enlarged(format="png", compression=9)
    threading.Timer(0.3, stop.stop).start()
    with pytest.raises(Cancelled):
        made.to_memory(np.zeros((64, 64, 3), np.float32), stop)


def test_decoding_stops_between_its_pieces() -> None:
    stop = Stop()
    rows = open_picture(png(300, 300), max_pixels=10**6).rows(stop)
    rows.read(0, 100)
    stop.stop()
    with pytest.raises(Cancelled):
        rows.read(100, 300)


def test_closing_does_not_wait_for_work_that_cannot_be_stopped() -> None:
    codecs, free, begun = Codecs(1), threading.Event(), threading.Event()

    def stubborn() -> None:
        begun.set()
        free.wait()

    async def run() -> None:
        task = asyncio.create_task(codecs.run(QUICK, Call.begin("a"), stubborn))
        await asyncio.to_thread(begun.wait, SOON_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    codecs.close()
    thread = next(thread for thread in threading.enumerate() if thread.name.startswith("codec-quick"))
    assert thread.daemon
    free.set()


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="needs priorities of threads")
def test_large_pictures_give_way_to_small_ones(codecs: Codecs) -> None:
    async def niceness(pool: Any) -> int:
        def own() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        return await codecs.run(Work(pool, "encode"), Call.begin("a"), own)

    async def run() -> list[int]:
        return [await niceness(pool) for pool in ("quick", "slow", "writers")]

    quick, slow, writers = asyncio.run(run())
    assert quick < slow == writers
