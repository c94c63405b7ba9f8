"""Traces: the tree of a call's spans, what they say of errors, and that nobody pays for them who has not asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from protos import ganforge_pb2 as pb
from runtime.errors import EngineError
from server.client import Client
from server.monitoring import tracing
from server.monitoring.tracing import Tracing
from tests.server.bundles import write_upscaler
from tests.server.conftest import FakeUpscaler, Serve, Served, png, refusal, until
from tests.server.test_start_and_stop import started

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@dataclass
class Traced:
    """A server, its engine, and the spans of its calls."""

    served: Served
    engine: FakeUpscaler
    tracing: Tracing
    exporter: InMemorySpanExporter

    def spans(self) -> Sequence[ReadableSpan]:
        """All spans, once those of the latest call are there."""

        def are_there() -> bool:
            self.tracing.flush()
            return any(span.kind is SpanKind.SERVER for span in self.exporter.get_finished_spans())

        until(are_there)
        return self.exporter.get_finished_spans()

    def of_call(self) -> ReadableSpan:
        """The span of the one call."""
        (span,) = [span for span in self.spans() if span.kind is SpanKind.SERVER]
        return span


@pytest.fixture
def traced(serve: Serve) -> Iterator[Traced]:
    engine, exporter = FakeUpscaler(), InMemorySpanExporter()
    served, made = serve(engine), Tracing(exporter)
    served.service.observe(made)
    yield Traced(served, engine, made, exporter)
    made.close()


def upscale(served: Served, image: bytes, *metadata: tuple[str, str]) -> pb.UpscaleResponse:
    return served.stub.Upscale(pb.UpscaleRequest(image=image), metadata=metadata)


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def test_a_call_is_a_span_under_the_callers_and_its_stages_lie_within(traced: Traced) -> None:
    upscale(traced.served, png(70, 50), ("traceparent", TRACEPARENT), ("x-request-id", "mine"))
    spans, call = traced.spans(), traced.of_call()
    assert call.name == "ganforge.v1.ImageGenerator/Upscale"
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == PARENT
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {TRACE}
    assert call.attributes is not None
    assert call.attributes.items() >= {
        ("rpc.method", "Upscale"),
        ("rpc.grpc.status_code", 0),
        ("ganforge.model", "upscaler"),
        ("ganforge.size", "70×50 png → 280×200 png"),
        ("ganforge.request_id", "mine"),
    }
    stages = [span for span in spans if span is not call]
    assert {span.name for span in stages} == {"queue", "decode", "device", "encode"}
    begun_ns, ended_ns = times(call)
    for stage in stages:
        assert stage.parent == call.context
        assert begun_ns <= times(stage)[0] <= times(stage)[1] <= ended_ns
    by_name = {
        name: [times(span) for span in stages if span.name == name] for name in ("decode", "device", "encode")
    }
    assert max(by_name["decode"])[1] <= min(by_name["device"])[0]
    assert max(by_name["device"])[1] <= min(by_name["encode"])[0]


@pytest.mark.parametrize(
    "given", [None, "", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "x" * 2000]
)
def test_a_call_without_a_parent_begins_a_trace(traced: Traced, given: str | None) -> None:
    upscale(traced.served, png(8, 8), *([("traceparent", given)] if given is not None else []))
    assert traced.of_call().parent is None


def test_a_trace_that_its_caller_does_not_sample_is_not_exported(traced: Traced) -> None:
    upscale(traced.served, png(8, 8), ("traceparent", f"00-{TRACE}-{PARENT}-00"))
    upscale(traced.served, png(8, 8))
    assert traced.of_call().parent is None


def test_a_callers_mistake_is_recorded_and_not_the_servers_failure(traced: Traced) -> None:
    refusal(lambda: upscale(traced.served, b"not an image"))
    call = traced.of_call()
    assert call.status.status_code is StatusCode.UNSET
    assert exceptions(call) == [("runtime.errors.InvalidInput", True)]


def test_the_servers_failure_is_an_error(traced: Traced) -> None:
    traced.engine.failure = EngineError("the device is gone")
    refusal(lambda: upscale(traced.served, png(8, 8)))
    call = traced.of_call()
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "INTERNAL")
    assert call.attributes is not None
    assert call.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]
    assert exceptions(call) == [("runtime.errors.EngineError", True)]


def exceptions(span: ReadableSpan) -> list[tuple[str, bool]]:
    """Type of each recorded exception, and whether it has a message."""
    return [
        (str((event.attributes or {})["exception.type"]), bool((event.attributes or {})["exception.message"]))
        for event in span.events
        if event.name == "exception"
    ]


# Where traces come from: the environment.


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_no_traces_unless_the_environment_asks_for_them(environment: dict[str, str]) -> None:
    assert tracing.from_environment(environment) is None


def test_an_exporter_that_is_not_here_is_named_in_the_log_and_the_server_goes_on() -> None:
    with capture_logs() as lines:
        assert tracing.from_environment({"OTEL_TRACES_EXPORTER": "zipkin"}) is None
    assert "got 'zipkin', expected otlp" in lines[0]["reason"]


def test_a_missing_library_is_named_in_the_log_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with capture_logs() as lines:
        assert tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "pip install 'ganforge[otel]'" in lines[0]["reason"]


def test_a_collector_that_does_not_answer_is_named_in_the_log_and_the_server_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    write_upscaler(tmp_path)
    with started(tmp_path) as (process, address):
        with Client(address) as client:
            client.upscale(png(8, 8))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    lines = [json.loads(line) for line in log.splitlines()]  # each of them is JSON
    assert any(line["event"] == "traces" and "127.0.0.1:1" in line.get("reason", "") for line in lines)


def test_nothing_of_opentelemetry_is_imported_without_being_asked_for() -> None:
    source = """
import sys
import server.__main__
from server.monitoring import tracing
assert tracing.from_environment({}) is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "[]\n", done.stderr


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans over OTLP, as a real collector does."""

    spans: list[Any] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.spans += [
            ({each.key: each.value.string_value for each in resource.resource.attributes}, span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_process_sends_its_spans_to_a_collector_and_logs_their_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, listening = Collector(), grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, listening)
    port = listening.add_insecure_port("127.0.0.1:0")
    listening.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    write_upscaler(tmp_path)
    try:
        with started(tmp_path) as (process, address):
            with Client(address) as client:
                client.upscale(png(8, 8))
            process.send_signal(signal.SIGTERM)  # the last spans leave before the process ends
            _, log = process.communicate(timeout=30)
    finally:
        listening.stop(0)
    assert process.returncode == 0, log
    (line,) = [json.loads(line) for line in log.splitlines() if '"event": "call"' in line]
    assert {span.name for _, span in collector.spans} >= {"ganforge.v1.ImageGenerator/Upscale", "device"}
    assert {span.trace_id.hex() for _, span in collector.spans} == {line["trace_id"]}
    assert {resource["service.name"] for resource, _ in collector.spans} == {"pictures"}
