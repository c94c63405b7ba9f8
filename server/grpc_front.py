"""The gRPC front: makes server/service.py callable over gRPC, with health checks, reflection and draining.

`python -m server` makes the Server and calls `start`, `ready` and `drain`. For each call, the front converts the message
to a dataclass, calls the core, and converts the answer to a message or the error to a status. Limits, deadlines, request
ids and logs belong to the core.
"""

# ruff: noqa: N802 - the proto names the methods

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import BackendUnavailable
from server import messages
from server.calls import Call
from server.limits import Limits
from server.messages import TRANSLATE, UPSCALE, ImageMessages
from server.requests import PieceOut
from server.service import Service
from server.statuses import REQUEST_ID, to_status

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ImageGenerator"].full_name

Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Keepalive:
    """Keepalive settings of the server's connections, in milliseconds.

    ping_after_ms: the server pings a connection after this long without traffic.
    answer_within_ms: without an answer to a ping within this time, the connection is closed and its calls are cancelled.
    shortest_ping_ms: the shortest interval at which clients may ping during a call. gRPC's default of 5 minutes would
        end the calls of clients that ping every 10 s, which is common behind proxies.
    """

    ping_after_ms: int = 30_000
    answer_within_ms: int = 10_000
    shortest_ping_ms: int = 5_000


def channel_options(limits: Limits, keepalive: Keepalive) -> tuple[tuple[str, int], ...]:
    """The server's channel arguments. gRPC ignores unknown keys silently, so a test checks that each key exists."""
    return (
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.max_concurrent_streams", 2 * limits.max_calls),  # per connection
        # Do not let a second server share the port: each would get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", keepalive.ping_after_ms),
        # The installed gRPC has a second timer for the answer to a ping, with a default of one minute.
        ("grpc.keepalive_timeout_ms", keepalive.answer_within_ms),
        ("grpc.http2.ping_timeout_ms", keepalive.answer_within_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive.shortest_ping_ms),
    )


class Front(pb_grpc.ImageGeneratorServicer):
    """The servicer: implements every call of the proto by calling the core."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Upscale(self, request: pb.UpscaleRequest, context: Context) -> pb.UpscaleResponse:
        return await self._image("Upscale", UPSCALE, request, context)

    async def Translate(self, request: pb.TranslateRequest, context: Context) -> pb.TranslateResponse:
        return await self._image("Translate", TRANSLATE, request, context)

    async def UpscaleStream(self, requests: AsyncIterator[pb.UpscaleStreamRequest], context: Context) -> None:
        await self._image_stream("UpscaleStream", UPSCALE, requests, context)

    async def TranslateStream(
        self, requests: AsyncIterator[pb.TranslateStreamRequest], context: Context
    ) -> None:
        await self._image_stream("TranslateStream", TRANSLATE, requests, context)

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        async def answer(call: Call) -> pb.GenerateResponse:
            samples_request = messages.samples_request(request)
            return messages.generate_response(await self._service.samples("generate", samples_request, call))

        return await self._answer("Generate", answer, context)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        async def answer(call: Call) -> pb.ListModelsResponse:
            return pb.ListModelsResponse(
                models=map(messages.model_info, await self._service.list_models(call))
            )

        return await self._answer("ListModels", answer, context)

    async def _image(self, method: str, kind: ImageMessages, request: Any, context: Context) -> Any:
        async def answer(call: Call) -> Any:
            image_request = messages.image_request(request)
            return messages.image_response(
                kind, await self._service.image(kind.task, image_request, request.image, call)
            )

        return await self._answer(method, answer, context)

    async def _image_stream(
        self, method: str, kind: ImageMessages, requests: AsyncIterator[Any], context: Context
    ) -> None:
        async def send(piece: PieceOut) -> None:
            await context.write(messages.piece_out(kind, piece))

        async def answer(call: Call) -> None:
            await self._service.image_stream(kind.task, messages.pieces_in(requests), send, call)

        await self._answer(method, answer, context)

    async def _answer(
        self, method: str, answer: Callable[[Call], Awaitable[Response]], context: Context
    ) -> Response:
        """Run one call of the core; an error becomes the call's status."""
        request_id = dict(context.invocation_metadata() or ()).get(REQUEST_ID)
        call = Call.begin(
            method,
            request_id=request_id if isinstance(request_id, str) else None,
            time_left_s=context.time_remaining(),
        )
        context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        try:
            return await answer(call)
        except Exception as error:
            await self._abort(context, error, call)
            raise

    async def _abort(self, context: Context, error: Exception, call: Call) -> None:
        """End a failed call with its status. Always raises."""
        try:
            async with asyncio.timeout(self._service.limits.idle_s):
                await context.abort(*to_status(error, call.request_id))
        except TimeoutError:
            # A caller that reads nothing does not read the status either. Without one, gRPC resets the call.
            raise asyncio.CancelledError from None


class Server:
    """The gRPC server of one process. Call `start`, then `ready` when the models are warm, then `drain` at the end."""

    def __init__(self, service: Service, *, keepalive: Keepalive = Keepalive()) -> None:
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        self._server = grpc.aio.server(options=channel_options(service.limits, keepalive))
        pb_grpc.add_ImageGeneratorServicer_to_server(Front(service), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            SERVICE_NAME,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Start listening; health checks report NOT_SERVING. port: 0 for a free one.

        Returns the port. Raises BackendUnavailable if the address cannot be used.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound_port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BackendUnavailable(
                f"cannot listen on {address}: is it in use by another server? ({error})"
            ) from error
        await self._server.start()
        return bound_port

    async def ready(self) -> None:
        """Report SERVING in health checks."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, wait up to `grace_s` seconds for the running ones and cancel the rest."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)
