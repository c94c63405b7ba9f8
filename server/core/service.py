"""The core service: one method per call, on plain dataclasses, without any protocol.

A front (for gRPC: server/grpc_front/front.py) opens a call with `open`, receives the request inside it, and calls a method with
a request of server/core/requests.py, a function that sends the answer, and the Call; an error of runtime/errors.py may be
raised. If the caller goes away, the front cancels the asyncio task of the call; the request's remaining items are then
dropped before the next batch.

    receive ─► check ─► admission ─► decode ─► tiles or samples, batched with others' ─► stitch ─► encode ─► send
                        (bounded)    (codec threads)    (the device's scheduler)        (codec threads)

The steps are in server/core/images.py and server/core/samples.py; what they share is in server/core/shared.py. The call
counts as open, and an answer keeps its share of the budget, until the answer has left.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from runtime.admission import Admission, AdmissionStats
from runtime.sample_work import sample_shape
from runtime.tensors import TaskName
from server.core.administration import Administration
from server.core.calls import Call, Calls, Observer
from server.core.codec_threads import CodecStats
from server.core.images import Images
from server.core.requests import (
    ImageAnswer,
    ImageRequest,
    ModelInfo,
    PieceIn,
    PieceOut,
    SamplesAnswer,
    SamplesRequest,
)
from server.core.samples import Samples
from server.core.shared import Ready, Shared
from server.health import Health
from server.limits import Limits
from server.models.entry import Entry
from server.models.models import Models
from server.security.callers import ANYBODY, Caller


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
        self.health = Health()
        self.administration = Administration()
        self._shared = Shared(limits, self.health, codec_threads=codec_threads)
        self.transit = self._shared.transit
        self._calls = Calls(limits, self.transit.end_idle)
        self._images = Images(self._shared)
        self._samples = Samples(self._shared)

    def ready(self, models: Models) -> None:
        """Start serving these models, and those that are added to them later."""
        admission = Admission(
            max_active_bytes=self.limits.max_active_bytes,
            max_disk_bytes=self.limits.max_disk_bytes - self.limits.max_uploads_bytes,
            max_queue_px=self.limits.max_queue_pixels,
            max_queue_s=self.limits.max_queue_s,
        )
        self._shared.ready = Ready(models, admission)

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every call from now on."""
        self._calls.observers.append(observer)

    def stats(self) -> ServiceStats:
        """What is open and held now. From any thread, at any time."""
        shared = self._shared
        ready = shared.ready
        return ServiceStats(
            self._calls.open_now,
            shared.uploads.held_bytes,
            shared.transit.held_bytes,
            ready.models if ready else None,
            ready.admission.stats() if ready else None,
            self.administration.reloads(),
            shared.codecs.stats(),
        )

    @property
    def models(self) -> Models:
        """The served models. Raises NotReady before `ready`."""
        return self._shared.warm().models

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
        await self._images.answer(task, request, image, send, call)

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
        await self._images.stream(task, pieces, send, call)

    async def samples(
        self,
        task: TaskName,
        request: SamplesRequest,
        send: Callable[[SamplesAnswer], Awaitable[None]],
        call: Call,
    ) -> None:
        """Draw `count` samples, each an item of the scheduler. `send` and errors: as for `image`."""
        await self._samples.answer(task, request, send, call)

    async def list_models(self, caller: Caller = ANYBODY) -> tuple[ModelInfo, ...]:
        """Describe the served models that the caller may use, sorted by name."""
        catalog = self._shared.warm().models.catalog
        entries = [entry for entry in catalog.entries.values() if caller.may_use(entry.name)]
        return tuple(_info(entry, catalog.is_default(entry)) for entry in entries)

    def close(self) -> None:
        """Stop the codec threads and close the models. No call may be running."""
        self._shared.codecs.close()
        if self._shared.ready is not None:
            self._shared.ready.models.close()


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
