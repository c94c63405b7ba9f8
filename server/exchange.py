"""One gRPC call as server/grpc_front.py sees it: receives request messages, sends answers, and ends with a status.

gRPC reads a unary call's message before its handler runs, and sends the answer after it has returned, where neither can
be timed or counted. So every method is registered as a stream of bytes in both directions, which is the same on the wire,
and its handler reads and writes through an Exchange, inside the limits of the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from runtime.errors import InvalidInput
from server.calls import time_limit
from server.limits import Limits

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)


class Handler(Protocol):
    """Answers the calls of one method, by its name and gRPC's context. Messages are bytes."""

    async def __call__(self, method: str, context: Context) -> None: ...


def register(server: grpc.aio.Server, service: str, handlers: Mapping[str, Handler]) -> None:
    """Add a service to a server. service: its full name. handlers: by the names of its methods."""

    def streaming(method: str, handler: Handler) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(_: object, context: Context) -> None:
            await handler(method, context)

        return grpc.stream_stream_rpc_method_handler(handle)

    methods = {method: streaming(method, handler) for method, handler in handlers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))


class Exchange:
    """Receives and sends the messages of one call."""

    def __init__(self, context: Context, limits: Limits) -> None:
        self._context, self._limits = context, limits

    async def request(self, kind: type[M]) -> M:
        """The message of a call that has exactly one.

        Raises InvalidInput if there is none, a second one, or it is no message of that kind, and DeadlineExceeded if it does
        not arrive within `limits.idle_s`.
        """
        messages = self.requests(kind)
        idle_s = self._limits.idle_s
        async with time_limit(idle_s, f"the request did not arrive within {idle_s:g} s; the call was ended"):
            first = await anext(messages, None)
            if first is None:
                raise InvalidInput("request", "the call ended without a message, expected one")
            if await anext(messages, None) is not None:
                raise InvalidInput("request", "got a second message, expected one")
        return first

    async def requests(self, kind: type[M]) -> AsyncIterator[M]:
        """The messages of a call that may have many. Raises InvalidInput for one that is no message of that kind."""
        while (data := await self._context.read()) is not EOF:
            yield parse(kind, data)

    async def send(self, answer: Message) -> None:
        """Send one message. Returns when it has left."""
        await self._context.write(answer.SerializeToString())


def parse(kind: type[M], data: bytes) -> M:
    """The message in `data`. Raises InvalidInput."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidInput(
            "request",
            f"got {len(data)} bytes that are no {kind.DESCRIPTOR.name}; is the client's proto another?",
        ) from None
