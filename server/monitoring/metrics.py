"""Prometheus metrics of one server, in a registry of its own: two servers in one process do not mix.

server/__main__.py makes a Metrics for its service with --metrics-port, and server/monitoring/port.py serves the registry.
What happens at a moment (a call ends) is counted then, as an Observer of server/core/calls.py. What a part of the server holds
or has counted itself (queue, devices, models) is read when somebody scrapes, on the scrape's own thread. docs/operations.md
lists the metrics; labels take few values: methods of the proto, served models, codes, devices.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from runtime.errors import Overloaded
from server.codes import OK
from server.core.calls import Call
from server.core.service import Service
from server.monitoring.parts import PartMetrics
from server.security.certificates import Certificates

# From a thumbnail on a GPU to a poster on a small CPU, in seconds.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
RATIOS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 10)
MODEL = ("method", "model")


class Metrics:
    """The metrics of a service, from now on. `registry` holds them all, with those of the process.

    certificates: the server's; None if it does not speak TLS.
    """

    def __init__(self, service: Service, certificates: Certificates | None = None) -> None:
        self.registry = CollectorRegistry()
        if certificates is not None:
            Gauge(
                "ganforge_certificate_expiry_timestamp_seconds",
                "When the server's certificate expires, in seconds since 1970.",
                registry=self.registry,
            ).set_function(lambda: certificates.expires.timestamp())
        service.observe(CallMetrics(self.registry))
        self.registry.register(PartMetrics(service))
        ProcessCollector(registry=self.registry)


class CallMetrics:
    """Counts calls and their seconds when they end. An Observer of server/core/calls.py."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "ganforge_requests",
            "Calls that ended, by gRPC status code. model is empty if the call named none that is served.",
            (*MODEL, "code"),
            registry=registry,
        )
        self._refusals = Counter(
            "ganforge_refusals",
            "Calls refused because of load, by the limit that refused them.",
            ("method", "reason"),
            registry=registry,
        )
        self._total = Histogram(
            "ganforge_request_seconds",
            "Seconds from a call's arrival to its end, whatever its code.",
            MODEL,
            buckets=SECONDS,
            registry=registry,
        )
        self._estimates = Histogram(
            "ganforge_request_estimate_ratio",
            "Seconds that answered calls took, as a multiple of what was estimated when they were admitted.",
            MODEL,
            buckets=RATIOS,
            registry=registry,
        )
        self._stages = [
            Histogram(
                f"ganforge_request_{stage}_seconds",
                f"Seconds that calls for a model {what}, as in the answer's Timing.",
                MODEL,
                buckets=SECONDS,
                registry=registry,
            )
            for stage, what in (
                ("queue", "waited for admission, a codec thread or the device"),
                ("device", "had items on the device"),
                ("codec", "decoded, resized or encoded"),
            )
        ]

    def begun(self, call: Call) -> None:
        """Nothing is counted yet; open calls are read from the service."""

    def ended(self, call: Call, code: str, error: Exception | None) -> None:
        """Count the call."""
        times = call.stopwatch.times()
        # The core names the model only after it has found it, so this label takes no value that a client makes up.
        labels = (call.method, str(call.facts.get("model", "")))
        self._requests.labels(*labels, code).inc()
        self._total.labels(*labels).observe(times.total_s)
        if isinstance(error, Overloaded):
            self._refusals.labels(call.method, error.reason).inc()
        if code == OK and call.estimate_ms:
            self._estimates.labels(*labels).observe(times.total_s * 1e3 / call.estimate_ms)
        if labels[1]:
            spent_s = (times.queue_s, times.inference_s, times.codec_s)
            for histogram, seconds in zip(self._stages, spent_s, strict=True):
                histogram.labels(*labels).observe(seconds)
