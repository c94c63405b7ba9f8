"""The core service: one method per call, on plain dataclasses, without any protocol.

A front (for gRPC: server/grpc_front/front.py) opens a call with `open`, receives the request inside it, and calls a method with
a request of server/core/requests.py, a function that sends the answer, and the Call; an error of runtime/errors.py may be
raised. If the caller goes away, the front cancels the asyncio task of the call; the request's remaining items are then
dropped before the next batch.

    receive ─► check ─► admission ─► decode ─► tiles or samples, batched with others' ─► stitch ─► encode ─► send
                        (bounded)    (codec threads)    (the device's scheduler)        (codec threads)

The call counts as open, and an answer keeps its share of the budget, until the answer has left.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from runtime.admission import Admission, AdmissionStats
from runtime.cost import Cost
from runtime.errors import InvalidInput, NotReady
from runtime.estimates import Coding, Estimates, OnDevice
from runtime.jobs import Flow
from runtime.lane import Ticket
from runtime.picture_work import PictureWork
from runtime.pictures.reading import open_picture
from runtime.sample_work import SampleWork, sample_shape
from runtime.shares import Account
from runtime.tensors import TaskName
from server.core.administration import Administration
from server.core.calls import Call, Calls, Observer
from server.core.codec_threads import CHECKING, Codecs, CodecStats
from server.core.disk import Disk
from server.core.params import image_params, sample_params
from server.core.pipeline import OnProgress, encode_samples, run_job, run_picture
from server.core.progress import LatestProgress
from server.core.requests import (
    ImageAnswer,
    ImageRequest,
    ModelInfo,
    PieceIn,
    PieceOut,
    SamplesAnswer,
    SamplesRequest,
)
from server.core.transit import Transit
from server.core.uploads import Uploads
from server.health import Health
from server.limits import CHUNK_BYTES, MESSAGE_MARGIN_BYTES, Limits
from server.models.entry import Entry
from server.models.models import Model, Models
from server.security.allowed import allowed_name
from server.security.callers import ANYBODY, Caller
from server.security.quotas import Quotas

T = TypeVar("T")
# Copies of an answer in memory while it is sent: the file, its message, and the message in gRPC's buffers.
ANSWER_COPIES = 3


@dataclass(frozen=True)
class Ready:
    """The parts of a service that exist only after its models are warm."""

    models: Models
    admission: Admission


@dataclass(frozen=True)
class ServiceStats:
    """What a service holds at one moment, for metrics. models, admission: None until it is ready.

    reloads: how many models were "added", "replaced", "removed" and "refused". codecs: the codec threads.
    """

    open_calls: int
    uploads_bytes: int
    transit_bytes: int
    models: Models | None
    admission: AdmissionStats | None
    reloads: Mapping[str, int]
    codecs: CodecStats


class Service:
    """The calls of one server. Several fronts may make calls concurrently, on one event loop.

    Every method raises NotReady before `ready`, and must be called inside `open`.
    codec_threads: `threads` of Codecs.
    """

    def __init__(self, limits: Limits, *, codec_threads: int = os.cpu_count() or 1) -> None:
        self.limits = limits
        self._ready: Ready | None = None
        self.health = Health()
        self.transit = Transit(limits)
        self.administration = Administration()
        self._calls = Calls(limits, self.transit.end_idle)
        self._codecs = Codecs(codec_threads)
        self._estimates = Estimates(codec_threads)
        self._disk = Disk(partial(self.health.report, "disk"))
        self._uploads = Uploads(limits, self._disk)
        self._quotas = Quotas()

    def ready(self, models: Models) -> None:
        """Start serving these models, and those that are added to them later."""
        admission = Admission(
            max_active_bytes=self.limits.max_active_bytes,
            max_disk_bytes=self.limits.max_disk_bytes - self.limits.max_uploads_bytes,
            max_queue_px=self.limits.max_queue_pixels,
            max_queue_s=self.limits.max_queue_s,
        )
        self._ready = Ready(models, admission)

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every call from now on."""
        self._calls.observers.append(observer)

    def stats(self) -> ServiceStats:
        """What is open and held now. From any thread, at any time."""
        ready = self._ready
        return ServiceStats(
            self._calls.open_now,
            self._uploads.held_bytes,
            self.transit.held_bytes,
            ready.models if ready else None,
            ready.admission.stats() if ready else None,
            self.administration.reloads(),
            self._codecs.stats(),
        )

    @property
    def models(self) -> Models:
        """The served models. Raises NotReady before `ready`."""
        return self._warm().models

    def open(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Context manager around all that a front does for a call: receiving, answering, sending.

        It counts the call, ends it at its deadline and logs how it ended. Raises Overloaded beyond `limits.max_calls`, and
        DeadlineExceeded.
        """
        return self._calls.open(call)

    async def image(
        self,
        task: TaskName,
        request: ImageRequest,
        image: bytes,
        send: Callable[[ImageAnswer], Awaitable[None]],
        call: Call,
    ) -> None:
        """Upscale or translate one picture. image: its file. send: called with the answer; returns when that has left.

        Raises InvalidInput, ModelNotFound, Overloaded or EngineError, and InvalidInput if the answer is larger than one
        message.
        """
        async with AsyncExitStack() as stack:
            file, answer = await self._image(task, request, image, call, stack)
            advice = "use the streaming call, or ask for JPEG"
            self._check_fits("image", file.seek(0, os.SEEK_END), advice)
            file.seek(0)
            answer = replace(answer, image=await asyncio.to_thread(file.read))
            file.close()
            await self._send(send, answer, call, leaving_bytes=ANSWER_COPIES * len(answer.image))

    async def image_stream(
        self,
        task: TaskName,
        pieces: AsyncIterator[PieceIn],
        send: Callable[[PieceOut], Awaitable[None]],
        call: Call,
    ) -> None:
        """As `image`, with both files in pieces. pieces: the request first, then the picture's file.

        send: called with progress while the picture is processed, then with the answer without its image, then with the
        file in pieces of at most CHUNK_BYTES. It is a callback and not a generator, so that a call can be ended whose
        reader takes nothing for `idle_s`.
        """
        async with AsyncExitStack() as stack:
            file, answer = await self._uploaded_image(task, pieces, send, call, stack)
            held_bytes = file.seek(0, os.SEEK_END) if isinstance(file, io.BytesIO) else 0
            await self._send(send, answer, call, held_bytes=held_bytes)
            file.seek(0)
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await self._send(send, piece, call, leaving_bytes=len(piece), held_bytes=held_bytes)

    async def samples(
        self,
        task: TaskName,
        request: SamplesRequest,
        send: Callable[[SamplesAnswer], Awaitable[None]],
        call: Call,
    ) -> None:
        """Draw `count` samples, each an item of the scheduler. `send` and errors: as for `image`."""
        warm = self._warm()
        name = allowed_name(warm.models.catalog, task, request.model, call.caller)
        async with warm.models.using(task, name, call.stopwatch) as model:
            await self._samples(warm.admission, model, request, send, call)

    async def _samples(
        self,
        admission: Admission,
        model: Model,
        request: SamplesRequest,
        send: Callable[[SamplesAnswer], Awaitable[None]],
        call: Call,
    ) -> None:
        """As `samples`, with this model."""
        params = await self._codecs.run(CHECKING, call, sample_params, request, model.manifest, self.limits)
        call.facts |= {
            "model": model.name,
            "version": model.version,
            "size": f"{params.count}×{params.width}×{params.height}",
            "priority": request.priority or "interactive",
        }
        flow = Flow(Account(call.origin, request.priority or "interactive", call.peer))
        samples = SampleWork(model.engine, params.latents, params.labels, params.encoding, flow)
        coding = Coding(params.encoding, samples.cost.pixels, files=params.count)
        device = _on_device(model, params.count, samples.cost.pixels)
        cost = self._estimates.cost(samples.cost, device, coding)
        async with self._admitted(admission, cost, samples, flow, call) as ticket:
            await run_job(model, samples.job(call.deadline_s), call)
            images = await encode_samples(samples, params, self._codecs, call)
            samples.free()
            self._estimates.learn(coding, call.stopwatch.times().codec_s)
            self._check_fits("count", sum(map(len, images)), "ask for fewer samples, or for JPEG")
            answer = SamplesAnswer(
                images=tuple(images),
                format=params.encoding.format,
                width=params.width,
                height=params.height,
                model=model.name,
                labels=tuple(params.labels.tolist()),
                seed=params.seed,
                timing=call.timing(model, params.count),
            )
            size_bytes = sum(map(len, images))
            del images
            ticket.hold_only(memory_bytes=0, disk_bytes=0)
            await self._send(send, answer, call, leaving_bytes=ANSWER_COPIES * size_bytes)

    async def list_models(self, caller: Caller = ANYBODY) -> tuple[ModelInfo, ...]:
        """Describe the served models that the caller may use, sorted by name."""
        catalog = self._warm().models.catalog
        entries = [entry for entry in catalog.entries.values() if caller.may_use(entry.name)]
        return tuple(_info(entry, catalog.is_default(entry)) for entry in entries)

    def close(self) -> None:
        """Stop the codec threads and close the models. No call may be running."""
        self._codecs.close()
        if self._ready is not None:
            self._ready.models.close()

    def _warm(self) -> Ready:
        if self._ready is None:
            raise NotReady("the server is warming up; try again shortly")
        return self._ready

    async def _uploaded_image(
        self,
        task: TaskName,
        pieces: AsyncIterator[PieceIn],
        send: Callable[[PieceOut], Awaitable[None]],
        call: Call,
        stack: AsyncExitStack,
    ) -> tuple[BinaryIO, ImageAnswer]:
        """Receive the upload, then do as `_image` and send the progress. The upload is deleted at the end."""
        with self._uploads.begin() as upload:
            request = await self._uploads.receive(upload, pieces)
            latest = LatestProgress()
            work = asyncio.create_task(self._image(task, request, upload.source, call, stack, latest.update))
            work.add_done_callback(lambda _: latest.end())
            try:
                async for progress in latest:
                    await self._send(send, progress, call)
                return await work
            except BaseException:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                raise

    async def _image(
        self,
        task: TaskName,
        request: ImageRequest,
        image: bytes | Path,
        call: Call,
        stack: AsyncExitStack,
        on_progress: OnProgress = lambda progress: None,
    ) -> tuple[BinaryIO, ImageAnswer]:
        """Process one picture. Returns the answer's file, open, and the answer without it.

        stack: closes the file, and keeps its disk admitted until then. Its memory is counted by `_send`.
        """
        warm = self._warm()
        name = allowed_name(warm.models.catalog, task, request.model, call.caller)
        async with warm.models.using(task, name, call.stopwatch) as model:
            return await self._picture(warm.admission, model, request, image, call, stack, on_progress)

    async def _picture(
        self,
        admission: Admission,
        model: Model,
        request: ImageRequest,
        image: bytes | Path,
        call: Call,
        stack: AsyncExitStack,
        on_progress: OnProgress,
    ) -> tuple[BinaryIO, ImageAnswer]:
        """As `_image`, with this model."""
        opened = await self._codecs.run(
            CHECKING, call, open_picture, image, max_pixels=self.limits.max_pixels
        )
        header = opened.header
        params = image_params(request, header, model.manifest, self.limits)
        size = f"{header.width}×{header.height} {header.format}"
        call.facts |= {
            "model": model.name,
            "version": model.version,
            "size": f"{size} → {params.width}×{params.height} {params.encoding.format}",
            "priority": request.priority or "interactive",
        }
        flow = Flow(Account(call.origin, request.priority or "interactive", call.peer))
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
        device = _on_device(model, picture.tiles_total, picture.cost.pixels)
        cost = self._estimates.cost(picture.cost, device, coding)
        ticket = await stack.enter_async_context(self._admitted(admission, cost, picture, flow, call))
        file, items = await run_picture(model, picture, self._codecs, self._disk, call, on_progress)
        stack.enter_context(file)
        picture.free()
        self._estimates.learn(coding, call.stopwatch.times().codec_s)
        in_memory = isinstance(file, io.BytesIO)
        ticket.hold_only(memory_bytes=0, disk_bytes=0 if in_memory else file.seek(0, os.SEEK_END))
        return file, ImageAnswer(
            image=b"",
            format=params.encoding.format,
            width=params.width,
            height=params.height,
            model=model.name,
            timing=call.timing(model, items),
        )

    @asynccontextmanager
    async def _admitted(
        self, admission: Admission, cost: Cost, work: PictureWork | SampleWork, flow: Flow, call: Call
    ) -> AsyncIterator[Ticket]:
        """Context manager: waits until the request is admitted, and frees its place and memory at the end.

        Raises at once: InvalidInput if the request needs more than the whole budget, DeadlineExceeded if an idle server could
        not meet the deadline, Overloaded if this one cannot, the queue is full or the caller's quota is used up.
        """
        with self._quotas.hold(call.caller, cost) as hold:
            ticket = admission.enter(cost, flow=flow, time_left_s=call.time_left_s())
            call.expect(ticket.expected_s)
            try:
                with call.stopwatch.during("queue"):
                    await asyncio.wrap_future(ticket.admitted)
                hold.spend()
                yield ticket
            finally:
                work.free()
                ticket.leave()

    async def _send(
        self,
        send: Callable[[T], Awaitable[None]],
        piece: T,
        call: Call,
        *,
        leaving_bytes: int = 0,
        held_bytes: int = 0,
    ) -> None:
        """Send a piece and wait until it has left. leaving_bytes: of memory until then. held_bytes: even longer."""
        await self.transit.send(send(piece), call, leaving_bytes=leaving_bytes, held_bytes=held_bytes)

    def _check_fits(self, name: str, size_bytes: int, advice: str) -> None:
        """Raises InvalidInput naming the field `name` if an answer does not fit into one message."""
        if size_bytes > self.limits.max_message_bytes - MESSAGE_MARGIN_BYTES:
            raise InvalidInput(
                name,
                f"the answer takes {size_bytes} bytes, one message holds {self.limits.max_message_bytes} "
                f"(--max-message-bytes); {advice}",
            )


def _on_device(model: Model, items: int, pixels: int) -> OnDevice:
    """What a request of so many items, of so many pixels together, asks of the model's device."""
    scheduler = model.scheduler
    speed = scheduler.seconds_per_px(model.engine, pixels // max(1, items))
    return OnDevice(items, speed or 0.0, max(1, scheduler.slots))


def _info(entry: Entry, is_default: bool) -> ModelInfo:
    manifest = entry.manifest
    engine = entry.model.engine if entry.model is not None else entry
    _, height, width = sample_shape(manifest)
    return ModelInfo(
        name=manifest.name,
        task=manifest.task,
        scale=manifest.scale,
        latent_size=manifest.latent_size,
        class_names=manifest.class_names or tuple(map(str, range(manifest.classes))),
        precision=engine.precision,
        backend=engine.backend,
        width=width,
        height=height,
        is_default=is_default,
        max_whole_px=manifest.max_whole_px,
        version=entry.version,
        state=entry.state,
    )
