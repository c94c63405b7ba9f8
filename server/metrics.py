"""Prometheus metrics of one server, in a registry of its own: two servers in one process do not mix.

server/__main__.py makes a Metrics for its service with --metrics-port, and server/metrics_port.py serves the registry.
What happens at a moment (a call ends) is counted then, as an Observer of server/calls.py. What a part of the server holds
or has counted itself (queue, devices, models) is read when somebody scrapes, on the scrape's own thread. docs/operations.md
lists the metrics; labels take few values: methods of the proto, served models, codes, devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from runtime.errors import Overloaded
from runtime.scheduler import Stats
from server.calls import Call
from server.service import Service

# From a thumbnail on a GPU to a poster on a small CPU, in seconds.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64)
MODEL = ("method", "model")


class Metrics:
    """The metrics of a service, from now on. `registry` holds them all, with those of the process."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        service.observe(CallMetrics(self.registry))
        self.registry.register(PartMetrics(service))
        ProcessCollector(registry=self.registry)


class CallMetrics:
    """Counts calls and their seconds when they end. An Observer of server/calls.py."""

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
        if labels[1]:
            spent_s = (times.queue_s, times.inference_s, times.codec_s)
            for histogram, seconds in zip(self._stages, spent_s, strict=True):
                histogram.labels(*labels).observe(seconds)


class PartMetrics(Collector):
    """Reads the parts of a service at every scrape, before its models are warm and while it drains too."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        stats, limits = self._service.stats(), self._service.limits
        yield gauge("ganforge_open_calls", "Calls that are open.", stats.open_calls)
        yield gauge("ganforge_open_calls_limit", "--max-calls.", limits.max_calls)
        yield gauge("ganforge_uploads_bytes", "Bytes of all uploads in pieces.", stats.uploads_bytes)
        yield gauge("ganforge_uploads_limit_bytes", "--max-uploads-bytes.", limits.max_uploads_bytes)
        yield from self._models()
        yield from devices({device: each.stats() for device, each in stats.schedulers.items()})

    def _models(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "ganforge_model_info",
            "1 for each served model.",
            labels=("model", "task", "precision", "backend", "device"),
        )
        cost = GaugeMetricFamily(
            "ganforge_model_seconds_per_pixel",
            "Running average of the device's seconds per pixel that the model computes.",
            labels=("model",),
        )
        for model in self._service.stats().models:
            engine = model.engine
            info.add_metric(
                (model.name, model.manifest.task, engine.precision, engine.backend, engine.device), 1
            )
            seconds_per_px = model.scheduler.seconds_per_px(engine)
            if seconds_per_px is not None:
                cost.add_metric((model.name,), seconds_per_px)
        yield from (info, cost)


def devices(stats: Mapping[str, Stats]) -> Iterator[Metric]:
    """The metrics of the schedulers. stats: by device."""

    def counter(name: str, help: str, values: Iterable[tuple[str, float]]) -> Metric:
        family = CounterMetricFamily(name, help, labels=("device",))
        for device, value in values:
            family.add_metric((device,), value)
        return family

    yield counter(
        "ganforge_device_busy_seconds",
        "Seconds of all batches; its rate is the share of time that the device is busy, up to its slots.",
        ((device, each.busy_s) for device, each in stats.items()),
    )
    yield counter(
        "ganforge_device_pixels",
        "Pixels computed.",
        ((device, each.pixels) for device, each in stats.items()),
    )
    yield counter(
        "ganforge_device_items_dropped",
        "Tiles and samples dropped because their call had ended.",
        ((device, each.items_dropped) for device, each in stats.items()),
    )
    waiting = GaugeMetricFamily(
        "ganforge_device_jobs_waiting", "Jobs with items that wait for the device.", labels=("device",)
    )
    batches = HistogramMetricFamily("ganforge_device_batch_items", "Items of a batch.", labels=("device",))
    for device, each in stats.items():
        waiting.add_metric((device,), each.jobs_waiting)
        batches.add_metric(
            (device,), cumulated(each.batch_sizes), sum(n * of for n, of in each.batch_sizes.items())
        )
    yield from (waiting, batches)


def cumulated(batch_sizes: Mapping[int, int]) -> list[tuple[str, float]]:
    """The buckets of a histogram of batch sizes."""
    buckets: list[tuple[str, float]] = [
        (str(bound), sum(count for size, count in batch_sizes.items() if size <= bound))
        for bound in BATCH_ITEMS
    ]
    return [*buckets, ("+Inf", sum(batch_sizes.values()))]


def gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, help, value)
