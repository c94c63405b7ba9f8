"""The gRPC front: makes server/core/service.py callable over gRPC, with health checks, reflection and draining.

`python -m server` makes the Server and calls `start`, `ready` and `drain`. For each call, the front converts the message
to a dataclass, calls the core, and converts the answer to a message or the error to a status. Limits, deadlines, request
ids and logs belong to the core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection as grpc_reflection
from grpc_reflection.v1alpha import reflection_pb2

from protos import ganforge_pb2 as pb
from runtime.errors import BackendUnavailable
from server.core.calls import Call
from server.core.requests import ImageAnswer, PieceOut, SamplesAnswer
from server.core.service import Service
from server.grpc_front import messages, wire
from server.grpc_front.admin_front import NAME as ADMIN_NAME
from server.grpc_front.admin_front import AdminFront
from server.grpc_front.exchange import STATUS_S, Answer, Exchange, Exchanges
from server.grpc_front.grpc_server import GrpcServer, remember_owners
from server.grpc_front.health_front import NAME as HEALTH_NAME
from server.grpc_front.health_front import HealthFront
from server.grpc_front.idle_connections import make_room
from server.grpc_front.messages import TRANSLATE, UPSCALE, ImageMessages
from server.limits import Limits
from server.machine.open_files import most_connections
from server.security.access import Access, Guard
from server.security.certificates import Certificates

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ImageGenerator"].full_name

# Answers of at most so many bytes are made into messages on the event loop.
QUICK_BYTES = 2**20
# Of the headers of a call; above it, gRPC answers RESOURCE_EXHAUSTED.
METADATA_BYTES = 16 * 1024
# Calls that are on their way when the server begins to stop get this long to arrive.
ARRIVING_S = 0.2


@dataclass(frozen=True)
class Keepalive:
    """Keepalive settings of the server's connections, in milliseconds.

    ping_after_ms: the server pings a connection after this long without traffic.
    answer_within_ms: without an answer to a ping within this time, the connection is closed and its calls are cancelled.
    idle_ms: a connection without calls is closed after this long; gRPC's clients connect again with their next call.
    shortest_ping_ms: the shortest interval at which clients may ping during a call. gRPC's default of 5 minutes would
        end the calls of clients that ping every 10 s, which is common behind proxies.
    handshake_within_ms: a connection that has not begun to speak HTTP/2 after this time, over TLS if that is used, is closed.
    settings_within_ms: so is one that has not acknowledged the server's settings. gRPC keeps to the limit on headers only
        from then on; before, 16 kB on the wire may be 16 MiB of headers.
    """

    ping_after_ms: int = 30_000
    answer_within_ms: int = 10_000
    shortest_ping_ms: int = 5_000
    handshake_within_ms: int = 20_000
    settings_within_ms: int = 5_000
    idle_ms: int = 300_000


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
        ("grpc.server_handshake_timeout_ms", keepalive.handshake_within_ms),
        ("grpc.http2.settings_timeout", keepalive.settings_within_ms),
        ("grpc.max_connection_idle_ms", keepalive.idle_ms),
        ("grpc.max_allowed_incoming_connections", most_connections()),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        # Take no compressed messages: 60 kB on the wire were 62 MiB for the event loop, and no image gets smaller.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    )


class Front:
    """Answers the calls of the proto by calling the core. answers: which method answers which call."""

    def __init__(self, service: Service, exchanges: Exchanges, access: Access) -> None:
        self._service, self._exchanges, self._access = service, exchanges, access
        answers: Mapping[str, Answer] = {
            "Upscale": partial(self._image, UPSCALE),
            "UpscaleStream": partial(self._image_stream, UPSCALE),
            "Translate": partial(self._image, TRANSLATE),
            "TranslateStream": partial(self._image_stream, TRANSLATE),
            "Generate": self._generate,
            "ListModels": self._list_models,
        }
        self.answers = {method: partial(self.opened, answer) for method, answer in answers.items()}

    async def opened(self, answer: Answer, exchange: Exchange, call: Call) -> None:
        """Answer a call inside the limits of the core."""
        async with self._service.open(call), self._exchanges.running():
            context = exchange.context
            call.caller = self._access.authenticate(context.invocation_metadata(), context.auth_context())
            await answer(exchange, call)

    async def _image(self, kind: ImageMessages, exchange: Exchange, call: Call) -> None:
        async def send(answer: ImageAnswer) -> None:
            message = messages.image_response(kind, replace(answer, image=b""))
            data = await _joined(message, messages.ANSWER_IMAGE, [answer.image])
            del answer
            await exchange.send(data)

        message, image = await exchange.request_with(kind.request, messages.IMAGE)
        await self._service.image(kind.task, messages.image_request(message), image, send, call)

    async def _image_stream(self, kind: ImageMessages, exchange: Exchange, call: Call) -> None:
        async def send(piece: PieceOut) -> None:
            await exchange.send(messages.piece_out(kind, piece).SerializeToString())

        pieces = messages.pieces_in(exchange.requests_with(kind.piece_in, messages.DATA))
        await self._service.image_stream(kind.task, pieces, send, call)

    async def _generate(self, exchange: Exchange, call: Call) -> None:
        async def send(answer: SamplesAnswer) -> None:
            message = messages.generate_response(replace(answer, images=()))
            data = await _joined(message, messages.ANSWER_IMAGES, answer.images)
            del answer
            await exchange.send(data)

        limits = self._service.limits
        entries = self._service.models.catalog.entries.values()
        latent_size = max((entry.manifest.latent_size for entry in entries), default=0)
        most_bytes = messages.largest_samples_request(limits.max_count, latent_size)
        what = f"for {limits.max_count} samples (--max-count) of the models here"
        message = await exchange.request(pb.GenerateRequest, most_bytes, what)
        await self._service.samples("generate", messages.samples_request(message), send, call)

    async def _list_models(self, exchange: Exchange, call: Call) -> None:
        await exchange.request(pb.ListModelsRequest)
        models = await self._service.list_models(call.caller)
        answer = pb.ListModelsResponse(models=map(messages.model_info, models))
        await exchange.send(answer.SerializeToString())


async def _joined(message: Message, number: int, files: Sequence[bytes]) -> bytes:
    """The bytes of a message with these files in its field `number`; large ones are copied on a thread."""
    data = message.SerializeToString()
    if sum(map(len, files)) <= QUICK_BYTES:
        return wire.join(data, number, files)
    return await asyncio.to_thread(wire.join, data, number, files)


class Reflection:
    """Lists the services and describes their messages to clients that ask. services: full names."""

    def __init__(self, services: Sequence[str], service: Service, exchanges: Exchanges) -> None:
        self._servicer = grpc_reflection.aio.ReflectionServicer(services)  # type: ignore[attr-defined]  # the stubs lack it
        self._service, self._exchanges = service, exchanges
        self.answers: Mapping[str, Answer] = {"ServerReflectionInfo": self._info}

    async def _info(self, exchange: Exchange, call: Call) -> None:
        async with self._service.open(call), self._exchanges.running(finishes=False):
            requests = exchange.requests(reflection_pb2.ServerReflectionRequest)
            async for answer in self._servicer.ServerReflectionInfo(requests, exchange.context):
                await exchange.send(answer.SerializeToString())


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
        self._health = service.health
        self._transit = service.transit
        self._making_room: asyncio.Task[None] | None = None
        self._exchanges = Exchanges(service.transit)
        guard = Guard(access, tuple(f"/{name}/" for name in (SERVICE_NAME, ADMIN_NAME, HEALTH_NAME)))
        self._server = GrpcServer(
            channel_options(service.limits, keepalive), [guard] if access.needs_token else []
        )
        front = Front(service, self._exchanges, access)
        answers: dict[str, Mapping[str, Answer]] = {
            SERVICE_NAME: front.answers,
            ADMIN_NAME: AdminFront(service.administration, front.opened).answers,
            HEALTH_NAME: HealthFront(service.health, SERVICE_NAME, service.limits).answers,
        }
        if reflection:
            names = (*answers, grpc_reflection.SERVICE_NAME)
            answers[names[-1]] = Reflection(names, service, self._exchanges).answers
        for name, methods in answers.items():
            self._exchanges.register(self._server, name, methods)

    async def start(self, host: str, port: int, certificates: Certificates | None = None) -> int:
        """Start listening; health checks report NOT_SERVING. port: 0 for a free one. certificates: None for no TLS.

        Returns the port. Raises BackendUnavailable if the address cannot be used.
        """
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
        remember_owners(asyncio.get_running_loop())
        await self._server.start()
        self._making_room = asyncio.create_task(
            make_room(bound_port, most_connections(), self._exchanges.busy)
        )
        return bound_port

    async def ready(self) -> None:
        """Report SERVING in health checks."""
        self._health.ready()

    async def crashed(self) -> BaseException:
        """Wait until the server accepts no calls any more although nobody stopped it, and return why."""
        return await self._server.crashed()

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, wait up to `grace_s` seconds for the running ones and end the rest."""
        if self._making_room is not None:
            self._making_room.cancel()
        self._health.drain()
        self._exchanges.drain()
        # When gRPC stops, it cancels the calls that have come and not yet been handed over. So new ones are held, until
        # callers wait for answers and none come; clients hear that the server leaves before they hear that these are refused.
        await asyncio.sleep(min(ARRIVING_S, grace_s))
        stopping = asyncio.create_task(self._server.stop(grace_s + STATUS_S))
        await asyncio.wait([stopping], timeout=min(ARRIVING_S, grace_s))
        self._exchanges.refuse_late()
        await asyncio.wait([stopping], timeout=grace_s)
        await self._exchanges.end_all()
        await stopping
        self._transit.close()
