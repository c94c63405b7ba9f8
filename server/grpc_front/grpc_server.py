"""grpc.aio's server, mended where one client could harm all others. Only this file relies on private parts of gRPC.

- The accepting loop decodes the path of a call that is for no registered method, outside of any `try`: a path that is not
  UTF-8 ended the loop, so that one packet from anybody stopped the service. So all methods are registered here (GrpcServer),
  and calls for others are answered without reading their path (AioServer).
- grpc.aio keeps a call, with the answer that it could not send, until the client has gone. `reset_call` ends such a call now.

Seen in grpcio 1.85.1; pyproject.toml bounds its version. tests/server/test_grpc_server.py fails where a private part that is
used here has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server as grpc_aio

# The path that gRPC is given for every call of an unknown method: all get the same answer.
UNKNOWN = "/unknown"
# The coroutine in which grpc.aio runs a handler, on a task of its own, which the task that owns the call starts.
HANDLER_TASK = "_handle_exceptions"


class AioServer(cygrpc.AioServer):
    """Accepts calls. A call for a method that is not registered gets UNIMPLEMENTED, whatever its path is.

    refusers: the server's interceptors, which may refuse calls for unknown methods otherwise.
    """

    refusers: tuple[grpc.aio.ServerInterceptor, ...] = ()

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[Any]:
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.get_running_loop().create_task(self._refuse_unknown())

    async def _refuse_unknown(self) -> None:
        """Answer calls for unknown methods until the server stops, which raises the error that grpc.aio expects."""
        loop, no_methods = asyncio.get_running_loop(), NoMethods()
        answering: set[asyncio.Task[Any]] = set()
        while True:
            call = await self._request_call()
            refusal = cygrpc._handle_rpc(UNKNOWN, no_methods, self.refusers, call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(refusal, call, loop, UNKNOWN))
            answering.add(task)  # the loop itself keeps only a weak reference
            task.add_done_callback(answering.discard)


class NoMethods:
    """A handler of a service that has no methods."""

    def resolve_handler(self, details: object) -> None:
        """gRPC asks for the handler of a call; there is none."""


class GrpcServer(grpc_aio.Server):
    """A grpc.aio.Server to which services are added with `add_methods`."""

    def __init__(
        self, options: Sequence[tuple[str, int]], interceptors: Sequence[grpc.aio.ServerInterceptor]
    ) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = AioServer(self._loop, None, (), tuple(interceptors), tuple(options), None)
        self._server.refusers = tuple(interceptors)

    def add_methods(self, service: str, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Add a service, before the server starts. service: its full name. methods: by their names."""
        self.add_registered_method_handlers(service, dict(methods))

    async def crashed(self) -> BaseException:
        """Wait until accepting calls ends although nobody stopped the server, and return why."""
        try:
            # grpc.aio waits for a future of its own, which must not be cancelled with this.
            await asyncio.shield(asyncio.ensure_future(self.wait_for_termination()))
        except Exception as error:
            return error
        return await asyncio.get_running_loop().create_future()  # it was stopped: never


# The task that owns each running call, by the task of the call's handler.
_owners: WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any]] = WeakKeyDictionary()


def remember_owners(loop: asyncio.AbstractEventLoop) -> None:
    """Make `reset_call` work for the calls of servers on this loop. Call it before the server starts.

    It notes, as each handler's task is made, which task makes it: gRPC tells nobody, and keeps no reference from one to the
    other.
    """

    def create(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        owner = asyncio.current_task() if getattr(coroutine, "__name__", "") == HANDLER_TASK else None
        if owner is not None:
            _owners[task] = owner
        return task

    loop.set_task_factory(create)


def reset_call() -> bool:
    """Reset the call of the running handler, without a status, and free what gRPC still holds of its answer.

    The handler must end next: gRPC resets a call that nobody waits for or refers to any more. Returns whether the task that
    owns the call is known, as it is in every handler.
    """
    task = asyncio.current_task()
    owner = _owners.get(task) if task else None
    return owner is not None and owner.cancel()
