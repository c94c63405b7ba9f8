"""The HTTP port of the metrics: what it answers, whom it cuts off, and the flags that open it."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import RemoteDisconnected
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Gauge
from structlog.testing import capture_logs

from runtime.errors import BackendUnavailable
from server.client import Client
from server.monitoring import port as metrics_port
from server.monitoring.port import MetricsPort
from tests.server.bundles import write_upscaler
from tests.server.conftest import png, until
from tests.server.scraping import scrape
from tests.server.test_start_and_stop import started


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("held", "A gauge.", registry=registry).set(7)
    return registry


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[MetricsPort]:
    with MetricsPort(registry, "127.0.0.1", 0) as port:
        yield port


def test_the_metrics_are_at_one_path(port: MetricsPort) -> None:
    assert scrape(port.url).value("held") == 7
    with pytest.raises(HTTPError, match="404"):
        urlopen(port.url.replace("/metrics", "/secrets"))


def test_a_port_that_is_taken_fails_in_a_sentence(registry: CollectorRegistry, port: MetricsPort) -> None:
    with pytest.raises(BackendUnavailable, match=rf"127.0.0.1:{port.port} for metrics.*--metrics-port"):
        MetricsPort(registry, "127.0.0.1", port.port)


def test_the_port_closes(registry: CollectorRegistry) -> None:
    with MetricsPort(registry, "127.0.0.1", 0) as port:
        pass
    with pytest.raises(OSError, match="refused"):
        urlopen(port.url)


def test_connections_are_bounded_and_one_that_stands_still_is_cut_off(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever reaches the port could hold as many threads as they like, and blind Prometheus."""
    monkeypatch.setattr(metrics_port, "LONGEST_S", 1.0)
    with MetricsPort(registry, "127.0.0.1", 0) as port, ExitStack() as stack:
        address = ("127.0.0.1", port.port)
        idle = [
            stack.enter_context(socket.create_connection(address, timeout=5))
            for _ in range(metrics_port.CONNECTIONS)
        ]
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            scrape(port.url)
        assert [connection.recv(1) for connection in idle] == [b""] * len(idle)
        until(lambda: answers(port.url))


def answers(url: str) -> bool:
    try:
        return scrape(url).value("held") == 7
    except OSError:
        return False


def test_a_failing_scrape_is_logged_and_the_next_one_is_served(registry: CollectorRegistry) -> None:
    failing = Gauge("failing", "A gauge.", registry=registry)
    failing.set_function(lambda: 1 / 0)
    with capture_logs() as lines, MetricsPort(registry, "127.0.0.1", 0) as port:
        with pytest.raises(RemoteDisconnected):
            scrape(port.url)
        until(lambda: bool(lines))
        failing.set_function(lambda: 1)
        assert scrape(port.url).value("failing") == 1
    assert "scrape of the metrics failed" in lines[0]["event"]


def test_a_process_says_where_its_metrics_are(tmp_path: Path) -> None:
    write_upscaler(tmp_path)
    with started(tmp_path, "--metrics-port", "0") as (process, address):
        assert process.stdout is not None
        found = re.fullmatch(r"metrics on (http://127\.0\.0\.1:\d+/metrics)\n", process.stdout.readline())
        assert found
        with Client(address) as client:
            client.upscale(png(8, 8))
        until(lambda: scrape(found[1]).sums("ganforge_requests_total", "code") == {("OK",): 1})
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
