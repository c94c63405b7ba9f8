"""Calls for methods that do not exist, and what grpc.aio keeps private that server/grpc_front/grpc_server.py overrides."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from grpc._cython import cygrpc

from server.grpc_front.grpc_server import (
    HANDLER_TASK,
    AioServer,
    GrpcServer,
    remember_owners,
    reset_call,
)
from tests.fuzz.frames import END_HEADERS, HEADERS, PREFACE, SETTINGS, call_headers, frame
from tests.server.conftest import Served, png, refusal

# Not UTF-8, not a path, very long.
PATHS = (b"/ga\xd1forge.v1.ImageGenerator/Upscale", b"/\xff\xfe", b"*", b"/" + b"x" * 100)


def send_call(address: str, path: bytes) -> None:
    """Begin a call for that path, and wait for the server to say something about its stream."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        begin = frame(HEADERS, END_HEADERS, 1, call_headers(path))
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + begin)
        heard, file = b"", connection.makefile("rb")
        while len(heard := file.read(9)) == 9:
            file.read(int.from_bytes(heard[:3], "big"))
            if int.from_bytes(heard[5:], "big") == 1:
                return


@pytest.mark.parametrize("path", PATHS, ids=["utf-8", "two bytes", "no slash", "long"])
def test_no_path_of_a_call_ends_the_server(served: Served, path: bytes) -> None:
    send_call(served.address, path)
    assert served.client.upscale(png(8, 8)).width == 32


def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    call = served.channel.unary_unary("/ganforge.v1.ImageGenerator/Enlarge", None, None)
    assert refusal(lambda: call(b"", timeout=10)).code() == grpc.StatusCode.UNIMPLEMENTED


def test_grpc_still_has_what_is_overridden() -> None:
    for name in ("_make_request_call_future", "_request_call"):
        assert hasattr(cygrpc.AioServer, name)
    assert AioServer._make_request_call_future is not cygrpc.AioServer._make_request_call_future
    for name in ("_handle_rpc", "_schedule_rpc_coro", HANDLER_TASK):
        assert getattr(cygrpc, name).__name__ == name


async def test_the_owner_of_a_call_is_known_to_its_handler() -> None:
    """That its client is rid of the call then, and the server of its answer: tests/server/test_transit.py."""
    loop = asyncio.get_running_loop()
    owner_is_known: asyncio.Future[bool] = loop.create_future()

    async def handle(messages: object, context: object) -> None:
        owner_is_known.set_result(reset_call())
        raise asyncio.CancelledError

    assert not reset_call()  # no handler
    remember_owners(loop)
    server = GrpcServer((), ())
    server.add_methods("test.Test", {"Reset": grpc.stream_stream_rpc_method_handler(handle)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test.Test/Reset", None, None)(b"")
            assert await asyncio.wait_for(owner_is_known, 30)
            call.cancel()
    finally:
        await server.stop(None)
        loop.set_task_factory(None)


async def test_a_server_that_stops_by_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = RuntimeError("accepting failed")

    async def failing(self: AioServer) -> None:
        raise failure

    monkeypatch.setattr(AioServer, "_refuse_unknown", failing)
    server = GrpcServer((), ())
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert await asyncio.wait_for(server.crashed(), 10) is failure
