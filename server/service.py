"""The calls of `protos/ganforge.proto`, each as the steps it takes. Knows no gRPC.

A front (server/front.py is the one for gRPC) hands in the request message and a Call, and gets the answer or one of
the errors of runtime/errors.py. A front whose caller goes away cancels the task that runs the call; the request's
remaining tiles are then dropped before the next batch.

    check ─► admission ─► decode ─► tiles or samples, batched with those of other requests ─► stitch ─► encode
             (bounded)    (codec threads)        (the device's scheduler)                     (codec threads)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.admission import Admission
from runtime.errors import InvalidInput
from runtime.pictures.reading import open_picture
from server import formats
from server.calls import Call, in_time
from server.codec_threads import Codecs
from server.limits import CHUNK_BYTES, MESSAGE_MARGIN_BYTES, Limits
from server.models import Model, Models
from server.orders import generate_order, sample_shape, upscale_order
from server.picture import Picture
from server.progress import Progress
from server.samples import Samples
from server.uploads import Uploads
from server.upscaling import run, upscale

TASKS = {"upscale": pb.TASK_UPSCALE, "generate": pb.TASK_GENERATE}


class Service:
    """The calls, over the models of one server. Takes any number of calls at once on one event loop.

    codec_threads: as those of Codecs.
    """

    def __init__(self, models: Models, limits: Limits, *, codec_threads: int = os.cpu_count() or 1) -> None:
        self.models, self.limits = models, limits
        self._admission = Admission(
            max_active_bytes=limits.max_active_bytes,
            max_queue_px=limits.max_queue_pixels,
            slots=max(model.engine.slots for model in models),
        )
        self._codecs = Codecs(codec_threads)
        self._uploads = Uploads(limits)

    async def upscale(self, request: pb.UpscaleRequest, call: Call) -> pb.UpscaleResponse:
        """One image, each way in one message."""
        file, response = await self._upscale(request, request.image, call)
        with file:
            self._check_fits(
                "image", file.seek(0, os.SEEK_END), "call UpscaleStream, or ask for IMAGE_FORMAT_JPEG"
            )
            file.seek(0)
            response.image = file.read()
        return response

    async def upscale_stream(
        self, requests: AsyncIterator[pb.UpscaleStreamRequest], call: Call
    ) -> AsyncGenerator[pb.UpscaleStreamResponse, None]:
        """One image in pieces, with progress while it is in work."""
        with self._uploads.begin() as upload:
            async with in_time(call):
                request = await self._uploads.receive(upload, requests)
            progress = Progress()
            task = asyncio.create_task(self._upscale(request, upload.source, call, progress.tell))
            task.add_done_callback(lambda _: progress.end())
            try:
                async for done, total in progress:
                    yield pb.UpscaleStreamResponse(progress=pb.Progress(tiles_done=done, tiles_total=total))
                file, response = await task
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        with file:
            yield pb.UpscaleStreamResponse(header=response)
            file.seek(0)
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield pb.UpscaleStreamResponse(data=piece)

    async def generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:
        """`count` samples, each an item of the scheduler as a tile is."""
        model = self.models.find("generate", request.model)
        async with in_time(call):
            order = await self._codecs.run(
                "quick", call, generate_order, request, model.manifest, self.limits
            )
            call.facts |= {"model": model.name, "size": f"{order.count}×{order.width}×{order.height}"}
            samples = Samples(model, order)
            async with self._admitted(model, samples, call):
                job = samples.job(call.deadline_s)
                await run(model, job, call)
                images = await asyncio.gather(
                    *(
                        self._codecs.run("quick", call, pixels.encode, one, order.format)
                        for one in samples.pixels
                    )
                )
        self._check_fits("count", sum(map(len, images)), "ask for fewer samples, or for IMAGE_FORMAT_JPEG")
        return pb.GenerateResponse(
            images=images,
            format=formats.NUMBERS[order.format],
            width=order.width,
            height=order.height,
            model=model.name,
            labels=order.labels.tolist(),
            timing=call.timing(model, [job]),
            seed=order.seed,
        )

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """What is served, by name."""
        return pb.ListModelsResponse(models=map(_info, self.models))

    def close(self) -> None:
        """End the codec threads and the models. No call may be under way."""
        self._codecs.close()
        self.models.close()

    async def _upscale(
        self,
        request: pb.UpscaleRequest,
        image: bytes | Path,
        call: Call,
        tell: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[BinaryIO, pb.UpscaleResponse]:
        """The answer's file, open, and the response that lacks it. tell: hears (tiles done, tiles in all)."""
        model = self.models.find("upscale", request.model)
        async with in_time(call):
            opened = await self._codecs.run(
                "quick", call, open_picture, image, max_pixels=self.limits.max_pixels
            )
            header = opened.header
            order = upscale_order(request, header, model.manifest, self.limits)
            size = f"{header.width}×{header.height} {header.format}"
            call.facts |= {
                "model": model.name,
                "size": f"{size} → {order.width}×{order.height} {order.encoding.format}",
            }
            picture = Picture(model, opened, order, len(image) if isinstance(image, bytes) else 0)
            async with self._admitted(model, picture, call):
                file, jobs = await upscale(picture, self._codecs, call, tell)
        return file, pb.UpscaleResponse(
            format=formats.NUMBERS[order.encoding.format],
            width=order.width,
            height=order.height,
            model=model.name,
            timing=call.timing(model, jobs),
        )

    @asynccontextmanager
    async def _admitted(self, model: Model, work: Picture | Samples, call: Call) -> AsyncIterator[None]:
        """Wait for a place among the requests in work. Raises Overloaded at once where there will be none in time."""
        seconds_per_px = model.scheduler.seconds_per_px(model.engine) or 0.0
        ticket = self._admission.enter(
            cost_px=work.cost_px,
            cost_bytes=work.cost_bytes,
            estimate_s=seconds_per_px * work.cost_px,
            time_left_s=call.time_left_s(),
        )
        try:
            with call.stopwatch.during("queue"):
                await asyncio.wrap_future(ticket.admitted)
            yield
        finally:
            work.free()
            ticket.leave()

    def _check_fits(self, name: str, size_bytes: int, advice: str) -> None:
        if size_bytes > self.limits.max_message_bytes - MESSAGE_MARGIN_BYTES:
            raise InvalidInput(
                name,
                f"the answer takes {size_bytes} bytes, one message holds {self.limits.max_message_bytes} "
                f"(--max-message-bytes); {advice}",
            )


def _info(model: Model) -> pb.ModelInfo:
    manifest = model.manifest
    _, height, width = sample_shape(manifest) if manifest.task == "generate" else (0, 0, 0)
    return pb.ModelInfo(
        name=manifest.name,
        task=TASKS[manifest.task],
        scale=manifest.scale,
        latent_size=manifest.latent_size,
        class_names=manifest.class_names or [str(label) for label in range(manifest.classes)],
        precision=model.engine.precision,
        backend=model.engine.backend,
        width=width,
        height=height,
    )
