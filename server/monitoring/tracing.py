"""OpenTelemetry: a server span for each call, with spans queue, decode, device and encode under it.

server/monitoring/monitors.py makes a Tracing if the environment asks for one (OTEL_EXPORTER_OTLP_ENDPOINT and the other standard
variables); without it, nothing of OpenTelemetry is imported. The spans are made when a call ends, out of the periods that
its stopwatch has kept, so that nothing else in the server knows of them. The library's own instrumentation of gRPC is not
used: it breaks streams of coroutines (opentelemetry-python-contrib#3066).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import grpc

from runtime.stopwatch import Activity
from server.core.calls import Call
from server.logs import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE = "ganforge.v1.ImageGenerator"
NAMES: Mapping[Activity, str] = {
    "queue": "queue",
    "decode": "decode",
    "inference": "device",
    "encode": "encode",
}
# What a call's facts become.
ATTRIBUTES = {
    "model": "ganforge.model",
    "version": "ganforge.model_version",
    "size": "ganforge.size",
    "recovered": "ganforge.recovered",
}
# The server's failures, as OpenTelemetry's conventions for gRPC servers name them; the others are the caller's.
FAILURES = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
# A collector that does not answer holds up the end of the server no longer than this.
LAST_SPANS_S = 5.0


class Tracing:
    """Makes the spans of calls that end. An Observer of server/core/calls.py. exporter: where they go."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource({SERVICE_NAME: "ganforge"}).merge(Resource.create())
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ganforge")
        self._propagator = TraceContextTextMapPropagator()

    def begun(self, call: Call) -> None:
        """Have the call's stopwatch keep what the spans are made of."""
        call.stopwatch.record()

    def ended(self, call: Call, code: str, error: Exception | None) -> None:
        """Make the call's spans, and put their trace's id into its log line."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        # Spans are in nanoseconds of the wall clock, stopwatches on the monotonic clock.
        periods, now_s, now_ns = call.stopwatch.periods(), time.monotonic(), time.time_ns()

        def wall_ns(monotonic_s: float) -> int:
            return now_ns - int((now_s - monotonic_s) * 1e9)

        span = self._tracer.start_span(
            f"{SERVICE}/{call.method}",
            self._propagator.extract(call.trace_context),
            SpanKind.SERVER,
            attributes=_attributes(call, code),
            start_time=wall_ns(call.stopwatch.started_s),
        )
        call.facts["trace_id"] = f"{span.get_span_context().trace_id:032x}"
        if not span.is_recording():
            return
        within = set_span_in_context(span)
        for period in periods:
            part = self._tracer.start_span(
                NAMES[period.activity], within, start_time=wall_ns(period.started_s)
            )
            part.end(wall_ns(period.ended_s))
        if error is not None:
            span.record_exception(error, timestamp=now_ns)
        if code in FAILURES:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end(now_ns)

    def flush(self) -> None:
        """Export the spans so far."""
        self._provider.force_flush()

    def close(self) -> None:
        """Export the last spans, for LAST_SPANS_S at most."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(LAST_SPANS_S)


def from_environment(environment: Mapping[str, str]) -> Tracing | None:
    """The tracing that the OTEL_* variables ask for; None if they ask for none, or it is not possible, which is logged."""
    kind = environment.get("OTEL_TRACES_EXPORTER", "otlp")
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or kind == "none"
    if off or not any(environment.get(switch) for switch in SWITCHES):
        return None
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_IntoLog(logging.WARNING)], False
    try:
        tracing = Tracing(_exporter(kind))
    except (ImportError, ValueError) as error:
        log.warning("no traces", reason=str(error))
        return None
    log.info("traces", exporter=kind, endpoint=environment.get(SWITCHES[1]) or environment.get(SWITCHES[0]))
    return tracing


class _IntoLog(logging.Handler):
    """Puts what OpenTelemetry logs, such as a collector that does not answer, into the server's log."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("traces", reason=record.getMessage())


def _exporter(kind: str) -> SpanExporter:
    """The exporter of that name. Raises ImportError or ValueError with a sentence."""
    try:
        if kind == "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return ConsoleSpanExporter()
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ImportError(
            f"OTEL_* variables ask for traces, and OpenTelemetry is not installed ({error}); "
            "pip install 'ganforge[otel]', or set OTEL_SDK_DISABLED=true"
        ) from error
    if kind != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER: got {kind!r}, expected otlp (over gRPC), console or none")
    return OTLPSpanExporter()


def _attributes(call: Call, code: str) -> dict[str, Any]:
    """The attributes of a call's span."""
    status = cast(tuple[int, str], grpc.StatusCode[code].value)
    facts = {name: str(call.facts[fact]) for fact, name in ATTRIBUTES.items() if fact in call.facts}
    return {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": call.method,
        "rpc.grpc.status_code": status[0],
        "ganforge.request_id": call.request_id,
        "ganforge.client": call.client,
        **facts,
    }
