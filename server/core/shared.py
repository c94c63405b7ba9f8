"""Shared: what the requests of a server share, and the steps that every request takes with them.

Service makes one; server/core/images.py and server/core/samples.py take each request through it: permission and model,
admission, sending.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from runtime.admission import Admission
from runtime.errors import InvalidInput, NotReady
from runtime.estimates import Coding, Estimates, OnDevice
from runtime.jobs import Flow
from runtime.lane import Ticket
from runtime.picture_work import PictureWork
from runtime.sample_work import SampleWork
from runtime.shares import Account
from runtime.tensors import TaskName
from server.core.calls import Call
from server.core.codec_threads import Codecs
from server.core.disk import Disk
from server.core.requests import ImageRequest, SamplesRequest
from server.core.slow_clients import AnswersOnDisk
from server.core.transit import Transit
from server.core.uploads import Uploads
from server.health import Health
from server.limits import MESSAGE_MARGIN_BYTES, Limits
from server.models.models import Model, Models
from server.security.allowed import allowed_name
from server.security.quotas import Quotas

T = TypeVar("T")
# Copies of an answer in memory while it is sent: the file, its message, and the message in gRPC's buffers.
ANSWER_COPIES = 3


@dataclass(frozen=True)
class Ready:
    """The parts of a service that exist only after its models are warm."""

    models: Models
    admission: Admission


class Shared:
    """Codec threads, budgets, quotas and estimates of one server, and its models once they are warm.

    health: is told whether the disk works. codec_threads: `threads` of Codecs. ready: None until the models are warm.
    """

    def __init__(self, limits: Limits, health: Health, *, codec_threads: int = os.cpu_count() or 1) -> None:
        self.limits = limits
        self.transit = Transit(limits)
        self.codecs = Codecs(codec_threads)
        self.estimates = Estimates(codec_threads)
        self.disk = Disk(partial(health.report, "disk"))
        self.uploads = Uploads(limits, self.disk, self.transit)
        self.answers = AnswersOnDisk(self.transit, limits.idle_s, lambda: self.warm().admission.in_the_way())
        self.ready: Ready | None = None
        self._quotas = Quotas()

    def warm(self) -> Ready:
        """The models and their admission. Raises NotReady until the models are warm."""
        if self.ready is None:
            raise NotReady("the server is warming up; try again shortly")
        return self.ready

    def using(self, task: TaskName, model: str, call: Call) -> AbstractAsyncContextManager[Model]:
        """Context manager: the model of a request, which stays open meanwhile. model: its name; empty for the default.

        Raises NotReady, and ModelNotFound if there is none or the caller may not use it.
        """
        models = self.warm().models
        name = allowed_name(models.catalog, task, model, call.caller)
        return models.using(task, name, call.stopwatch)

    @asynccontextmanager
    async def admitted(
        self,
        work: PictureWork | SampleWork,
        model: Model,
        call: Call,
        *,
        items: int,
        coding: Coding,
        flow: Flow,
    ) -> AsyncIterator[Ticket]:
        """Context manager: waits until the request is admitted, and frees its place and memory at the end.

        items: how many the device runs for it. Raises at once: InvalidInput if the request needs more than the whole budget,
        DeadlineExceeded if an idle server could not meet the deadline, Overloaded if this one cannot, the queue is full or
        the caller's quota is used up.
        """
        admission = self.warm().admission
        cost = self.estimates.cost(work.cost, _on_device(model, items, work.cost.pixels), coding)
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

    async def send(
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

    def check_fits(self, name: str, size_bytes: int, advice: str) -> None:
        """Raises InvalidInput naming the field `name` if an answer does not fit into one message."""
        if size_bytes > self.limits.max_message_bytes - MESSAGE_MARGIN_BYTES:
            raise InvalidInput(
                name,
                f"the answer takes {size_bytes} bytes, one message holds {self.limits.max_message_bytes} "
                f"(--max-message-bytes); {advice}",
            )


def new_flow(request: ImageRequest | SamplesRequest, call: Call) -> Flow:
    """The flow of a request, charged to whoever makes the call."""
    return Flow(Account(call.origin, request.priority or "interactive", call.peer))


def note_facts(call: Call, model: Model, flow: Flow, size: str) -> None:
    """Add to the call's log line what is known once the request is checked. size: of its input and answer, for people."""
    call.facts |= {
        "model": model.name,
        "version": model.version,
        "size": size,
        "priority": flow.account.priority,
    }


def _on_device(model: Model, items: int, pixels: int) -> OnDevice:
    """What a request of so many items, of so many pixels together, asks of the model's device."""
    scheduler = model.scheduler
    speed = scheduler.seconds_per_px(model.engine, pixels // max(1, items))
    return OnDevice(items, speed or 0.0, max(1, scheduler.slots))
