"""One call, whichever front it came through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from protos import ganforge_pb2 as pb
from runtime.errors import DeadlineExceeded
from runtime.scheduler import Job
from runtime.stopwatch import Stopwatch
from server.models import Model


@dataclass
class Call:
    """What the core knows of one caller, whichever front it came through.

    deadline_s: on time.monotonic(); None where the caller would wait for ever.
    facts: what the core learns about the call, for the front's log line.
    """

    deadline_s: float | None = None
    facts: dict[str, object] = field(default_factory=dict)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def time_left_s(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - time.monotonic()

    def timing(self, model: Model, jobs: Sequence[Job]) -> pb.Timing:
        times = self.stopwatch.times()
        return pb.Timing(
            queue_ms=times.queue_s * 1e3,
            inference_ms=times.inference_s * 1e3,
            codec_ms=times.codec_s * 1e3,
            total_ms=times.total_s * 1e3,
            tiles=sum(len(job.items) for job in jobs),
            precision=model.engine.precision,
            backend=model.engine.backend,
        )


@asynccontextmanager
async def in_time(call: Call) -> AsyncIterator[None]:
    """Ends what runs inside at the caller's deadline, with DeadlineExceeded."""
    scope = asyncio.timeout(call.time_left_s())
    try:
        async with scope:
            yield
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded("the deadline passed; the remaining work was dropped") from error
