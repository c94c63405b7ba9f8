"""The pipeline of a picture: decode, run, encode; as a whole if it is small, else band by band.

server/core/images.py calls `run_picture` for an admitted request and gets the answer's file. The steps of a large picture
overlap: while one band is on the device, the next is decoded and the previous one is encoded.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from runtime.jobs import Job
from runtime.picture_work import PictureWork
from runtime.sample_work import SampleWork
from runtime.tiling.tiled_picture import OnTilesDone
from server.core.band_queue import BandQueue
from server.core.calls import Call
from server.core.codec_threads import FILE_PX, Codecs, Pool, Work, pool_for
from server.core.disk import Disk
from server.core.params import SampleParams
from server.core.requests import Progress
from server.models.models import Model

OnProgress = Callable[[Progress], None]
# Bands of a picture that are with the scheduler at once: one on the device and one ready to follow.
BANDS_RUNNING = 2
# Samples that together cost about so many pixels are encoded by one task: a few milliseconds, for which others wait.
SAMPLES_PX = 2**16


async def run_picture(
    model: Model, picture: PictureWork, codecs: Codecs, disk: Disk, call: Call, on_progress: OnProgress
) -> tuple[BinaryIO, int]:
    """Process a picture. on_progress: called from any thread.

    Returns the answer's file, open for reading, and the number of items that ran. Raises InvalidInput if the picture's
    file is damaged, OutOfSpace if the disk is full, and any error of the device or the encoder.
    """

    def on_tiles_done(done: int, total: int) -> None:
        on_progress(Progress(done, total))

    if picture.in_memory:
        file, jobs = await _run_whole(model, picture, codecs, call, on_tiles_done)
    else:
        with disk.writing():
            file, jobs = await _run_by_bands(model, picture, codecs, disk, call, on_tiles_done)
    return file, sum(len(job.items) for job in jobs)


async def run_job(model: Model, job: Job, call: Call) -> None:
    """Submit a job and wait for it. If this is cancelled, so is the job, and its remaining items are dropped."""
    model.scheduler.submit(job, call.stopwatch)
    await asyncio.wrap_future(job.done)


async def _run_whole(
    model: Model, picture: PictureWork, codecs: Codecs, call: Call, on_tiles_done: OnTilesDone
) -> tuple[BinaryIO, list[Job]]:
    """Process a small picture in memory."""
    output = picture.output
    pixels = max(picture.header.pixels, output.to_width * output.to_height)
    pool = pool_for(1, pixels, picture.source_bytes)
    await codecs.run(_decoding(pool, picture), call, picture.decode, 0)
    job = picture.job(0, call.deadline_s, on_tiles_done)
    await run_job(model, job, call)
    return io.BytesIO(await codecs.run(_encoding(pool, picture), call, picture.whole)), [job]


async def _run_by_bands(
    model: Model,
    picture: PictureWork,
    codecs: Codecs,
    disk: Disk,
    call: Call,
    on_tiles_done: OnTilesDone,
) -> tuple[BinaryIO, list[Job]]:
    """Process a picture whose answer is large. Decoding, device and encoding to a temporary file overlap."""
    band_queue, jobs = BandQueue(call.stopwatch), list[Job]()
    running: deque[tuple[int, asyncio.Task[None]]] = deque()
    file = disk.file()
    writing = asyncio.ensure_future(
        codecs.run(_encoding("writers", picture), call, picture.write, band_queue.take, file)
    )
    try:
        for index in range(len(picture.bands) + BANDS_RUNNING):
            if index < len(picture.bands):
                await codecs.run(_decoding("slow", picture), call, picture.decode, index)
                jobs.append(picture.job(index, call.deadline_s, on_tiles_done))
                running.append((index, asyncio.create_task(run_job(model, jobs[-1], call))))
            if index >= BANDS_RUNNING - 1 and running:
                first, done = running.popleft()
                await done
                await band_queue.put(picture.finished(first), writing)
        await asyncio.shield(writing)
    except BaseException:
        call.stop.stop()
        file.close()
        raise
    finally:
        for _, task in running:
            task.cancel()
        band_queue.end()
        await asyncio.gather(writing, *(task for _, task in running), return_exceptions=True)
    return file, jobs


async def encode_samples(
    samples: SampleWork, params: SampleParams, codecs: Codecs, call: Call
) -> list[bytes]:
    """Encode all samples of a request whose job is done. Small ones are encoded several at a time. Returns their files."""
    sample_px = params.width * params.height
    at_once = max(1, SAMPLES_PX // (FILE_PX + sample_px))
    pool = pool_for(params.count, params.count * sample_px)
    work = Work(pool, "encode", params.encoding.format, at_once * sample_px, at_once)
    parts = await asyncio.gather(
        *(
            codecs.run(work, call, samples.files, first, min(first + at_once, params.count), call.stop)
            for first in range(0, params.count, at_once)
        )
    )
    return [file for part in parts for file in part]


def _decoding(pool: Pool, picture: PictureWork) -> Work:
    """The work of decoding one band."""
    return Work(pool, "decode", picture.header.format, picture.header.pixels // len(picture.bands))


def _encoding(pool: Pool, picture: PictureWork) -> Work:
    """The work of encoding the answer."""
    output = picture.output
    return Work(pool, "encode", output.encoding.format, output.to_width * output.to_height)
