"""Progress from the scheduler's threads to the event loop: the latest always arrives, older ones may be skipped."""

from __future__ import annotations

import asyncio

from server.core.progress import LatestProgress
from server.core.requests import Progress

TIMEOUT_S = 10  # of a wait that ends at once unless the code is wrong


async def test_each_update_arrives_while_the_reader_waits_for_it() -> None:
    latest = LatestProgress()
    reader = aiter(latest)
    for done in range(1, 4):
        arriving = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)  # the reader begins to wait
        assert not arriving.done()
        await asyncio.to_thread(latest.update, Progress(done, 3))
        assert await asyncio.wait_for(arriving, TIMEOUT_S) == Progress(done, 3)
    latest.end()
    assert [progress async for progress in reader] == []


async def test_a_slow_reader_gets_the_latest_only() -> None:
    latest = LatestProgress()
    for done in range(1, 4):
        latest.update(Progress(done, 3))
    latest.end()
    assert [progress async for progress in latest] == [Progress(3, 3)]


async def test_what_came_just_before_the_end_arrives() -> None:
    latest = LatestProgress()
    reader = aiter(latest)
    await asyncio.to_thread(latest.update, Progress(1, 2))
    assert await asyncio.wait_for(anext(reader), TIMEOUT_S) == Progress(1, 2)
    await asyncio.to_thread(latest.update, Progress(2, 2))
    latest.end()
    assert [progress async for progress in reader] == [Progress(2, 2)]
