"""grpc.health.v1: the server as a whole, its parts, and watches, which are limited and end when the server stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from runtime.errors import Overloaded
from server.grpc_front.front import SERVICE_NAME
from server.health import Health
from server.limits import Limits
from server.statuses import from_rpc_error
from tests.server.conftest import FakeUpscaler, Serve, Served, refusal

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def stub(served: Served) -> Any:
    return health_pb2_grpc.HealthStub(served.channel)


def status(served: Served, name: str) -> int:
    return int(stub(served).Check(health_pb2.HealthCheckRequest(service=name)).status)


def watch(served: Served, name: str = "") -> Any:
    return stub(served).Watch(health_pb2.HealthCheckRequest(service=name))


def test_the_server_is_healthy_while_it_can_serve_something() -> None:
    health = Health()
    assert health.healthy() is False
    health.ready()
    assert health.healthy() is True
    health.report("disk", False, "it is full")
    health.report("model/a", False, "its engine fails")
    health.report("model/b", True)
    assert (health.healthy(), health.healthy("disk"), health.healthy("model/a")) == (True, False, False)
    health.report("model/b", False)
    assert health.healthy() is False
    health.forget("model/a")
    health.report("model/b", True)
    assert health.healthy() is True
    assert health.healthy("model/a") is None
    health.drain()
    health.ready()
    assert health.healthy() is False


def test_a_change_of_a_part_is_logged_once() -> None:
    with capture_logs() as lines:
        health = Health()
        for healthy in (True, False, False, True):
            health.report("disk", healthy, "no space left")
    assert [(line["part"], line["healthy"], line["log_level"]) for line in lines] == [
        ("disk", False, "warning"),
        ("disk", True, "info"),
    ]


def test_parts_have_names_of_their_own(serve: Serve) -> None:
    served = serve(FakeUpscaler())
    served.service.health.report("disk", False, "it is full")
    served.service.health.report("model/upscaler", True)
    assert status(served, "") == status(served, SERVICE_NAME) == SERVING
    assert status(served, f"{SERVICE_NAME}/disk") == NOT_SERVING
    assert status(served, f"{SERVICE_NAME}/model/upscaler") == SERVING
    listed = stub(served).List(health_pb2.HealthListRequest()).statuses
    assert listed[f"{SERVICE_NAME}/disk"].status == NOT_SERVING
    assert {"", SERVICE_NAME} <= set(listed)
    for name in ("disk", "nobody", f"{SERVICE_NAME}/nobody"):
        error = refusal(lambda name=name: status(served, name))  # type: ignore[misc]
        assert error.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_hears_of_every_change_whichever_thread_reports_it(serve: Serve) -> None:
    served = serve(FakeUpscaler(), ready=False)
    whole, part = watch(served), watch(served, f"{SERVICE_NAME}/disk")
    assert (next(whole).status, next(part).status) == (NOT_SERVING, UNKNOWN)
    served.service.health.ready()
    assert next(whole).status == SERVING
    threading.Thread(target=served.service.health.report, args=("disk", False, "it is full")).start()
    assert next(part).status == NOT_SERVING
    whole.cancel()
    part.cancel()


@pytest.fixture
def two_watches(serve: Serve) -> Iterator[tuple[Served, list[Any]]]:
    """Room for four watches, two of them from here, which are open."""
    served = serve(FakeUpscaler(), limits=Limits(max_watches=4))
    watches = [watch(served) for _ in range(2)]
    for each in watches:
        assert next(each).status == SERVING
    yield served, watches
    for each in watches:
        each.cancel()


def test_watches_are_limited_and_check_always_works(two_watches: tuple[Served, list[Any]]) -> None:
    served, watches = two_watches
    error = refusal(lambda: next(watch(served)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--max-watches" in error.details()
    known = from_rpc_error(error)
    assert isinstance(known, Overloaded)
    assert known.retry_after_s > 0
    assert status(served, "") == SERVING
    watches[0].cancel()

    def opened() -> bool:
        another = watch(served)
        try:
            return bool(next(another).status == SERVING)
        except grpc.RpcError:
            return False
        finally:
            another.cancel()

    end_s = time.monotonic() + 10
    while not opened():
        assert time.monotonic() < end_s, "a watch that was cancelled still counts"


def test_watches_do_not_hold_up_the_end_of_the_server(serve: Serve) -> None:
    served = serve(FakeUpscaler())
    open_watch = watch(served)
    assert next(open_watch).status == SERVING
    began_s = time.monotonic()
    served.run(served.server.drain(25))
    assert time.monotonic() - began_s < 15
    error = refusal(lambda: list(open_watch))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
