"""One gRPC call as the fronts see it: receives request messages, sends answers, and ends with a status.

gRPC reads a unary call's message before its handler runs, and sends the answer after it has returned, where neither can
be timed or counted. So every method is registered as a stream of bytes in both directions, which is the same on the wire,
and its handler reads and writes through an Exchange. front.py and health_front.py list their methods in
`Exchanges.register`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from runtime.errors import Cancelled, InvalidInput, NotReady, Overloaded
from server.core.calls import Call
from server.core.connections import Address, address_of
from server.core.transit import Transit
from server.grpc_front import wire
from server.grpc_front.grpc_server import GrpcServer, reset_call
from server.statuses import REQUEST_ID, to_status

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)
# Metadata keys of W3C trace context.
TRACE_CONTEXT = ("traceparent", "tracestate")
# Requests without a picture, of which most have no more than a name.
SMALL_BYTES = 4096
# A caller that does not take its answer gets this long to take the status.
STATUS_S = 5.0


class Exchange:
    """Receives and sends the messages of one call."""

    def __init__(self, context: Context, call: Call, transit: Transit) -> None:
        self.context = context
        self._call, self._transit = call, transit
        self._held = ExitStack()
        self._sending = False

    async def request(self, kind: type[M], most_bytes: int = SMALL_BYTES, what: str = "for this method") -> M:
        """The message of a call that has exactly one. what: why it can have `most_bytes`, for the error's message.

        Raises InvalidInput if there is none, a second one, or it is larger or no message of that kind; and the errors of
        `Transit.receive`.
        """
        data = await self._only_message()
        wire.check_size(data, most_bytes, what)
        return parse(kind, data)

    async def request_with(self, kind: type[M], number: int) -> tuple[M, bytes]:
        """As `request`, without the field `number`, of bytes, and its value, which may be of any size."""
        others, value = wire.split(await self._only_message(), number)
        return parse(kind, others), value or b""

    async def requests_with(self, kind: type[M], number: int) -> AsyncIterator[tuple[M, bytes | None]]:
        """The messages of a call that may have many, each as `request_with`; None where it does not have the field."""
        while (data := await self._transit.receive(self._next(), self._call)) is not None:
            others, value = wire.split(data, number)
            del data
            yield parse(kind, others), value

    async def requests(self, kind: type[M]) -> AsyncIterator[M]:
        """The small messages of a call that may have many."""
        while (data := await self._transit.receive(self._next(), self._call)) is not None:
            wire.check_size(data, SMALL_BYTES, "for this method")
            yield parse(kind, data)

    async def send(self, data: bytes) -> None:
        """Send one message. Returns when it has left. Raises Cancelled if the caller is gone."""
        self._sending = True
        try:
            await self.context.write(data)
        except grpc.aio.BaseError:
            raise Cancelled("the caller went away while the answer was sent") from None
        self._sending = False

    async def end(self, error: Exception) -> None:
        """End a failed call with its status."""
        code, message, metadata = to_status(error, self._call.request_id)
        if not self._sending:
            # Not `abort`: its exception would keep the whole call in memory until the next garbage collection.
            self.context.set_code(code)
            self.context.set_details(message)
            self.context.set_trailing_metadata(metadata)
            return
        # The status would follow an answer that the caller does not take.
        if not isinstance(error, Overloaded | Cancelled):  # else its memory is needed now, or nobody is there
            with suppress(TimeoutError, grpc.aio.BaseError):
                async with asyncio.timeout(STATUS_S):
                    await self.context.abort(code, message, metadata)
        reset_call()
        raise asyncio.CancelledError

    def close(self) -> None:
        """Count the call's messages no more."""
        self._held.close()

    async def _only_message(self) -> bytes:
        data = await self._transit.receive(self._next(), self._call)
        if data is None:
            raise InvalidInput("request", "the call ended without a message, expected one")
        self._held.enter_context(self._transit.held(len(data), self._call))
        if await self._transit.receive(self._next(), self._call) is not None:
            raise InvalidInput("request", "got a second message, expected one")
        return data

    async def _next(self) -> bytes | None:
        try:
            data = await self.context.read()
        except grpc.aio.BaseError:
            raise Cancelled("the caller went away") from None
        if data is EOF:
            await asyncio.sleep(0)  # if the caller went away, this task is cancelled here
            return None
        return bytes(data)


Answer = Callable[[Exchange, Call], Awaitable[None]]


class Exchanges:
    """All calls of one gRPC server."""

    def __init__(self, transit: Transit) -> None:
        self._transit = transit
        self._running: dict[asyncio.Task[Any], bool] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        self._late: asyncio.Event | None = None
        self._peers: Counter[str] = Counter()

    def register(self, server: GrpcServer, service: str, answers: Mapping[str, Answer]) -> None:
        """Add a service to a server. service: its full name. answers: by the names of its methods."""
        methods = {method: self._handler(method, answer) for method, answer in answers.items()}
        server.add_methods(service, methods)

    def busy(self) -> set[Address | None]:
        """The connections with calls."""
        return {address_of(peer) for peer in self._peers}

    def drain(self) -> None:
        """From now on, hold new calls in `running` until `refuse_late`, and end those that would not finish."""
        self._late = asyncio.Event()
        self._end(task for task, finishes in self._running.items() if not finishes)

    def refuse_late(self) -> None:
        """Refuse the calls that came since `drain`, and all that still come."""
        assert self._late is not None
        self._late.set()

    async def end_all(self) -> None:
        """End the calls in `running`."""
        running = list(self._running)
        self._end(running)
        if running:
            await asyncio.wait(running, timeout=STATUS_S)

    def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tasks:
            self._ended.add(task)
            task.cancel()

    @asynccontextmanager
    async def running(self, *, finishes: bool = True) -> AsyncIterator[None]:
        """Context manager around a call of a server that can stop. finishes: whether it is worth waiting for its end.

        Raises NotReady if the server is stopping already, and later if it does not wait any longer.
        """
        if self._late is not None:
            await self._late.wait()
            raise NotReady("the server is stopping; try again, perhaps with another")
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = finishes
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise NotReady("the server stopped before this call was done; try again") from None
        finally:
            del self._running[task]
            self._ended.discard(task)

    def _handler(self, method: str, answer: Answer) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(messages: object, context: Context) -> None:
            ending = self._handle(method, answer, context)
            del messages, context  # so that the traceback of an error below keeps none of them
            try:
                await ending
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)
                raise

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _handle(self, method: str, answer: Answer, context: Context) -> None:
        """Run one call; an error becomes its status."""
        metadata = dict(context.invocation_metadata() or ())
        request_id = metadata.get(REQUEST_ID)
        call = Call.begin(
            method,
            request_id=request_id if isinstance(request_id, str) else None,
            time_left_s=context.time_remaining(),
            peer=context.peer(),
        )
        call.trace_context = {key: str(metadata[key]) for key in TRACE_CONTEXT if key in metadata}
        context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        exchange = Exchange(context, call, self._transit)
        self._peers[call.peer] += 1
        try:
            await answer(exchange, call)
        except Exception as error:
            await exchange.end(error)
        finally:
            exchange.close()
            self._peers[call.peer] -= 1
            if not self._peers[call.peer]:
                del self._peers[call.peer]


def parse(kind: type[M], data: bytes) -> M:
    """The message in `data`. Raises InvalidInput."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidInput(
            "request",
            f"got {len(data)} bytes that are no {kind.DESCRIPTOR.name}; compare the client's .proto with the server's",
        ) from None
