"""The server under the fuzzer: a real process with small bundles, and what must hold of it whatever it is sent."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, cast

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from protos import ganforge_pb2 as pb
from server.launch import Launched, launched
from tests.fuzz.messages import Method
from tests.server.bundles import write_generator, write_translator, write_upscaler

CALL_S, SOCKET_S = 20.0, 5.0
# Errors that a caller's bytes may lead to. INTERNAL, UNKNOWN and UNAVAILABLE would be the server's own.
ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
}
# Small answers, so that a drawn outscale costs milliseconds.
FLAGS = ("--max-output-pixels", str(2**18), "--max-message-bytes", str(2**22), "--idle-s", "5")
LINGER_NONE = struct.pack("ii", 1, 0)  # a reset instead of TIME_WAIT, which would use up the ports


def methods() -> tuple[Method, ...]:
    """Every method that the server answers: its own, health and reflection."""
    found = [
        Method(f"/{service.full_name}/{method.name}", method.input_type, method.client_streaming)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    check = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
    info = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods_by_name[
        "ServerReflectionInfo"
    ]
    found += [
        Method("/grpc.health.v1.Health/Check", check.input_type, False),
        Method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", info.input_type, True),
    ]
    return tuple(found)


class Target:
    """A running server and ways to send it bytes."""

    def __init__(self, server: Launched) -> None:
        self._server = server
        self._process = psutil.Process(server.pid)
        self._host, _, port = server.address.rpartition(":")
        self._port = int(port)
        self._channel = grpc.insecure_channel(server.address, (("grpc.max_receive_message_length", -1),))
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: Method, messages: Sequence[bytes]) -> grpc.StatusCode:
        """Make a call with these messages as they are. Raises AssertionError for a status that no input may cause."""
        code: grpc.StatusCode | None = grpc.StatusCode.OK
        details: str | None = ""
        try:
            if method.streams:
                for _ in self._channel.stream_stream(method.path, None, None)(iter(messages), timeout=CALL_S):
                    pass
            else:
                self._channel.unary_unary(method.path, None, None)(messages[0], timeout=CALL_S)
        except grpc.RpcError as error:
            call = cast(grpc.Call, error)  # it is both, but grpc's types do not say so
            code, details = call.code(), call.details()
        assert code in ALLOWED or code == grpc.StatusCode.OK, f"{method.path}: {code}, {details}"
        return code

    def write(self, data: bytes) -> None:
        """Open a connection, write the bytes, read what comes at once, and reset the connection."""
        with socket.create_connection((self._host, self._port), SOCKET_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            try:
                connection.sendall(data)
                connection.recv(2**16)
            except (ConnectionError, TimeoutError):
                pass  # the server may well hang up

    def check(self) -> None:
        """Raises AssertionError unless the server answers and has logged nothing that is its own fault."""
        answer = self._health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        errors = self._server.errors()
        assert not errors, f"the server logged {len(errors)} errors, the first: {errors[0]}"

    def rss_mib(self) -> float:
        """The server's memory."""
        return self._process.memory_info().rss / 2**20

    def open_files(self) -> int:
        """The server's open file descriptors."""
        return self._process.num_fds()


@contextmanager
def running(folder: Path) -> Iterator[Target]:
    """Context manager: a server with an upscaler, a translator and a generator. folder: for bundles and its log."""
    bundles = folder / "bundles"
    bundles.mkdir()
    for write in (write_upscaler, write_translator, write_generator):
        write(bundles)
    with launched(bundles, log=folder / "server.log", flags=FLAGS) as server, Target(server) as target:
        yield target
