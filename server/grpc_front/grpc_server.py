"""grpc.aio's server, mended: a call whose path is not UTF-8 ended it, so that one packet from anybody stopped the service.

The accepting loop of grpc.aio (seen in 1.85.1) decodes the path of a call that is for no registered method, outside of any
`try`. So all methods are registered here, and calls for others are answered without reading their path. This overrides
two private methods of grpc.aio, which tests/server/test_grpc_server.py pins; pyproject.toml bounds grpcio's version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server as grpc_aio

# Its length and content matter to nobody: the answer to an unknown method is the same for all.
UNKNOWN = "/unknown"


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
        loop, nothing = asyncio.get_running_loop(), Nothing()
        answering: set[asyncio.Task[Any]] = set()
        while True:
            call = await self._request_call()
            refusal = cygrpc._handle_rpc(UNKNOWN, nothing, self.refusers, call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(refusal, call, loop, UNKNOWN))
            answering.add(task)  # the loop itself keeps only a weak reference
            task.add_done_callback(answering.discard)


class Nothing:
    """Finds no method."""

    def resolve_handler(self, details: object) -> None:
        return None


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
