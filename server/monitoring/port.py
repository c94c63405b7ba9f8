"""The HTTP port that Prometheus scrapes, on threads of its own: a scrape takes no turn of the event loop.

server/__main__.py starts it before the models are warm and closes it last. It answers GET /metrics in Prometheus' text
format or OpenMetrics. It is plain HTTP: put it on the loopback interface or a network of the operator's own.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import ThreadingTCPServer
from typing import Any, Self

from prometheus_client import CollectorRegistry, MetricsHandler

from runtime.errors import BackendUnavailable
from server.logs import log

# Connections at once; one more is closed unanswered. A scraper that takes longer than LONGEST_S is cut off.
CONNECTIONS = 8
LONGEST_S = 10.0
# How soon `close` is noticed.
POLL_S = 0.1


class MetricsPort:
    """Serves the metrics of a registry until `close`. A context manager. port: 0 for a free one; `port` says which.

    Raises BackendUnavailable if the address cannot be used.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry})
        try:
            self._http = _Server((host, port), handler)
        except OSError as error:
            raise BackendUnavailable(
                f"cannot listen on {host}:{port} for metrics: is it in use? ({error}); "
                "choose another with --metrics-port and --metrics-host"
            ) from error
        self.port: int = self._http.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/metrics"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=[POLL_S], name="metrics", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening. Scrapes under way may finish."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingTCPServer):
    # Not http.server's own class, which looks up the host's name in the DNS first.
    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True
    block_on_close = False  # a scraper that stands still does not hold up the end

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        cut_off = threading.Timer(LONGEST_S, _disconnect, [request])
        cut_off.daemon = True
        cut_off.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut_off.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.warning("a scrape of the metrics failed", peer=str(client_address), exc_info=True)


class _Handler(MetricsHandler):
    timeout = LONGEST_S

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        if self.path.split("?")[0] in ("/", "/metrics"):
            super().do_GET()
        else:
            self.send_error(404, "the metrics are at /metrics")


def _disconnect(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
