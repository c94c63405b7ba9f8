"""Pictures: the path of a request to upscale or translate one, from its file to the answer that has left.

`Service.image` and `Service.image_stream` (server/core/service.py) call this; what the codec threads and the device do in
between is server/core/pipeline.py.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from runtime.estimates import Coding
from runtime.picture_cost import FILE_BYTES_PER_PIXEL
from runtime.picture_work import PictureWork
from runtime.pictures.reading import open_picture
from runtime.tensors import TaskName
from server.core.calls import Call
from server.core.codec_threads import checking
from server.core.params import image_params
from server.core.pipeline import OnProgress, run_picture
from server.core.progress import LatestProgress
from server.core.requests import ImageAnswer, ImageRequest, PieceIn, PieceOut
from server.core.shared import ANSWER_COPIES, Shared, new_flow, note_facts
from server.limits import CHUNK_BYTES
from server.models.models import Model


class Images:
    """The requests for pictures of one server."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def answer(
        self,
        task: TaskName,
        request: ImageRequest,
        image: bytes,
        send: Callable[[ImageAnswer], Awaitable[None]],
        call: Call,
    ) -> None:
        """As `Service.image`."""
        async with AsyncExitStack() as stack:
            file, answer = await self._process(task, request, image, call, stack)
            advice = "use the streaming call, or ask for JPEG"
            self._shared.check_fits("image", file.seek(0, os.SEEK_END), advice)
            file.seek(0)
            answer = replace(answer, image=await asyncio.to_thread(file.read))
            file.close()
            leaving_bytes = ANSWER_COPIES * len(answer.image)
            await self._shared.send(send, answer, call, leaving_bytes=leaving_bytes)

    async def stream(
        self,
        task: TaskName,
        pieces: AsyncIterator[PieceIn],
        send: Callable[[PieceOut], Awaitable[None]],
        call: Call,
    ) -> None:
        """As `Service.image_stream`."""
        async with AsyncExitStack() as stack:
            file, answer = await self._process_upload(task, pieces, send, call, stack)
            held_bytes = file.seek(0, os.SEEK_END) if isinstance(file, io.BytesIO) else 0
            await self._shared.send(send, answer, call, held_bytes=held_bytes)
            file.seek(0)
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await self._shared.send(send, piece, call, leaving_bytes=len(piece), held_bytes=held_bytes)

    async def _process_upload(
        self,
        task: TaskName,
        pieces: AsyncIterator[PieceIn],
        send: Callable[[PieceOut], Awaitable[None]],
        call: Call,
        stack: AsyncExitStack,
    ) -> tuple[BinaryIO, ImageAnswer]:
        """Receive the upload, then do as `_process` and send the progress. The upload is deleted at the end."""
        uploads = self._shared.uploads
        with uploads.begin() as upload:
            request = await uploads.receive(upload, pieces, call)
            latest = LatestProgress()
            work = asyncio.create_task(
                self._process(task, request, upload.source, call, stack, latest.update)
            )
            work.add_done_callback(lambda _: latest.end())
            try:
                async for progress in latest:
                    await self._shared.send(send, progress, call)
                return await work
            except BaseException:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                raise

    async def _process(
        self,
        task: TaskName,
        request: ImageRequest,
        image: bytes | Path,
        call: Call,
        stack: AsyncExitStack,
        on_progress: OnProgress = lambda progress: None,
    ) -> tuple[BinaryIO, ImageAnswer]:
        """Process one picture. Returns the answer's file, open, and the answer without it.

        stack: closes the file, and keeps its disk admitted until then. Its memory is counted while it is sent.
        """
        async with self._shared.using(task, request.model, call) as model:
            return await self._process_with(model, request, image, call, stack, on_progress)

    async def _process_with(
        self,
        model: Model,
        request: ImageRequest,
        image: bytes | Path,
        call: Call,
        stack: AsyncExitStack,
        on_progress: OnProgress,
    ) -> tuple[BinaryIO, ImageAnswer]:
        """As `_process`, with this model."""
        shared = self._shared
        codecs, limits = shared.codecs, shared.limits
        size_bytes = len(image) if isinstance(image, bytes) else image.stat().st_size
        work = checking(size_bytes)
        opened = await codecs.run(work, call, open_picture, image, max_pixels=limits.max_pixels)
        header = opened.header
        params = image_params(request, header, model.manifest, limits)
        flow = new_flow(request, call)
        before = f"{header.width}×{header.height} {header.format}"
        after = f"{params.width}×{params.height} {params.encoding.format}"
        note_facts(call, model, flow, f"{before} → {after}")
        picture = PictureWork(
            model.engine,
            opened,
            width=params.width,
            height=params.height,
            encoding=params.encoding,
            file_bytes=len(image) if isinstance(image, bytes) else 0,
            flow=flow,
            stop=call.stop,
        )
        coded_px = header.pixels + params.width * params.height
        coding = Coding(params.encoding, coded_px, overlaps=not picture.in_memory)
        ticket = await stack.enter_async_context(
            shared.admitted(picture, model, call, items=picture.tiles_total, coding=coding, flow=flow)
        )
        file, items = await run_picture(model, picture, codecs, shared.disk, call, on_progress)
        stack.enter_context(file)
        picture.free()
        if size_bytes <= FILE_BYTES_PER_PIXEL * coded_px:  # else its time says nothing about pixels
            shared.estimates.learn(coding, call.stopwatch.times().codec_s)
        in_memory = isinstance(file, io.BytesIO)
        ticket.hold_only(memory_bytes=0, disk_bytes=0 if in_memory else file.seek(0, os.SEEK_END))
        if not in_memory:
            stack.enter_context(shared.answers.leaving(ticket, call))
        return file, ImageAnswer(
            image=b"",
            format=params.encoding.format,
            width=params.width,
            height=params.height,
            model=model.name,
            timing=call.timing(model, items),
        )
