"""Quotas hold exactly: pixels in flight and per second, two callers apart, and RetryInfo is the time that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import ganforge_pb2 as pb
from runtime.cost import Cost
from runtime.errors import InvalidInput, Overloaded
from server.client import Client
from server.launch import launched
from server.security.access import Access
from server.security.callers import ANYBODY, Caller, Quota
from server.security.quotas import Quotas
from server.security.tokens import Tokens, new_token, table
from tests.clock import Clock
from tests.server.bundles import SIDE, write_generator
from tests.server.conftest import FakeUpscaler, Serve, Served, held, png, until


def refusal(quotas: Quotas, caller: Caller, cost: Cost) -> Overloaded:
    with pytest.raises(Overloaded) as caught, quotas.hold(caller, cost):
        pass
    return caught.value


def spend(quotas: Quotas, caller: Caller, pixels: int) -> None:
    with quotas.hold(caller, Cost(pixels, 0)) as hold:
        hold.spend()


def test_pixels_in_flight_are_counted_to_the_pixel() -> None:
    quotas, caller = Quotas(Clock()), Caller("alice", quota=Quota(max_active_pixels=1000))
    with ExitStack() as open_calls:
        open_calls.enter_context(quotas.hold(caller, Cost(600, 0)))
        with quotas.hold(caller, Cost(400, 0)):
            error = refusal(quotas, caller, Cost(1, 0))
            assert "1000 of 1000 pixels are in use by its open calls" in str(error)
            assert error.reason == "quota"
        refusal(quotas, caller, Cost(401, 0))
        assert quotas.active_px("alice") == 600
    assert quotas.active_px("alice") == 0
    with quotas.hold(caller, Cost(1000, 0)):
        assert quotas.active_px("alice") == 1000


def test_callers_do_not_count_against_each_other_nor_those_without_a_quota() -> None:
    quotas = Quotas(Clock())
    alice, bob = (Caller(name, quota=Quota(max_active_pixels=10)) for name in ("alice", "bob"))
    with (
        quotas.hold(alice, Cost(10, 0)),
        quotas.hold(bob, Cost(10, 0)),
        quotas.hold(ANYBODY, Cost(10**12, 0)),
    ):
        refusal(quotas, alice, Cost(1, 0))
        refusal(quotas, bob, Cost(1, 0))


def test_the_time_to_retry_a_rate_is_exact() -> None:
    clock = Clock()
    quotas, caller = Quotas(clock), Caller("alice", quota=Quota(pixels_per_second=1000, burst_pixels=3000))
    spend(quotas, caller, 3000)
    clock.now_s += 0.25
    error = refusal(quotas, caller, Cost(1600, 0))
    assert error.retry_after_s == pytest.approx(1.35)
    assert (error.reason, "250 are left now" in str(error)) == ("rate", True)
    clock.now_s += 1.348
    assert refusal(quotas, caller, Cost(1600, 0)).retry_after_s == pytest.approx(0.002, abs=1e-3)
    clock.now_s += 0.002
    spend(quotas, caller, 1600)
    clock.now_s += 1000  # a long pause brings no more than the burst
    spend(quotas, caller, 3000)
    refusal(quotas, caller, Cost(1, 0))


def test_the_time_to_retry_is_when_enough_open_calls_are_expected_to_end() -> None:
    clock = Clock()
    quotas, caller = Quotas(clock), Caller("alice", quota=Quota(max_active_pixels=100))
    with (
        quotas.hold(caller, Cost(50, 0, device_s=8)),
        quotas.hold(caller, Cost(30, 0, device_s=2)),
        quotas.hold(caller, Cost(20, 0, device_s=5)),
    ):
        clock.now_s += 1
        waits_s = [refusal(quotas, caller, Cost(pixels, 0)).retry_after_s for pixels in (30, 50, 51)]
        assert waits_s == pytest.approx([1, 4, 7])


def test_a_request_that_never_reaches_the_device_gives_its_pixels_back() -> None:
    quotas, caller = Quotas(Clock()), Caller("alice", quota=Quota(pixels_per_second=1, burst_pixels=100))
    with pytest.raises(Overloaded), quotas.hold(caller, Cost(100, 0)):
        raise Overloaded("the queue is full", retry_after_s=1)
    with suppress(TimeoutError), quotas.hold(caller, Cost(100, 0)) as hold:
        hold.spend()
        raise TimeoutError  # cancelled while it ran
    refusal(quotas, caller, Cost(2, 0))


@pytest.mark.parametrize("quota", [Quota(max_active_pixels=99), Quota(pixels_per_second=9.9)])
def test_a_request_beyond_the_whole_quota_is_told_never(quota: Quota) -> None:
    with pytest.raises(
        InvalidInput, match="count: this request takes 100 pixels of the device, alice may use 99"
    ):
        Quotas(Clock()).hold(Caller("alice", quota=quota), Cost(100, 0, field="count")).__enter__()


# Steps of a random life: (seconds that pass, the caller, pixels, whether an open call ends first).
STEPS = st.lists(
    st.tuples(st.floats(0, 2), st.sampled_from(["alice", "bob"]), st.integers(1, 500), st.booleans()),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_no_window_of_time_holds_more_than_burst_and_rate(
    steps: list[tuple[float, str, int, bool]],
) -> None:
    """And whoever waits as long as told is taken."""
    clock = Clock()
    quotas = Quotas(clock)
    quota = Quota(max_active_pixels=900, pixels_per_second=300, burst_pixels=600)
    callers = {name: Caller(name, quota=quota) for name in ("alice", "bob")}
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in callers}
    open_calls: dict[str, list[tuple[ExitStack, int]]] = {name: [] for name in callers}
    for passes_s, name, pixels, ends in steps:
        clock.now_s += passes_s
        if ends and open_calls[name]:
            open_calls[name].pop(0)[0].close()
        active_px = sum(px for _, px in open_calls[name])
        assert quotas.active_px(name) == active_px
        stack = ExitStack()
        try:
            hold = stack.enter_context(quotas.hold(callers[name], Cost(pixels, 0)))
        except Overloaded as error:
            if active_px + pixels <= 900:  # the rate refused it
                clock.now_s += error.retry_after_s
                hold = stack.enter_context(quotas.hold(callers[name], Cost(pixels, 0)))
            else:
                continue
        hold.spend()
        taken[name].append((clock.now_s, pixels))
        open_calls[name].append((stack, pixels))
    for name, calls in taken.items():
        for first, (start_s, _) in enumerate(calls):
            for last in range(first, len(calls)):
                spent_px = sum(px for _, px in calls[first : last + 1])
                assert spent_px <= 600 + 300 * (calls[last][0] - start_s) + 1, name


# Through a server.

COST_PX = 32 * 32  # of the test's picture: one tile


def write_tokens(file: Path, **settings: str) -> dict[str, str]:
    """A file with a token for each name, with these settings; returns the tokens."""
    tokens = {name: new_token() for name in settings}
    file.write_text("".join(table(name, tokens[name]) + lines + "\n" for name, lines in settings.items()))
    return tokens


@pytest.fixture
def limited(serve: Serve, tmp_path: Path) -> Iterator[tuple[Served, FakeUpscaler, dict[str, str]]]:
    active = {"alice": f"max_active_pixels = {3 * COST_PX}", "bob": f"max_active_pixels = {5 * COST_PX + 7}"}
    tokens = write_tokens(tmp_path / "tokens.toml", **active)
    engine = FakeUpscaler()
    yield serve(engine, access=Access(Tokens(tmp_path / "tokens.toml"))), engine, tokens
    engine.gate.set()


def test_two_clients_hold_exactly_their_quotas_of_pixels_in_flight(
    limited: tuple[Served, FakeUpscaler, dict[str, str]],
) -> None:
    served, engine, tokens = limited
    clients = {
        name: Client(served.address, token=token, retry=False, timeout_s=60) for name, token in tokens.items()
    }

    def upscale(name: str) -> str:
        try:
            clients[name].upscale(png(32, 32))
        except Overloaded:
            return f"{name} refused"
        return f"{name} taken"

    for _ in range(2):  # all of it is given back
        with ThreadPoolExecutor(24) as pool:
            with held(engine):
                before = served.calls("RESOURCE_EXHAUSTED")
                ends = [pool.submit(upscale, name) for name in ("alice", "bob") * 12]
                until(lambda: served.calls("RESOURCE_EXHAUSTED") == before + 9 + 7)  # noqa: B023
                assert sum(end.done() for end in ends) <= 16
            outcomes = sorted(end.result(60) for end in ends)
        expected = {"alice taken": 3, "alice refused": 9, "bob taken": 5, "bob refused": 7}
        assert {outcome: outcomes.count(outcome) for outcome in outcomes} == expected
    for client in clients.values():
        client.close()


def test_a_client_that_goes_away_gives_its_pixels_back(
    limited: tuple[Served, FakeUpscaler, dict[str, str]],
) -> None:
    """Again and again, in every stage: all three calls of the quota are cancelled while one is on the device."""
    served, engine, tokens = limited
    metadata = (("authorization", f"Bearer {tokens['alice']}"),)
    request = pb.UpscaleRequest(image=png(32, 32))
    for _ in range(5):
        with held(engine):
            before = served.calls("CANCELLED")
            calls = [served.stub.Upscale.future(request, metadata=metadata, timeout=60) for _ in range(3)]
            assert engine.entered.wait(20)
            for call in calls:
                call.cancel()
            until(lambda: served.calls("CANCELLED") == before + 3)  # noqa: B023
        answers = [served.stub.Upscale.future(request, metadata=metadata, timeout=60) for _ in range(3)]
        assert [answer.result(60).width for answer in answers] == [128] * 3


def test_two_clients_of_a_process_get_exactly_their_bursts(tmp_path: Path) -> None:
    """With rates so low that nothing comes back during the test. Concurrent calls, of both at once."""
    write_generator(tmp_path / "bundles")
    sample_px = SIDE * SIDE
    tokens = write_tokens(
        tmp_path / "tokens.toml",
        alice=f"pixels_per_second = 0.001\nburst_pixels = {4 * sample_px}",
        bob=f"pixels_per_second = 0.001\nburst_pixels = {7 * sample_px + sample_px - 1}",
    )
    flags = ("--tokens", str(tmp_path / "tokens.toml"))
    with launched(tmp_path / "bundles", log=tmp_path / "log", flags=flags) as server:

        def draw(name: str) -> float:
            with Client(server.address, token=tokens[name], retry=False, timeout_s=60) as client:
                try:
                    client.generate(1)
                except Overloaded as error:
                    return error.retry_after_s
                return 0.0

        with ThreadPoolExecutor(8) as pool:
            names = ["alice", "bob"] * 15
            waits_s = list(zip(names, pool.map(draw, names), strict=True))
    taken = {name: sum(wait_s == 0 for who, wait_s in waits_s if who == name) for name in tokens}
    assert taken == {"alice": 4, "bob": 7}
    refused_s = [wait_s for name, wait_s in waits_s if name == "alice" and wait_s]
    assert all(64_000 - 60 <= wait_s <= 64_000 for wait_s in refused_s)  # 64 pixels at a thousandth a second
