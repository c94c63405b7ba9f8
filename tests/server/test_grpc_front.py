"""The gRPC front from a client's view: keepalive, limits of a connection, ports, request ids and deadlines."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import BackendUnavailable
from server.core.service import Service
from server.grpc_front.front import Keepalive, Server, channel_options
from server.limits import Limits
from tests.server.conftest import OPTIONS, FakeUpscaler, Serve, Served, held, png, refusal, until


def test_every_channel_argument_is_a_key_that_the_installed_grpc_knows() -> None:
    """gRPC ignores unknown keys in silence."""
    binary = Path(cygrpc.__file__).read_bytes()
    keys = [key for key, _ in channel_options(Limits(), Keepalive())]
    assert len(keys) > 5
    assert not [key for key in keys if key.encode() + b"\0" not in binary]


def test_a_ping_every_ten_seconds_is_allowed_and_a_dead_peer_noticed_within_a_minute() -> None:
    keepalive = Keepalive()
    assert keepalive.shortest_ping_ms < 10_000
    assert keepalive.answer_within_ms >= 5_000  # a busy peer is not a dead one
    assert keepalive.ping_after_ms + keepalive.answer_within_ms <= 60_000


@pytest.mark.slow
def test_a_client_may_ping_every_ten_seconds_through_a_call_of_a_minute(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine)
    options = (
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),  # as many as it likes
        ("grpc.use_local_subchannel_pool", 1),
        *OPTIONS,
    )
    with grpc.insecure_channel(served.address, options) as channel, held(engine):
        call = pb_grpc.ImageGeneratorStub(channel).Upscale.future(pb.UpscaleRequest(image=png(20, 10)))
        with pytest.raises(grpc.FutureTimeoutError):  # still under way, and not ended with too_many_pings
            call.result(timeout=60)
        engine.gate.set()
        assert call.result(timeout=30).width == 80


# Of HTTP/2: types of frames, a flag, and a setting.
SETTINGS, PING, GOAWAY, ACK, MAX_CONCURRENT_STREAMS = 4, 6, 7, 1, 3


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame of the connection itself, stream 0."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + bytes(4) + payload


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each HTTP/2 frame that a server sends, to a client that acknowledges nothing but settings.

    Frames of our own: gRPC's client sends at most one ping a second, whatever it is asked for.
    """

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = connection.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS) + frame(SETTINGS, flags=ACK))
    while True:
        try:
            header = exactly(9)
            yield header[3], exactly(int.from_bytes(header[:3]))
        except EOFError:
            return


def connected(served: Served) -> socket.socket:
    host, port = served.address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_a_client_that_pings_no_more_often_than_allowed_keeps_its_connection(serve: Serve) -> None:
    """gRPC's default of 5 minutes ends the connection at the fourth ping."""
    served = serve(FakeUpscaler(), keepalive=Keepalive(shortest_ping_ms=1))
    acknowledged = 0
    with connected(served) as connection:
        for kind, payload in frames(connection):
            assert kind != GOAWAY, payload
            if kind == SETTINGS and not payload:  # the server has acknowledged ours, and hears us
                connection.sendall(frame(PING, b"00000000"))
            if kind == PING and payload == b"00000000":
                acknowledged += 1
                if acknowledged == 8:
                    return
                next_s = time.perf_counter() + 0.002
                while time.perf_counter() < next_s:
                    pass
                connection.sendall(frame(PING, b"00000000"))
    pytest.fail("the server closed the connection")


def test_a_peer_that_answers_no_ping_is_disconnected(serve: Serve) -> None:
    served = serve(FakeUpscaler(), keepalive=Keepalive(ping_after_ms=50, answer_within_ms=50))
    with connected(served) as connection:
        # Until the server ends it; else the socket times out.
        kinds = [kind for kind, _ in frames(connection)]
    assert PING in kinds


def test_a_peer_that_does_not_take_note_of_the_settings_is_disconnected(serve: Serve) -> None:
    """Until then, gRPC allows 16 MiB of headers for each call, which a thousandth of it on the wire can stand for."""
    served = serve(FakeUpscaler(), keepalive=Keepalive(settings_within_ms=100))
    with connected(served) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
        while connection.recv(4096):  # until the server ends it; else the socket times out
            pass
    assert Keepalive().settings_within_ms <= 10_000


def test_a_connection_has_room_for_twice_the_calls_of_the_server(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(max_calls=7))
    with connected(served) as connection:
        payload = next(payload for kind, payload in frames(connection) if kind == SETTINGS)
    settings = dict(struct.iter_unpack(">HI", payload))
    assert settings[MAX_CONCURRENT_STREAMS] == 14


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_no_message_is_decompressed(served: Served, algorithm: grpc.Compression) -> None:
    """A message of 60 kB would become 62 MiB. Whoever sends one is told, in the code that gRPC has for it."""
    bomb = pb.UpscaleRequest(image=bytes(32 * 2**20))
    error = refusal(lambda: served.stub.Upscale(bomb, compression=algorithm))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "is disabled" in error.details()
    plain = served.stub.Upscale(
        pb.UpscaleRequest(image=png(4, 4)), compression=grpc.Compression.NoCompression
    )
    assert plain.width == 16


def test_two_servers_cannot_share_a_port(serve: Serve) -> None:
    served = serve(FakeUpscaler())

    async def start_another() -> None:
        await Server(Service(Limits())).start("127.0.0.1", int(served.address.split(":")[1]))

    with pytest.raises(BackendUnavailable, match="cannot listen"):
        served.run(start_another())


def trailing_id(call: grpc.Call) -> str:
    (request_id,) = [str(value) for key, value in call.trailing_metadata() if key == "x-request-id"]
    return request_id


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("given", ["abc-1", "a.b:c_9", "x" * 64])
def test_the_callers_request_id_comes_back_and_is_logged(served: Served, given: str, streamed: bool) -> None:
    metadata = (("x-request-id", given),)
    image = png(4, 4)
    if streamed:
        call = served.stub.UpscaleStream(iter(pieces(image)), metadata=metadata)
        list(call)
    else:
        _, call = served.stub.Upscale.with_call(pb.UpscaleRequest(image=image), metadata=metadata)
    assert trailing_id(call) == given
    until(lambda: any(line.get("request_id") == given and line["code"] == "OK" for line in served.lines))


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, "semi;colon", "quote\"'", "a/b"])
def test_a_request_id_of_another_form_is_replaced(served: Served, given: str) -> None:
    call = served.stub.ListModels.with_call(pb.ListModelsRequest(), metadata=(("x-request-id", given),))[1]
    assert re.fullmatch(r"[0-9a-f]{16}", trailing_id(call))


def test_a_caller_without_a_request_id_gets_one(served: Served) -> None:
    ids = {trailing_id(served.stub.ListModels.with_call(pb.ListModelsRequest())[1]) for _ in range(3)}
    assert len(ids) == 3


def pieces(image: bytes) -> list[pb.UpscaleStreamRequest]:
    return [
        pb.UpscaleStreamRequest(header=pb.UpscaleRequest()),
        pb.UpscaleStreamRequest(data=image),
    ]


class Slow(FakeUpscaler):
    """Takes its time for a batch, as a device does."""

    def _run(self, inputs: dict[str, object]) -> dict[str, object]:  # type: ignore[override]
        end_s = time.perf_counter() + 0.02
        while time.perf_counter() < end_s:
            pass
        return super()._run(inputs)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_server_knows_the_callers_deadline(serve: Serve, streamed: bool) -> None:
    """A request that cannot be done in time is refused at once, long before the client's own deadline."""
    served = serve(Slow())
    # Now the server knows its speed: 20 ms for 1024 px.
    assert served.client.upscale(png(32, 32)).width == 128
    large = png(2000, 1500)  # 100 s at that speed
    if streamed:
        error = refusal(lambda: list(served.stub.UpscaleStream(iter(pieces(large)), timeout=20)))
    else:
        error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=large), timeout=20))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "even if nothing else ran, the deadline is in" in error.details()
