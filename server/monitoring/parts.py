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

from runtime.healing import HealingEngine
from runtime.lane import LaneStats
from runtime.scheduling.stats import Stats
from server.core.codec_threads import CodecStats
from server.core.service import Service, ServiceStats
from server.health import MODEL, Health
from server.limits import Limits
from server.machine import resources
from server.models.engines import EnginesStats
from server.models.models import Models

T = TypeVar("T")
# The name of a metric, its description, and how its value is read.
Reading = tuple[str, str, Callable[[T], float]]

BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64)
SERVICE: Sequence[Reading[ServiceStats]] = (
    ("ganforge_open_calls", "Calls that are open.", lambda service: service.open_calls),
    ("ganforge_uploads_bytes", "Bytes of all uploads in pieces.", lambda service: service.uploads_bytes),
    (
        "ganforge_transit_bytes",
        "Messages that arrive and answers that leave.",
        lambda service: service.transit_bytes,
    ),
)
LIMITS: Sequence[Reading[Limits]] = (
    ("ganforge_open_calls_limit", "--max-calls.", lambda limits: limits.max_calls),
    ("ganforge_uploads_limit_bytes", "--max-uploads-bytes.", lambda limits: limits.max_uploads_bytes),
    ("ganforge_transit_limit_bytes", "--max-transit-bytes.", lambda limits: limits.max_transit_bytes),
    ("ganforge_queue_limit_pixels", "--max-queue-pixels.", lambda limits: limits.max_queue_pixels),
    ("ganforge_queue_limit_seconds", "--max-queue-s.", lambda limits: limits.max_queue_s),
)
ADMISSION_REFUSALS = (
    "Requests that admission refused: for more memory or disk than the whole budget, late (an idle server could not meet "
    "the deadline), queue or deadline (too much load)."
)
RELOADS = "Models that reloads added, replaced, removed or refused."
MACHINE = (
    ("ganforge_memory_limit_bytes", "Memory that the process may use.", resources.memory_bytes),
    ("ganforge_temporary_free_bytes", "Free space for temporary files (TMPDIR).", resources.temporary_bytes),
)
# Requests of different sizes have lanes of their own: runtime/admission.py.
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
ENGINES: Sequence[Reading[EnginesStats]] = (
    ("ganforge_models_open", "Models whose engine is open.", lambda engines: engines.open),
    ("ganforge_models_bytes", "Estimated memory of the open engines.", lambda engines: engines.bytes),
)
ENGINE_COUNTERS: Sequence[Reading[EnginesStats]] = (
    ("ganforge_models_opened", "Engines opened.", lambda engines: engines.opened),
    ("ganforge_models_closed", "Engines closed.", lambda engines: engines.closed),
)
DEVICE_COUNTERS: Sequence[Reading[Stats]] = (
    ("ganforge_device_pixels", "Pixels computed.", lambda device: device.pixels),
    ("ganforge_device_items_dropped", "Tiles and samples dropped: their call had ended.", lambda device: device.items_dropped),
    ("ganforge_device_slots_replaced", "Workers given up because their batch hung.", lambda device: device.slots_replaced),
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
        yield from codec_metrics(service.codecs)
        yield counts("ganforge_reloads", RELOADS, "outcome", service.reloads)
        if service.admission is not None:
            yield from labelled(GaugeMetricFamily, "lane", service.admission.lanes, LANES)
            refusals = service.admission.refusals
            yield counts("ganforge_admission_refusals", ADMISSION_REFUSALS, "reason", refusals)
        yield health(self._service.health, service.models)
        if service.models is not None:
            yield from model_metrics(service.models)
            yield from device_metrics(service.models)


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


def counts(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    """A counter with one label. values: by the label's value."""
    family = CounterMetricFamily(name, help, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def codec_metrics(codecs: CodecStats) -> Iterator[Metric]:
    """The codec threads and what they did."""
    for name, help, values in (
        ("ganforge_codec_threads_busy", "Threads that decode or encode.", codecs.busy),
        ("ganforge_codec_tasks_waiting", "Tasks that wait for a codec thread.", codecs.waiting),
    ):
        by_pool = GaugeMetricFamily(name, help, labels=("pool",))
        for pool, value in values.items():
            by_pool.add_metric((pool,), value)
        yield by_pool
    for name, help, done in (
        ("ganforge_codec_cpu_seconds", "CPU time of decoding and encoding.", codecs.seconds),
        ("ganforge_codec_pixels", "Pixels decoded and encoded.", codecs.pixels),
    ):
        by_format = CounterMetricFamily(name, help, labels=("activity", "format"))
        for labels, total in done.items():
            by_format.add_metric(labels, total)
        yield by_format


def health(reported: Health, models: Models | None) -> Metric:
    """What works: the server as a whole, the parts that report their health, and each model."""
    family = GaugeMetricFamily(
        "ganforge_healthy",
        "1 for what works, else 0: server, disk, model/NAME.",
        labels=("part",),
    )
    works = {"server": bool(reported.healthy()), **reported.parts()}
    for entry in models.catalog.entries.values() if models is not None else ():
        engine = entry.model.engine if entry.model is not None else None
        hopeless = isinstance(engine, HealingEngine) and engine.unavailable is not None
        part = f"{MODEL}{entry.name}"
        works[part] = works.get(part, True) and entry.state != "unavailable" and not hopeless
    for part, healthy in works.items():
        family.add_metric((part,), healthy)
    return family


def model_metrics(models: Models) -> Iterator[Metric]:
    """What is served, in which state, and how fast it computes."""
    engines = models.stats()
    yield from (gauge(name, help, read(engines)) for name, help, read in ENGINES)
    yield from (CounterMetricFamily(name, help, read(engines)) for name, help, read in ENGINE_COUNTERS)
    labels = ("model", "version", "task", "precision", "backend", "device")
    info = GaugeMetricFamily("ganforge_model_info", "1 for each model whose engine is open.", labels=labels)
    state = GaugeMetricFamily(
        "ganforge_model_state",
        "1 for each model in its state: serving, loading, idle, unavailable.",
        labels=("model", "version", "state"),
    )
    cost = GaugeMetricFamily(
        "ganforge_model_seconds_per_pixel",
        "Running average of the device's seconds per pixel that the model computes.",
        labels=("model",),
    )
    for entry in models.catalog.entries.values():
        state.add_metric((entry.name, entry.version, entry.state), 1)
    for model in models:
        engine, task = model.engine, str(model.manifest.task)
        info.add_metric((model.name, model.version, task, engine.precision, engine.backend, engine.device), 1)
        seconds_per_px = model.scheduler.seconds_per_px(engine)
        if seconds_per_px is not None:
            cost.add_metric((model.name,), seconds_per_px)
    yield from (info, state, cost)


def device_metrics(models: Models) -> Iterator[Metric]:
    """What the schedulers have done. device: one, or those behind the same queue, such as "cuda:0,cuda:1"."""
    devices = {device: scheduler.stats() for device, scheduler in models.schedulers.items()}
    yield from labelled(CounterMetricFamily, "device", devices, DEVICE_COUNTERS)
    yield from labelled(GaugeMetricFamily, "device", devices, DEVICE_GAUGES)
    yield batch_sizes(devices)
    slots = GaugeMetricFamily("ganforge_device_slots", "Batches that run at once.", labels=("device",))
    retries = CounterMetricFamily(
        "ganforge_retries",
        "Items that ran again after an engine had failed, by what was done.",
        labels=("device", "step"),
    )
    busy = CounterMetricFamily(
        "ganforge_device_busy_seconds",
        "Seconds of all batches, by the device and the slot that ran them; failed ones included.",
        labels=("device", "slot"),
    )
    for device, count in slots_of(models).items():
        slots.add_metric((device,), count)
    for device, stats in devices.items():
        for step, count in stats.retries.items():
            retries.add_metric((device, step), count)
        for place, seconds in stats.busy_by_slot_s.items():
            own_device, _, slot = place.rpartition("/")
            busy.add_metric((own_device, slot), seconds)
    yield from (slots, retries, busy)


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


def slots_of(models: Models) -> dict[str, int]:
    """How many batches run at once on each device."""
    most: dict[str, int] = {}
    for model in models:
        for device, count in model.engine.slots_by_device.items():
            most[device] = max(most.get(device, 0), count)
    return most
