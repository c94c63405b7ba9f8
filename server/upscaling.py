"""One picture through codec threads and device, whole where it is small, a band at a time where it is not."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from runtime.scheduler import Job
from server.calls import Call
from server.codec_threads import Codecs, Pool
from server.handover import Handover
from server.limits import QUICK_PIXELS
from server.models import Model
from server.picture import Picture

Tell = Callable[[int, int], None]
# Of one picture at once: one on the device, and one that is ready for it.
BANDS_RUNNING = 2


async def upscale(picture: Picture, codecs: Codecs, call: Call, tell: Tell) -> tuple[BinaryIO, list[Job]]:
    """The answer's file, open, and the jobs that it took. tell: hears (tiles done, tiles in all)."""
    way = _whole if len(picture.bands) == 1 else _by_bands
    return await way(picture, codecs, call, tell)


async def run(model: Model, job: Job, call: Call) -> None:
    """Wait for a job. Cancelling the wait cancels `job.done`, and that drops what the job has left."""
    model.scheduler.submit(job, call.stopwatch)
    await asyncio.wrap_future(job.done)


async def _whole(picture: Picture, codecs: Codecs, call: Call, tell: Tell) -> tuple[BinaryIO, list[Job]]:
    """A picture of one band, in memory."""
    order = picture.order
    pool: Pool = "quick" if order.width * order.height <= QUICK_PIXELS else "slow"
    await codecs.run(pool, call, picture.decode, 0)
    job = picture.job(0, call.deadline_s, tell)
    await run(picture.model, job, call)
    return io.BytesIO(await codecs.run(pool, call, picture.whole)), [job]


async def _by_bands(picture: Picture, codecs: Codecs, call: Call, tell: Tell) -> tuple[BinaryIO, list[Job]]:
    """A picture of many bands: one is decoded, the next are on the device, another is written to a file."""
    model, handover, jobs = picture.model, Handover(call.stopwatch), []
    running: deque[tuple[int, asyncio.Task[None]]] = deque()
    file = tempfile.TemporaryFile(  # noqa: SIM115 - the caller closes it
        prefix="ganforge-answer-"
    )
    writing = asyncio.ensure_future(
        codecs.run("writers", call, picture.write, handover.take, os.dup(file.fileno()))
    )
    try:
        for index in range(len(picture.bands) + BANDS_RUNNING):
            if index < len(picture.bands):
                await codecs.run("slow", call, picture.decode, index)
                jobs.append(picture.job(index, call.deadline_s, tell))
                running.append((index, asyncio.create_task(run(model, jobs[-1], call))))
            if index >= BANDS_RUNNING - 1 and running:
                first, done = running.popleft()
                await done
                await handover.put(picture.finished(first), writing)
        await asyncio.shield(writing)
    except BaseException:
        file.close()
        raise
    finally:
        for _, task in running:
            task.cancel()
        handover.end()
        await asyncio.gather(writing, *(task for _, task in running), return_exceptions=True)
    return file, jobs
