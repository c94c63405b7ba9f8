"""The metrics say exactly what the clients saw, under load, while the server warms up, and for each server alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice, pairwise

import grpc
import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from server.limits import Limits
from server.monitoring.metrics import Metrics
from server.monitoring.port import MetricsPort
from tests.server.conftest import OPTIONS, FakeGenerator, FakeUpscaler, Serve, Served, held, png, until
from tests.server.scraping import Scrape, scrape

# Method and code of a call, as a client saw it.
Outcomes = Counter[tuple[str, ...]]
CLIENTS, CALLS_EACH = 6, 16
MAX_CALLS = 12


@contextmanager
def monitored(served: Served) -> Iterator[Callable[[], Scrape]]:
    """Serves the metrics of calls from now on; yields what scrapes them."""
    with MetricsPort(Metrics(served.service).registry, "127.0.0.1", 0) as port:
        yield lambda: scrape(port.url)


def counted(outcomes: Outcomes, method: str, call: Callable[[], object]) -> None:
    """Make a call and count how it ended for the client."""
    try:
        call()
        code = "OK"
    except grpc.RpcError as error:
        code = error.code().name
    except grpc.FutureCancelledError:
        code = "CANCELLED"
    outcomes[method, code] += 1


def uploaded(*parts: bytes) -> Iterator[pb.UpscaleStreamRequest]:
    """The messages of an UpscaleStream: a header, then data."""
    yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest(model="upscaler"))
    for part in parts:
        yield pb.UpscaleStreamRequest(data=part)


def mixed_calls(stub: pb_grpc.ImageGeneratorStub) -> list[tuple[str, Callable[[], object]]]:
    """Calls that end well, and calls that are refused for what they ask."""
    image = png(40, 30)
    return [
        ("Upscale", lambda: stub.Upscale(pb.UpscaleRequest(image=image))),
        ("Upscale", lambda: stub.Upscale(pb.UpscaleRequest(image=b"not an image"))),
        ("Generate", lambda: stub.Generate(pb.GenerateRequest(model="generator", count=3))),
        ("Generate", lambda: stub.Generate(pb.GenerateRequest(model="generator", count=0))),
        ("Upscale", lambda: stub.Upscale(pb.UpscaleRequest(model="made\nup\u202e", image=image))),
        ("UpscaleStream", lambda: list(stub.UpscaleStream(uploaded(image)))),
        ("UpscaleStream", lambda: list(stub.UpscaleStream(iter([])))),
        ("ListModels", lambda: stub.ListModels(pb.ListModelsRequest())),
        ("Translate", lambda: stub.Translate(pb.TranslateRequest(image=image))),
    ]


def settled(read: Callable[[], Scrape], outcomes: Outcomes) -> Scrape:
    """A scrape after the server has counted as many calls as the clients have made; the last may still be leaving."""
    until(lambda: read().sums("ganforge_requests_total", "method").total() >= outcomes.total())
    return read()


def test_the_metrics_are_what_the_clients_counted(serve: Serve) -> None:
    """Mixed clients, a full server that refuses, calls that are cancelled; scraped all the while."""
    engine = FakeUpscaler()
    served = serve(engine, FakeGenerator(), limits=Limits(max_calls=MAX_CALLS))
    outcomes, refused = Outcomes(), 5
    with monitored(served) as read:
        scrapes, finished = [read()], threading.Event()

        def scrape_on() -> None:
            while not finished.is_set():
                scrapes.append(read())

        def client(number: int) -> Outcomes:
            own = Outcomes()
            with grpc.insecure_channel(served.address, OPTIONS) as channel:
                calls = mixed_calls(pb_grpc.ImageGeneratorStub(channel))
                for method, call in islice(cycle(calls), number, number + CALLS_EACH):
                    counted(own, method, call)
            return own

        begun_s = time.monotonic()
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            scraper = pool.submit(scrape_on)
            for own in pool.map(client, range(CLIENTS)):
                outcomes.update(own)
            until(lambda: served.service.stats().open_calls == 0)
            # The server is filled to its last call, so that the next ones are refused; then some are given up.
            with held(engine):
                request = pb.UpscaleRequest(image=png(40, 30))
                filling = [served.stub.Upscale.future(request) for _ in range(MAX_CALLS)]
                until(lambda: read().value("ganforge_open_calls") == MAX_CALLS)
                until(lambda: in_admission(read()) == MAX_CALLS)
                for _ in range(refused):
                    counted(outcomes, "Upscale", lambda: served.stub.Upscale(request))
                for call in filling[: MAX_CALLS // 2]:
                    call.cancel()
                until(lambda: read().value("ganforge_open_calls") == MAX_CALLS - MAX_CALLS // 2)
            for call in filling:
                counted(outcomes, "Upscale", call.result)
            finished.set()
            scraper.result()
        last = settled(read, outcomes)
        assert in_admission(last) == 0
        clients_s = (time.monotonic() - begun_s) * (CLIENTS + MAX_CALLS)

    assert {code for _, code in outcomes} == {
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "CANCELLED"
    }  # fmt: skip
    assert last.sums("ganforge_requests_total", "method", "code") == outcomes
    assert last.sums("ganforge_refusals_total", "method", "reason") == {("Upscale", "calls"): refused}
    by_method = Outcomes()
    for (method, _), count in outcomes.items():
        by_method[method,] += count
    assert last.sums("ganforge_request_seconds_count", "method") == by_method
    assert last.sums("ganforge_requests_total", "model").keys() == {("",), ("upscaler",), ("generator",)}
    check_seconds(last, clients_s)
    check_devices(last)
    check_only_grows([*scrapes, last])


def in_admission(last: Scrape) -> float:
    """Requests that wait or run, in all lanes."""
    return sum(
        last.value(f"ganforge_{which}_requests", lane=lane)
        for which in ("queue", "active")
        for lane in ("tiny", "small", "large")
    )


def check_seconds(last: Scrape, clients_s: float) -> None:
    """The histograms of the stages hold each call for a model once, and no stage took longer than its calls."""
    for model, method in (("upscaler", "Upscale"), ("generator", "Generate")):
        labels = {"model": model, "method": method}
        total_s = last.value("ganforge_request_seconds_sum", **labels)
        assert 0 < total_s <= clients_s
        answered = last.value("ganforge_requests_total", code="OK", **labels)
        assert last.value("ganforge_request_estimate_ratio_count", **labels) == answered
        for stage in ("queue", "device", "codec"):
            name = f"ganforge_request_{stage}_seconds"
            assert last.value(f"{name}_count", **labels) == last.value(
                "ganforge_request_seconds_count", **labels
            )
            assert 0 < last.value(f"{name}_sum", **labels) <= total_s


def check_devices(last: Scrape) -> None:
    batches = last.value("ganforge_device_batch_items_count", device="CPU")
    assert 0 < batches <= last.value("ganforge_device_batch_items_sum", device="CPU")
    assert last.value("ganforge_device_batch_items_bucket", device="CPU", le="+Inf") == batches
    assert last.value("ganforge_device_items_dropped_total", device="CPU") > 0
    assert last.value("ganforge_device_busy_seconds_total", device="CPU", slot="0") > 0
    assert last.value("ganforge_device_slots", device="CPU") == 1
    assert last.value("ganforge_model_seconds_per_pixel", model="upscaler") > 0


def check_only_grows(scrapes: list[Scrape]) -> None:
    """Every counter of every scrape is at least what it was in the one before."""
    for before, after in pairwise(scrapes):
        for key, value in before.samples.items():
            if key[0].endswith(("_total", "_count", "_bucket")):
                assert after.samples[key] >= value, key


def test_a_stream_that_stands_still_is_counted_as_the_client_saw_it(serve: Serve) -> None:
    """The deadline is the server's own here (--idle-s), so client and server cannot disagree on who was first."""
    served, outcomes, more = serve(FakeUpscaler(), limits=Limits(idle_s=0.05)), Outcomes(), threading.Event()

    def stalled() -> Iterator[pb.UpscaleStreamRequest]:
        yield from uploaded()
        more.wait(30)

    with monitored(served) as read:
        for _ in range(3):
            counted(outcomes, "UpscaleStream", lambda: list(served.stub.UpscaleStream(stalled())))
        more.set()
        assert outcomes == {("UpscaleStream", "DEADLINE_EXCEEDED"): 3}
        assert settled(read, outcomes).sums("ganforge_requests_total", "method", "code") == outcomes


def test_two_servers_in_one_process_count_their_own_calls(serve: Serve) -> None:
    first, second = serve(FakeUpscaler("first")), serve(FakeUpscaler("second"))
    with ExitStack() as stack:
        reads = [stack.enter_context(monitored(each)) for each in (first, second)]
        first.client.upscale(png(8, 8))
        settled(reads[0], Outcomes({("first",): 1}))
        assert [read().sums("ganforge_requests_total", "model") for read in reads] == [{("first",): 1}, {}]


def test_a_server_that_warms_up_and_one_that_has_drained_can_be_scraped(serve: Serve) -> None:
    served = serve(FakeUpscaler(), ready=False)
    with monitored(served) as read:
        with pytest.raises(grpc.RpcError):
            served.stub.Upscale(pb.UpscaleRequest(image=png(4, 4)))
        warming = settled(read, Outcomes({("Upscale", "UNAVAILABLE"): 1}))
        assert warming.value("ganforge_requests_total", method="Upscale", model="", code="UNAVAILABLE") == 1
        assert not warming.sums("ganforge_model_state", "model")
        resident_bytes = warming.value("process_resident_memory_bytes")
        assert 0 < resident_bytes < warming.value("ganforge_memory_limit_bytes")
        assert warming.value("ganforge_temporary_free_bytes") > 0
        served.service.ready(served.models)
        assert read().sums("ganforge_model_state", "model", "state") == {("upscaler", "serving"): 1}
        served.run(served.server.drain(1))
        served.service.close()
        assert read().sums("ganforge_model_state", "model", "state") == {("upscaler", "serving"): 1}


def test_no_call_is_lost_that_ends_at_its_deadline(serve: Serve) -> None:
    """Client and server both watch the deadline. If the client is first, the server sees a cancelled call."""
    engine, outcomes, calls = FakeUpscaler(), Outcomes(), 4
    served = serve(engine)
    with monitored(served) as read, held(engine):
        request = pb.UpscaleRequest(image=png(8, 8))
        for _ in range(calls):
            counted(outcomes, "Upscale", lambda: served.stub.Upscale(request, timeout=0.1))
        assert outcomes == {("Upscale", "DEADLINE_EXCEEDED"): calls}
        codes = settled(read, outcomes).sums("ganforge_requests_total", "code")
    assert codes.keys() <= {("DEADLINE_EXCEEDED",), ("CANCELLED",)}
    assert codes.total() == calls


def test_a_scrape_answers_while_the_event_loop_is_busy(serve: Serve) -> None:
    served, go_on = serve(FakeUpscaler()), threading.Event()
    with monitored(served) as read, ThreadPoolExecutor(1) as pool:
        served.loop.call_soon_threadsafe(go_on.wait, 60)
        try:
            assert pool.submit(read).result(30).value("ganforge_open_calls") == 0
        finally:
            go_on.set()


def test_calls_are_served_while_a_scrape_takes_long(serve: Serve) -> None:
    served, begun, go_on = serve(FakeUpscaler()), threading.Event(), threading.Event()

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            begun.set()
            go_on.wait(60)
            yield from ()

    registry = Metrics(served.service).registry
    registry.register(Slow())
    begun.clear()
    with MetricsPort(registry, "127.0.0.1", 0) as port, ThreadPoolExecutor(1) as pool:
        scraping = pool.submit(scrape, port.url)
        try:
            assert begun.wait(30)
            assert served.client.upscale(png(8, 8)).width == 32
            assert not scraping.done()
        finally:
            go_on.set()
