"""What a refusal promises: after `retry_after_s`, if nothing else arrives, the request is taken, and not noticeably before.

The device and the codec threads are simulated here in small steps, with none of the code that makes the promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime.admission import SHORTEST_RETRY_S, Admission
from runtime.cost import Cost
from runtime.errors import DeadlineExceeded, Overloaded
from runtime.forecast import Forecast, answered_s
from runtime.jobs import Flow
from runtime.lane import Lane, Ticket
from runtime.shares import Account

MAX_BYTES = 1600
STEP_S = 0.005
PIXELS = 10_000  # of each request: fine enough for its progress


@dataclass
class World:
    """A server that works as fast as was estimated: all running requests share the device by weight."""

    max_queue_s: float
    present: list[Ticket] = field(default_factory=list)
    left_s: dict[Ticket, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission = Admission(
            max_active_bytes=MAX_BYTES, max_queue_px=2**60, max_queue_s=self.max_queue_s
        )

    def enter(self, request: Request, time_left_s: float | None = None) -> Ticket:
        cost = Cost(PIXELS, request.memory_bytes, device_s=request.seconds)
        flow = Flow(Account("", "batch" if request.batch else "interactive"))
        ticket = self.admission.enter(cost, flow=flow, time_left_s=time_left_s)
        self.present.append(ticket)
        self.left_s[ticket] = request.seconds
        return ticket

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            running = [ticket for ticket in self.present if ticket.admitted.done()]
            weights = [1 if ticket.flow.account.priority == "batch" else 8 for ticket in running]
            for ticket, weight in zip(running, weights, strict=True):
                self.left_s[ticket] -= STEP_S * weight / sum(weights)
                done = 1 - max(0.0, self.left_s[ticket]) / ticket.cost.device_s
                ticket.flow.served_px = int(done * PIXELS)
                if self.left_s[ticket] <= 0:
                    ticket.leave()
                    self.present.remove(ticket)


@dataclass(frozen=True)
class Request:
    memory_bytes: int
    seconds: float
    batch: bool


requests = st.builds(
    Request,
    memory_bytes=st.integers(1, 1200),
    seconds=st.floats(0.2, 2.0),
    batch=st.booleans(),
)


def world_with(crowd: Sequence[Request], max_queue_s: float) -> World:
    world = World(max_queue_s)
    for request in crowd:
        try:
            world.enter(request)
        except Overloaded:
            continue
    return world


def check_promise(
    crowd: Sequence[Request], late: Request, max_queue_s: float, time_left_s: float | None
) -> None:
    world = world_with(crowd, max_queue_s)
    try:
        world.enter(late, time_left_s)
        assume(False)
    except DeadlineExceeded:
        assume(False)
    except Overloaded as refusal:
        retry_after_s = refusal.retry_after_s
    # The steps are coarse, and the promise is kept to a thousandth of the time until all others are done.
    slack_s = 20 * STEP_S + 0.01 * retry_after_s + 0.002 * sum(request.seconds for request in crowd)
    if retry_after_s > SHORTEST_RETRY_S and retry_after_s > 2 * slack_s:
        early = world_with(crowd, max_queue_s)
        early.run(retry_after_s - slack_s)
        with pytest.raises(Overloaded):
            early.enter(late, time_left_s)
    world.run(retry_after_s + slack_s)
    world.enter(late, time_left_s)


@given(st.lists(requests, min_size=3, max_size=12), requests, st.floats(0.5, 4.0))
@settings(max_examples=40, deadline=None)
def test_a_request_that_found_the_queue_full_is_taken_after_that_time_and_not_before(
    crowd: list[Request], late: Request, max_queue_s: float
) -> None:
    check_promise(crowd, late, max_queue_s, None)


# They all have room: where requests wait for memory, a later arrival may get another place among them, and thus be answered
# a little later or earlier.
fitting = st.builds(Request, memory_bytes=st.just(1), seconds=st.floats(0.2, 2.0), batch=st.booleans())


@given(st.lists(fitting, min_size=1, max_size=8), fitting, st.floats(1.05, 3.0))
@settings(max_examples=40, deadline=None)
def test_a_request_with_a_deadline_is_taken_after_that_time_and_not_before(
    crowd: list[Request], late: Request, factor: float
) -> None:
    check_promise(crowd, late, float("inf"), factor * late.seconds)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.booleans()), max_size=10),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_the_short_way_to_an_estimate_says_the_same_as_playing_the_future(
    crowd: list[tuple[float, float, bool]], device_s: float, codec_s: float
) -> None:
    lane = Lane(MAX_BYTES, MAX_BYTES)
    door = Admission(max_active_bytes=1, max_queue_px=1)
    for others_device_s, others_codec_s, batch in crowd:
        account = Account("", "batch" if batch else "interactive")
        cost = Cost(PIXELS, 1, device_s=others_device_s, codec_s=others_codec_s)
        lane.add(Ticket(cost, Flow(account), door))
        lane.let_in()
    ticket = Ticket(Cost(PIXELS, 1, device_s=device_s, codec_s=codec_s, latency_s=0.5), Flow(), door)
    assert answered_s([lane], 0, ticket) == pytest.approx(Forecast([lane]).answered_s(ticket, 0), abs=1e-6)
