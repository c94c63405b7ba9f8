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
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.admission import Admission
from runtime.errors import DeadlineExceeded, InvalidInput
from runtime.scheduler import Job
from server import formats
from server.limits import CHUNK_BYTES, MESSAGE_MARGIN_BYTES, QUICK_PIXELS, Limits
from server.models import Model, Models
from server.orders import generate_order, sample_shape, upscale_order
from server.uploads import Uploads
from server.work import Picture, Progress, Samples

P = ParamSpec("P")
T = TypeVar("T")
TASKS = {"upscale": pb.TASK_UPSCALE, "generate": pb.TASK_GENERATE}


@dataclass
class Call:
    """What the core knows of one caller, whichever front it came through.

    deadline_s: on time.monotonic(); None where the caller would wait for ever.
    facts: what the core learns about the call, for the front's log line.
    """

    deadline_s: float | None = None
    facts: dict[str, object] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)
    queue_s: float = 0.0
    codec_s: float = 0.0

    def time_left_s(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - time.monotonic()

    def timing(self, model: Model, job: Job) -> pb.Timing:
        return pb.Timing(
            queue_ms=self.queue_s * 1e3 + job.queue_ms,
            inference_ms=job.inference_ms,
            codec_ms=self.codec_s * 1e3,
            total_ms=(time.monotonic() - self.started_s) * 1e3,
            tiles=len(job.items),
            precision=model.engine.precision,
            backend=model.engine.backend,
        )


class Service:
    """The calls, over the models of one server. Takes any number of calls at once on one event loop.

    codec_threads: of each of the two pools; large images have their own, so that a thumbnail never waits for a
    poster to be encoded.
    """

    def __init__(self, models: Models, limits: Limits, *, codec_threads: int = os.cpu_count() or 1) -> None:
        self.models, self.limits = models, limits
        self._admission = Admission(
            max_active_bytes=limits.max_active_bytes,
            max_queue_px=limits.max_queue_pixels,
            slots=max(model.engine.slots for model in models),
        )
        self._quick = ThreadPoolExecutor(codec_threads, "codec-quick")
        self._slow = ThreadPoolExecutor(codec_threads, "codec-slow")
        self._uploads = Uploads(limits)

    async def upscale(self, request: pb.UpscaleRequest, call: Call) -> pb.UpscaleResponse:
        """One image, each way in one message."""
        image, response = await self._upscale(request, request.image, call)
        self._check_fits("image", len(image), "call UpscaleStream, or ask for IMAGE_FORMAT_JPEG")
        response.image = image
        return response

    async def upscale_stream(
        self, requests: AsyncIterator[pb.UpscaleStreamRequest], call: Call
    ) -> AsyncGenerator[pb.UpscaleStreamResponse, None]:
        """One image in pieces, with progress while it is in work."""
        async with _in_time(call):
            request, image = await self._uploads.receive(requests)
        progress = Progress()
        task = asyncio.create_task(self._upscale(request, image, call, progress.tell))
        task.add_done_callback(lambda _: progress.end())
        try:
            async for done, total in progress:
                yield pb.UpscaleStreamResponse(progress=pb.Progress(tiles_done=done, tiles_total=total))
            answer, response = await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        yield pb.UpscaleStreamResponse(header=response)
        for start in range(0, len(answer), CHUNK_BYTES):
            yield pb.UpscaleStreamResponse(data=answer[start : start + CHUNK_BYTES])

    async def generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:
        """`count` samples, each an item of the scheduler as a tile is."""
        model = self.models.find("generate", request.model)
        async with _in_time(call):
            order = await self._codec(self._quick, call, generate_order, request, model.manifest, self.limits)
            call.facts |= {"model": model.name, "size": f"{order.count}×{order.width}×{order.height}"}
            samples = Samples(model, order)
            async with self._admitted(model, samples, call):
                job = samples.job(call.deadline_s)
                await self._run(model, job)
                images = await asyncio.gather(
                    *(
                        self._codec(self._quick, call, pixels.encode, one, order.format)
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
            timing=call.timing(model, job),
            seed=order.seed,
        )

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """What is served, by name."""
        return pb.ListModelsResponse(models=map(_info, self.models))

    def close(self) -> None:
        """End the codec threads and the models. No call may be under way."""
        self._quick.shutdown(cancel_futures=True)
        self._slow.shutdown(cancel_futures=True)
        self.models.close()

    async def _upscale(
        self,
        request: pb.UpscaleRequest,
        image: bytes,
        call: Call,
        tell: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[bytes, pb.UpscaleResponse]:
        """The answer's file, and the response that lacks it. tell: hears (tiles done, tiles in all)."""
        model = self.models.find("upscale", request.model)
        async with _in_time(call):
            header = await self._codec(
                self._quick, call, pixels.probe, image, max_pixels=self.limits.max_pixels
            )
            order = upscale_order(request, header, model.manifest, self.limits)
            size = f"{header.width}×{header.height} {header.format} → {order.width}×{order.height} {order.format}"
            call.facts |= {"model": model.name, "size": size}
            codecs = self._quick if order.width * order.height <= QUICK_PIXELS else self._slow
            picture = Picture(model, header, order, image)
            async with self._admitted(model, picture, call):
                await self._codec(codecs, call, picture.decode, self.limits.max_pixels)
                job = picture.job(call.deadline_s, tell)
                await self._run(model, job)
                answer = await self._codec(codecs, call, picture.encode)
        return answer, pb.UpscaleResponse(
            format=formats.NUMBERS[order.format],
            width=order.width,
            height=order.height,
            model=model.name,
            timing=call.timing(model, job),
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
        entered_s = time.monotonic()
        try:
            await asyncio.wrap_future(ticket.admitted)
            call.queue_s = time.monotonic() - entered_s
            yield
        finally:
            work.free()
            ticket.leave()

    @staticmethod
    async def _run(model: Model, job: Job) -> None:
        """Wait for a job. Cancelling the wait cancels `job.done`, and that drops what the job has left."""
        model.scheduler.submit(job)
        await asyncio.wrap_future(job.done)

    @staticmethod
    async def _codec(
        pool: ThreadPoolExecutor, call: Call, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function` on a codec thread, and count its time."""

        def timed() -> tuple[T, float]:
            start_s = time.monotonic()
            return function(*args, **kwargs), time.monotonic() - start_s

        result, seconds = await asyncio.get_running_loop().run_in_executor(pool, timed)
        call.codec_s += seconds
        return result

    def _check_fits(self, name: str, size_bytes: int, advice: str) -> None:
        if size_bytes > self.limits.max_message_bytes - MESSAGE_MARGIN_BYTES:
            raise InvalidInput(
                name,
                f"the answer takes {size_bytes} bytes, one message holds {self.limits.max_message_bytes} "
                f"(--max-message-bytes); {advice}",
            )


@asynccontextmanager
async def _in_time(call: Call) -> AsyncIterator[None]:
    """Ends what runs inside at the caller's deadline, with DeadlineExceeded."""
    scope = asyncio.timeout(call.time_left_s())
    try:
        async with scope:
            yield
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded("the deadline passed; the remaining work was dropped") from error


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
