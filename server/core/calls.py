"""Calls: request id, deadline and stopwatch of each call, the limit on open calls, and one log line per call.

A front makes a Call for each incoming call and passes it to server/core/service.py, whose methods all run inside `Calls.open`.
So limits, deadlines, request ids and log lines are the same for every front.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from runtime.errors import DeadlineExceeded, OutOfSpace, Overloaded
from runtime.stopping import Stop
from runtime.stopwatch import Stopwatch
from server.codes import CANCELLED, INTERNAL, OK, code_of, message_for_caller
from server.core.connections import machine
from server.core.requests import Timing
from server.limits import Limits
from server.logs import log
from server.models.models import Model
from server.security.callers import ANYBODY, Caller

RETRY_AFTER_S = 1.0
REQUEST_ID_PATTERN = re.compile(r"[\w.:-]{1,64}", re.ASCII)


@dataclass
class Call:
    """One call through any front. Made with `Call.begin` as soon as the call arrives.

    method: its name in the log. request_id: identifies the call in the logs of client and server.
    peer: the connection that it came through, e.g. "ipv4:192.0.2.1:4711"; empty if unknown. caller: who makes it.
    deadline_s: on time.monotonic(); None if there is none. facts: further fields of the log line, added by the core.
    heard_s: on time.monotonic(): when its client last sent or took something.
    stopwatch: measures where the time goes. trace_context: the caller's traceparent and tracestate headers, unchecked.
    estimate_ms: from the call's arrival to its answer, as estimated when it was admitted; 0 before.
    stop: ends its codec work when the call ends early.
    """

    method: str
    request_id: str
    deadline_s: float | None = None
    facts: dict[str, object] = field(default_factory=dict)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    stop: Stop = field(default_factory=Stop)
    peer: str = ""
    caller: Caller = ANYBODY
    trace_context: Mapping[str, str] = field(default_factory=dict)
    estimate_ms: float = 0.0
    heard_s: float = field(default_factory=time.monotonic)

    @property
    def client(self) -> str:
        """The name of the caller's token or certificate, for logs and metrics; empty if it has none."""
        return self.caller.name

    @property
    def origin(self) -> str:
        """Whose call it is, for limits: the name of the caller's token, or else the address of its machine."""
        return self.client or machine(self.peer)

    @classmethod
    def begin(
        cls, method: str, *, request_id: str | None = None, time_left_s: float | None = None, peer: str = ""
    ) -> Call:
        """Make the Call of an incoming call.

        request_id: the caller's. Replaced by a new one unless it has 1 to 64 letters, digits or characters of _.:-
        time_left_s: seconds until the caller's deadline; None if there is none. peer: its connection.
        """
        kept = request_id is not None and REQUEST_ID_PATTERN.fullmatch(request_id)
        return cls(
            method,
            request_id if request_id and kept else secrets.token_hex(8),
            None if time_left_s is None else time.monotonic() + time_left_s,
            peer=peer,
        )

    def time_left_s(self) -> float | None:
        """Seconds until the deadline, negative after it; None if there is none."""
        return None if self.deadline_s is None else self.deadline_s - time.monotonic()

    def expect(self, seconds: float) -> None:
        """Note the estimated time from now to the answer."""
        self.estimate_ms = (self.stopwatch.times().total_s + seconds) * 1e3
        self.facts["estimate_ms"] = round(self.estimate_ms, 1)

    def timing(self, model: Model, tiles: int) -> Timing:
        """The Timing of the answer, up to now. tiles: number of items that ran."""
        times, ran = self.stopwatch.times(), self.stopwatch.ran
        if ran.recovered:
            self.facts["recovered"] = ", ".join(ran.recovered)
        return Timing(
            queue_ms=times.queue_s * 1e3,
            inference_ms=times.inference_s * 1e3,
            codec_ms=times.codec_s * 1e3,
            total_ms=times.total_s * 1e3,
            tiles=tiles,
            precision=ran.precision or model.engine.precision,
            backend=ran.backend or model.engine.backend,
            model_version=model.version,
            device=ran.device or model.engine.device,
            recovered=tuple(ran.recovered),
            estimate_ms=self.estimate_ms,
        )


class Observer(Protocol):
    """Is told of every call, on the event loop: metrics and traces (server/monitoring/)."""

    def begun(self, call: Call) -> None:
        """The call was opened. Nothing has run for it."""

    def ended(self, call: Call, code: str, error: Exception | None) -> None:
        """The call ended with this code. What is added to `call.facts` gets into its log line."""


class Calls:
    """The open calls of one server, over all fronts.

    gRPC's own limit is not used: it counts calls of a client that stopped reading until their connection closes.
    observers: are told of every call. make_room: ends an idle call, from one address or (None) any, and returns whether
    there was one.
    """

    def __init__(
        self, limits: Limits, make_room: Callable[[str | None], bool] = lambda address: False
    ) -> None:
        self._limits = limits
        self.make_room = make_room
        self._open = 0
        self._by_address: Counter[str] = Counter()
        self.observers: list[Observer] = []

    @property
    def open_now(self) -> int:
        """How many calls are open."""
        return self._open

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[None]:
        """Context manager around a call: counts it, ends it at its deadline and logs how it ended.

        Raises Overloaded if too many calls are open, DeadlineExceeded at the deadline, and whatever the block raises.
        """
        address = machine(call.peer)
        self._open += 1
        self._by_address[address] += 1
        try:
            for observer in self.observers:
                observer.begun(call)
            self._check(address)
            message = "the deadline passed; the remaining work was dropped"
            async with time_limit(call.time_left_s(), message):
                yield
        except asyncio.CancelledError:
            self._tell(call, CANCELLED, None)
            _log(call, CANCELLED)
            raise
        except Exception as error:
            self._tell(call, code_of(error), error)
            _log_failure(call, error)
            _clear_frames(error)
            raise
        else:
            self._tell(call, OK, None)
            _log(call, OK)
        finally:
            self._open -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _check(self, address: str) -> None:
        """Raises Overloaded if too many calls are open, and none of them can be ended because it waits for its client."""
        limits = self._limits
        if self._by_address[address] > limits.max_calls_per_client:
            if not self.make_room(address):
                raise Overloaded(
                    f"{address} has {limits.max_calls_per_client} calls open already (--max-calls-per-client); "
                    "try again later",
                    retry_after_s=RETRY_AFTER_S,
                    reason="calls",
                )
        elif self._open > limits.max_calls and not self.make_room(None):
            raise Overloaded(
                f"{limits.max_calls} calls are open already (--max-calls); try again later",
                retry_after_s=RETRY_AFTER_S,
                reason="calls",
            )

    def _tell(self, call: Call, code: str, error: Exception | None) -> None:
        for observer in self.observers:
            observer.ended(call, code, error)


@asynccontextmanager
async def time_limit(seconds: float | None, message: str) -> AsyncIterator[None]:
    """Context manager that raises DeadlineExceeded(message) if its block takes longer than `seconds`; None: no limit."""
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
    elif isinstance(error, OutOfSpace):
        log.error("call", code=code, message=str(error), **_facts(call))
    else:
        log.info("call", code=code, message=message_for_caller(error, call.request_id), **_facts(call))


def _facts(call: Call) -> dict[str, object]:
    total_ms = round(call.stopwatch.times().total_s * 1e3, 1)
    who = {name: value for name, value in (("client", call.client), ("peer", call.peer)) if value}
    return {"request_id": call.request_id, "method": call.method, "ms": total_ms, **who, **call.facts}


def _clear_frames(error: BaseException | None) -> None:
    """Clear the local variables in an error's traceback, so that memory and open files are freed without a collection."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
