"""What the parts of a server hold and have counted themselves, read at each scrape, on the scrape's own thread.

server/monitoring/metrics.py registers a PartMetrics of its service. A part takes its own lock to answer, briefly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from runtime.lane import LaneStats
from runtime.scheduling.stats import Stats
from server import resources
from server.limits import Limits
from server.models import Model
from server.service import Service, ServiceStats

T = TypeVar("T")
# The name of a metric, its description, and how its value is read.
Reading = tuple[str, str, Callable[[T], float]]

BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64)
SERVICE: Sequence[Reading[ServiceStats]] = (
    ("ganforge_open_calls", "Calls that are open.", lambda service: service.open_calls),
    ("ganforge_uploads_bytes", "Bytes of all uploads in pieces.", lambda service: service.uploads_bytes),
)
LIMITS: Sequence[Reading[Limits]] = (
    ("ganforge_open_calls_limit", "--max-calls.", lambda limits: limits.max_calls),
    ("ganforge_uploads_limit_bytes", "--max-uploads-bytes.", lambda limits: limits.max_uploads_bytes),
    ("ganforge_queue_limit_pixels", "--max-queue-pixels.", lambda limits: limits.max_queue_pixels),
)
MACHINE = (
    ("ganforge_memory_limit_bytes", "Memory that the process may use.", resources.memory_bytes),
    ("ganforge_temporary_free_bytes", "Free space for temporary files (TMPDIR).", resources.temporary_bytes),
)
# Small and large requests have lanes of their own: runtime/admission.py.
LANES: Sequence[Reading[LaneStats]] = (
    ("ganforge_queue_requests", "Requests that wait for admission.", lambda lane: lane.waiting),
    ("ganforge_queue_pixels", "Pixels of the requests that wait.", lambda lane: lane.waiting_px),
    ("ganforge_queue_seconds", "Estimated seconds of the requests that wait.", lambda lane: lane.waiting_s),
    ("ganforge_active_requests", "Requests that are admitted.", lambda lane: lane.working),
    ("ganforge_active_pixels", "Pixels of the admitted requests.", lambda lane: lane.working_px),
    ("ganforge_active_bytes", "Memory of the admitted requests.", lambda lane: lane.working_bytes),
    ("ganforge_active_limit_bytes", "Its limit, of --max-active-bytes.", lambda lane: lane.max_bytes),
    ("ganforge_active_disk_bytes", "Their temporary files.", lambda lane: lane.working_disk_bytes),
    ("ganforge_active_disk_limit_bytes", "Their limit, of --max-disk-bytes.", lambda lane: lane.max_disk_bytes),
)  # fmt: skip
DEVICE_COUNTERS: Sequence[Reading[Stats]] = (
    ("ganforge_device_busy_seconds", "Seconds of all batches; divide its rate by the slots.", lambda device: device.busy_s),
    ("ganforge_device_pixels", "Pixels computed.", lambda device: device.pixels),
    ("ganforge_device_items_dropped", "Tiles and samples dropped: their call had ended.", lambda device: device.items_dropped),
)  # fmt: skip
DEVICE_GAUGES: Sequence[Reading[Stats]] = (
    ("ganforge_device_jobs_waiting", "Jobs with items that wait.", lambda device: device.jobs_waiting),
)


class PartMetrics(Collector):
    """Reads the parts of a service, before its models are warm and while it drains too."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        service = self._service.stats()
        yield from (gauge(name, help, read(service)) for name, help, read in SERVICE)
        yield from (gauge(name, help, read(self._service.limits)) for name, help, read in LIMITS)
        yield from (gauge(name, help, read()) for name, help, read in MACHINE)
        if service.admission is not None:
            yield from labelled(GaugeMetricFamily, "lane", service.admission.lanes, LANES)
        devices = {device: scheduler.stats() for device, scheduler in service.schedulers.items()}
        yield from labelled(CounterMetricFamily, "device", devices, DEVICE_COUNTERS)
        yield from labelled(GaugeMetricFamily, "device", devices, DEVICE_GAUGES)
        yield batch_sizes(devices)
        yield from models(service.models)


def gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, help, value)


def labelled(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    label: str,
    parts: Mapping[str, T],
    readings: Sequence[Reading[T]],
) -> Iterator[Metric]:
    """A metric for each reading, with a value for each part. parts: by the value of `label`."""
    for name, help, read in readings:
        family = kind(name, help, labels=(label,))
        for value, part in parts.items():
            family.add_metric((value,), read(part))
        yield family


def batch_sizes(devices: Mapping[str, Stats]) -> Metric:
    """The histogram of batch sizes of each device."""
    family = HistogramMetricFamily("ganforge_device_batch_items", "Items of a batch.", labels=("device",))
    for device, stats in devices.items():
        sizes = stats.batch_sizes
        buckets: list[tuple[str, float]] = [
            (str(bound), sum(count for size, count in sizes.items() if size <= bound))
            for bound in BATCH_ITEMS
        ]
        buckets.append(("+Inf", sum(sizes.values())))
        family.add_metric((device,), buckets, sum(size * count for size, count in sizes.items()))
    return family


def models(served: Sequence[Model]) -> Iterator[Metric]:
    """What is served, how fast it computes, and how many batches its device runs at once."""
    labels = ("model", "version", "task", "precision", "backend", "device")
    info = GaugeMetricFamily("ganforge_model_info", "1 for each served model.", labels=labels)
    cost = GaugeMetricFamily(
        "ganforge_model_seconds_per_pixel",
        "Running average of the device's seconds per pixel that the model computes.",
        labels=("model",),
    )
    slots = GaugeMetricFamily(
        "ganforge_device_slots", "Batches that run at once on the device.", labels=("device",)
    )
    for model in served:
        engine = model.engine
        task = str(model.manifest.task)
        info.add_metric((model.name, model.version, task, engine.precision, engine.backend, engine.device), 1)
        seconds_per_px = model.scheduler.seconds_per_px(engine)
        if seconds_per_px is not None:
            cost.add_metric((model.name,), seconds_per_px)
    for device in sorted({model.engine.device for model in served}):
        slots.add_metric(
            (device,), max(model.engine.slots for model in served if model.engine.device == device)
        )
    yield from (info, cost, slots)
