"""Calls: what the core knows of each, how many may be open at once, and the one log line that each leaves.

Every method of server/service.py runs inside `Calls.open`, so every front gets the limits, deadlines, request ids
and log lines of the others.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from runtime.errors import DeadlineExceeded, Overloaded
from runtime.stopwatch import Stopwatch
from server.codes import CANCELLED, INTERNAL, OK, code_of, message_for_caller
from server.limits import Limits
from server.logs import log
from server.models import Model
from server.requests import Timing

RETRY_AFTER_S = 1.0
REQUEST_ID_PATTERN = re.compile(r"[\w.:-]{1,64}", re.ASCII)


@dataclass
class Call:
    """One call, whichever front it came through. Made by `Call.begin` as soon as the front hears of it.

    method: its name in the log. request_id: joins the logs of both sides. deadline_s: on time.monotonic(); None where
    the caller would wait for ever. facts: what the core learns about the call, for its log line.
    """

    method: str
    request_id: str
    deadline_s: float | None = None
    facts: dict[str, object] = field(default_factory=dict)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def begin(cls, method: str, *, request_id: str | None = None, time_left_s: float | None = None) -> Call:
        """request_id: the caller's own, kept where it is 1 to 64 letters, digits or _.:- and else replaced by a new one.

        time_left_s: seconds until the caller's deadline; None where there is none.
        """
        kept = request_id is not None and REQUEST_ID_PATTERN.fullmatch(request_id)
        return cls(
            method,
            request_id if request_id and kept else secrets.token_hex(8),
            None if time_left_s is None else time.monotonic() + time_left_s,
        )

    def time_left_s(self) -> float | None:
        """Seconds until the deadline, below 0 once it has passed; None where there is none."""
        return None if self.deadline_s is None else self.deadline_s - time.monotonic()

    def timing(self, model: Model, tiles: int) -> Timing:
        """The answer's Timing, until now. tiles: how many items ran."""
        times = self.stopwatch.times()
        return Timing(
            queue_ms=times.queue_s * 1e3,
            inference_ms=times.inference_s * 1e3,
            codec_ms=times.codec_s * 1e3,
            total_ms=times.total_s * 1e3,
            tiles=tiles,
            precision=model.engine.precision,
            backend=model.engine.backend,
        )


class Calls:
    """The open calls of one server, over all fronts.

    A front's own limit would not do: gRPC's counts calls whose reader stands still until their connection closes.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open = 0

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[None]:
        """Around a call: counts it, ends it at its deadline, and logs how it ended.

        Raises Overloaded where too many are open, DeadlineExceeded, and what the block raises.
        """
        self._open += 1
        try:
            if self._open > self._limits.max_calls:
                raise Overloaded(
                    f"{self._limits.max_calls} calls are open already (--max-calls); try again later",
                    retry_after_s=RETRY_AFTER_S,
                )
            message = "the deadline passed; the remaining work was dropped"
            async with time_limit(call.time_left_s(), message):
                yield
        except asyncio.CancelledError:
            _log(call, CANCELLED)
            raise
        except Exception as error:
            _log_failure(call, error)
            _clear_frames(error)
            raise
        else:
            _log(call, OK)
        finally:
            self._open -= 1


@asynccontextmanager
async def time_limit(seconds: float | None, message: str) -> AsyncIterator[None]:
    """Ends what runs inside after so many seconds with DeadlineExceeded(message); None: never."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded(message) from error


def _log(call: Call, code: str) -> None:
    log.info("call", code=code, **_facts(call))


def _log_failure(call: Call, error: Exception) -> None:
    code = code_of(error)
    if code == INTERNAL:
        log.error("call", code=code, message=str(error), exc_info=error, **_facts(call))
    else:
        log.info("call", code=code, message=message_for_caller(error, call.request_id), **_facts(call))


def _facts(call: Call) -> dict[str, object]:
    total_ms = round(call.stopwatch.times().total_s * 1e3, 1)
    return {"request_id": call.request_id, "method": call.method, "ms": total_ms, **call.facts}


def _clear_frames(error: BaseException | None) -> None:
    """Free what the frames hold that an error went through, open files among it, without waiting for the garbage collector."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
