"""The queue of bands between the event loop and a writing thread: one at a time, and waiting is not codec time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from runtime.errors import Cancelled
from runtime.stopwatch import Activity, Stopwatch, Times
from runtime.tensors import Array
from server.core.band_queue import BandQueue
from tests.clock import Clock

TIMEOUT_S = 10  # of a wait that ends at once unless the code is wrong


def in_thread(function: Callable[[], None]) -> asyncio.Future[None]:
    """What `function` ends with, on a daemon thread: one that waits for ever must not hold up the tests."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            function()
        except BaseException as error:
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=run, daemon=True).start()
    return ended


class Watched(Stopwatch):
    """Says when codec work has come to a halt."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.halts = threading.Semaphore(0)

    def end(self, activity: Activity) -> None:
        super().end(activity)
        self.halts.release()


async def test_a_writer_that_waits_for_a_band_does_no_codec_work() -> None:
    clock = Clock()
    stopwatch = Watched(clock)
    bands = BandQueue(stopwatch)
    taken: list[Array] = []

    def write() -> None:
        with stopwatch.during("encode"):
            for _ in range(2):
                taken.append(bands.take())
                clock.now_s += 1  # encodes

    writing = in_thread(write)
    for number in range(2):
        assert await asyncio.to_thread(stopwatch.halts.acquire, timeout=TIMEOUT_S)
        clock.now_s += 10  # the device computes, and the writer waits
        await asyncio.wait_for(bands.put(np.full(1, number), writing), TIMEOUT_S)
    await asyncio.wait_for(writing, TIMEOUT_S)
    assert [int(band[0]) for band in taken] == [0, 1]
    assert stopwatch.times() == Times(queue_s=0, inference_s=0, codec_s=2, total_s=22)


async def test_a_band_is_handed_over_only_when_the_writer_asks_for_it() -> None:
    bands, go_on = BandQueue(Stopwatch()), threading.Event()

    def write() -> None:
        bands.take()
        go_on.wait(TIMEOUT_S)
        bands.take()

    writing = in_thread(write)
    await asyncio.wait_for(bands.put(np.zeros(1), writing), TIMEOUT_S)
    second = asyncio.ensure_future(bands.put(np.ones(1), writing))
    for _ in range(20):
        await asyncio.sleep(0)  # the event loop has nothing else to do
    assert not second.done()
    go_on.set()
    await asyncio.wait_for(second, TIMEOUT_S)
    await asyncio.wait_for(writing, TIMEOUT_S)


async def test_a_writer_that_failed_takes_no_band() -> None:
    def write() -> None:
        raise OSError("the disk is full")

    bands = BandQueue(Stopwatch())
    writing = in_thread(write)
    with pytest.raises(OSError, match="the disk is full"):
        await asyncio.wait_for(bands.put(np.zeros(1), writing), TIMEOUT_S)


async def test_a_waiting_writer_is_cancelled_when_the_request_ends() -> None:
    bands = BandQueue(Stopwatch())

    def write() -> None:
        bands.take()

    writing = in_thread(write)
    bands.end()
    with pytest.raises(Cancelled):
        await asyncio.wait_for(writing, TIMEOUT_S)
