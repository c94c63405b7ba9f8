"""The gRPC front: makes server/service.py callable over gRPC, with health checks, reflection and draining.

`python -m server` makes the Server and calls `start`, `ready` and `drain`. For each call, the front converts the message
to a dataclass, calls the core, and converts the answer to a message or the error to a status. Limits, deadlines, request
ids and logs belong to the core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection as grpc_reflection

from protos import ganforge_pb2 as pb
from runtime.errors import BackendUnavailable
from server import messages
from server.calls import Call
from server.exchange import Context, Exchange, register
from server.limits import Limits
from server.messages import TRANSLATE, UPSCALE, ImageMessages
from server.requests import ImageAnswer, PieceOut, SamplesAnswer
from server.security.access import Access, Guard
from server.security.certificates import Certificates
from server.service import Service
from server.statuses import REQUEST_ID, to_status

# Metadata keys of W3C trace context.
TRACE_CONTEXT = ("traceparent", "tracestate")
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ImageGenerator"].full_name
HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

Answer = Callable[[Exchange, Call], Awaitable[None]]


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


class Front:
    """Answers the calls of the proto by calling the core; `handlers` says which method answers which call."""

    def __init__(self, service: Service, access: Access) -> None:
        self._service, self._access = service, access
        answers: Mapping[str, Answer] = {
            "Upscale": partial(self._image, UPSCALE),
            "UpscaleStream": partial(self._image_stream, UPSCALE),
            "Translate": partial(self._image, TRANSLATE),
            "TranslateStream": partial(self._image_stream, TRANSLATE),
            "Generate": self._generate,
            "ListModels": self._list_models,
        }
        self.handlers = {method: partial(self._handle, answer) for method, answer in answers.items()}

    async def _image(self, kind: ImageMessages, exchange: Exchange, call: Call) -> None:
        async def send(answer: ImageAnswer) -> None:
            await exchange.send(messages.image_response(kind, answer))

        message = await exchange.request(kind.request)
        await self._service.image(kind.task, messages.image_request(message), message.image, send, call)

    async def _image_stream(self, kind: ImageMessages, exchange: Exchange, call: Call) -> None:
        async def send(piece: PieceOut) -> None:
            await exchange.send(messages.piece_out(kind, piece))

        pieces = messages.pieces_in(exchange.requests(kind.piece_in))
        await self._service.image_stream(kind.task, pieces, send, call)

    async def _generate(self, exchange: Exchange, call: Call) -> None:
        async def send(answer: SamplesAnswer) -> None:
            await exchange.send(messages.generate_response(answer))

        request = messages.samples_request(await exchange.request(pb.GenerateRequest))
        await self._service.samples("generate", request, send, call)

    async def _list_models(self, exchange: Exchange, call: Call) -> None:
        await exchange.request(pb.ListModelsRequest)
        models = await self._service.list_models(call.caller)
        await exchange.send(pb.ListModelsResponse(models=map(messages.model_info, models)))

    async def _handle(self, answer: Answer, method: str, context: Context) -> None:
        """Run one call of the core; an error becomes the call's status."""
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
        try:
            async with self._service.open(call):
                call.caller = self._access.authenticate(context.invocation_metadata(), context.auth_context())
                await answer(Exchange(context, self._service.limits), call)
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

    def __init__(
        self,
        service: Service,
        *,
        access: Access = Access(),  # noqa: B008 - without tokens it holds nothing
        reflection: bool = True,
        keepalive: Keepalive = Keepalive(),
    ) -> None:
        """access: who may call. reflection: whether clients may list the services."""
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        guard = Guard(access, tuple(f"/{name}/" for name in (SERVICE_NAME, HEALTH_NAME)))
        self._server = grpc.aio.server(
            options=channel_options(service.limits, keepalive),
            interceptors=[guard] if access.needs_token else [],
        )
        register(self._server, SERVICE_NAME, Front(service, access).handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflection:
            names = (SERVICE_NAME, HEALTH_NAME, grpc_reflection.SERVICE_NAME)
            grpc_reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int, certificates: Certificates | None = None) -> int:
        """Start listening; health checks report NOT_SERVING. port: 0 for a free one. certificates: None for no TLS.

        Returns the port. Raises BackendUnavailable if the address cannot be used.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificates is None:
                bound_port = self._server.add_insecure_port(address)
            else:
                bound_port = self._server.add_secure_port(address, certificates.credentials())
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
