"""The gRPC front on server/service.py: statuses, deadlines, logs, health, reflection and draining."""

# ruff: noqa: N802 - the proto names the methods

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import BackendUnavailable, DeadlineExceeded, NotReady, Overloaded
from server.calls import Call
from server.limits import Limits
from server.logs import log
from server.service import Service
from server.statuses import REQUEST_ID, to_status

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ImageGenerator"].full_name
RETRY_AFTER_S = 1.0
REQUEST_ID_FORM = re.compile(r"[\w.:-]{1,64}", re.ASCII)
# A peer that no longer answers pings is gone, and its work is dropped, whether or not its connection was closed.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, SHORTEST_PING_MS = 30_000, 10_000, 10_000

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


class Front(pb_grpc.ImageGeneratorServicer):
    """Every call of the proto: hands it to the service, turns errors into statuses, writes one log line."""

    def __init__(self, limits: Limits) -> None:
        self.service: Service | None = None  # None until every model is warm
        self._limits = limits
        # gRPC's own limit would count calls whose reader stands still until their connection closes.
        self._open = 0

    async def Upscale(self, request: pb.UpscaleRequest, context: Context) -> pb.UpscaleResponse:
        return await self._unary("Upscale", Service.upscale, request, context)

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        return await self._unary("Generate", Service.generate, request, context)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return await self._unary("ListModels", Service.list_models, request, context)

    async def UpscaleStream(self, requests: AsyncIterator[pb.UpscaleStreamRequest], context: Context) -> None:
        async with (
            self._call("UpscaleStream", context) as (service, call),
            aclosing(service.upscale_stream(requests, call)) as responses,
        ):
            async for response in responses:
                try:
                    async with asyncio.timeout(self._limits.idle_s):
                        await context.write(response)
                except TimeoutError as error:
                    raise DeadlineExceeded(f"nothing was read for {self._limits.idle_s:g} s") from error

    async def _unary(
        self,
        name: str,
        method: Callable[[Service, Request, Call], Awaitable[Response]],
        request: Request,
        context: Context,
    ) -> Response:
        async with self._call(name, context) as (service, call):
            return await method(service, request, call)

    @asynccontextmanager
    async def _call(self, name: str, context: Context) -> AsyncIterator[tuple[Service, Call]]:
        """Around one call: its id, its deadline, its status, its log line."""
        request_id = _request_id(context)
        left_s = context.time_remaining()
        started_s = time.monotonic()
        call = Call(deadline_s=None if left_s is None else time.monotonic() + left_s)
        code, failure = "OK", None
        try:
            self._open += 1
            if self.service is None:
                raise NotReady("the server is warming up; try again shortly")
            if self._open > self._limits.max_calls:
                raise Overloaded(
                    f"{self._limits.max_calls} calls are open already (--max-calls); try again later",
                    retry_after_s=RETRY_AFTER_S,
                )
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            yield self.service, call
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            failure = error
        finally:
            self._open -= 1
            ms = round((time.monotonic() - started_s) * 1e3, 1)
            facts = {"request_id": request_id, "method": name, "ms": ms, **call.facts}
            if failure is None:
                log.info("call", code=code, **facts)
        if failure is not None:
            await self._refuse(context, failure, facts)

    async def _refuse(self, context: Context, error: Exception, facts: dict[str, object]) -> None:
        """Log a failed call and end it with its status. Raises, always."""
        status, message, metadata = to_status(error, str(facts["request_id"]))
        if status is grpc.StatusCode.INTERNAL:
            log.error("call", code=status.name, message=str(error), exc_info=error, **facts)
        else:
            log.info("call", code=status.name, message=message, **facts)
        _let_go(error)
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await context.abort(status, message, metadata)
        except TimeoutError:
            # A caller that reads nothing does not read its status either. Leaving the call unanswered resets it.
            raise asyncio.CancelledError from None


class Server:
    """The process's one gRPC server. `start`, then `ready` once the models are warm, then `drain`."""

    def __init__(self, limits: Limits) -> None:
        self._front = Front(limits)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", limits.max_message_bytes),
                ("grpc.max_concurrent_streams", 2 * limits.max_calls),  # of one connection
                # Two servers that share a port would each answer half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", SHORTEST_PING_MS),
            ),
        )
        pb_grpc.add_ImageGeneratorServicer_to_server(self._front, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            SERVICE_NAME,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen, not yet ready; the port taken, where 0 was asked for. Raises BackendUnavailable."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            taken = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BackendUnavailable(
                f"cannot listen on {address}: is another server there? ({error})"
            ) from error
        await self._server.start()
        return taken

    async def ready(self, service: Service) -> None:
        self._front.service = service
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish within `grace_s` seconds, cancel what is left."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)


def _let_go(error: BaseException | None) -> None:
    """Free what the frames hold that an error went through, open files for one: else they wait for the garbage collector."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _request_id(context: Context) -> str:
    """The caller's own, where it is a plain word, so that logs of both sides can be joined; else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and REQUEST_ID_FORM.fullmatch(value):
            return value
    return secrets.token_hex(8)
