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
from server.models import Model


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

    def timing(self, model: Model, jobs: Sequence[Job]) -> pb.Timing:
        return pb.Timing(
            queue_ms=self.queue_s * 1e3 + jobs[0].queue_ms,
            inference_ms=sum(job.inference_ms for job in jobs),
            codec_ms=self.codec_s * 1e3,
            total_ms=(time.monotonic() - self.started_s) * 1e3,
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
