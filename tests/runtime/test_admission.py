"""Admission control: exact limits, lanes, order, and places that are always freed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from runtime.admission import Admission
from runtime.cost import Cost
from runtime.errors import DeadlineExceeded, InvalidInput, Overloaded
from runtime.jobs import Flow
from runtime.lane import Ticket
from runtime.shares import Account

# Of 1600 bytes a quarter is the small lane's, and a request of up to 100 bytes is small.
MAX_BYTES, SMALL_LANE, LARGE_LANE, SMALL = 1600, 400, 1200, 100
QUEUE_PX = 1000


def door(**options: Any) -> Admission:
    return Admission(**{"max_active_bytes": MAX_BYTES, "max_queue_px": QUEUE_PX, **options})


def enter(
    admission: Admission,
    *,
    cost_px: int,
    cost_bytes: int,
    disk_bytes: int = 0,
    estimate_s: float = 0.0,
    time_left_s: float | None = None,
) -> Ticket:
    return admission.enter(Cost(cost_px, cost_bytes, disk_bytes, estimate_s), time_left_s=time_left_s)


def in_work(ticket: Ticket) -> bool:
    return ticket.admitted.done() and not ticket.admitted.cancelled()


def waiting_px(admission: Admission) -> int:
    return admission.stats().waiting_px


def fill(admission: Admission) -> list[Ticket]:
    """Both lanes full."""
    large = [enter(admission, cost_px=1, cost_bytes=600) for _ in range(2)]
    small = [enter(admission, cost_px=1, cost_bytes=SMALL) for _ in range(4)]
    assert all(in_work(ticket) for ticket in (*large, *small))
    return [*large, *small]


def test_a_request_enters_at_once_where_there_is_room() -> None:
    ticket = enter(door(), cost_px=10, cost_bytes=10)
    assert ticket.admitted.result(0) is None


@pytest.mark.parametrize("bytes_each", [SMALL, 300, LARGE_LANE])
def test_a_lane_holds_exactly_its_memory(bytes_each: int) -> None:
    admission = door()
    room = SMALL_LANE if bytes_each <= SMALL else LARGE_LANE
    for _ in range(room // bytes_each):
        assert in_work(enter(admission, cost_px=1, cost_bytes=bytes_each))
    assert not in_work(enter(admission, cost_px=1, cost_bytes=bytes_each))


def test_one_byte_too_many_waits() -> None:
    admission = door()
    assert in_work(enter(admission, cost_px=1, cost_bytes=LARGE_LANE - 101))
    waiting = enter(admission, cost_px=1, cost_bytes=102)
    assert not in_work(waiting)
    waiting.leave()
    assert in_work(enter(admission, cost_px=1, cost_bytes=101))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_request_larger_than_the_budget_is_refused_and_one_as_large_is_not(kind: str) -> None:
    admission = door(max_disk_bytes=MAX_BYTES)

    def wants(size: int) -> Ticket:
        cost = (
            Cost(5, size, field="outscale")
            if kind == "memory"
            else Cost(5, 1, disk_bytes=size, field="outscale")
        )
        return admission.enter(cost)

    with pytest.raises(
        InvalidInput, match=rf"{LARGE_LANE + 1} bytes.*{LARGE_LANE} .75% of --max-"
    ) as refused:
        wants(LARGE_LANE + 1)
    assert refused.value.field == "outscale"
    assert admission.stats().refusals == {kind: 1}
    huge = wants(LARGE_LANE)
    assert in_work(huge)
    following = wants(101)
    assert not in_work(following)
    huge.leave()
    assert in_work(following)


def test_an_answer_that_is_being_sent_holds_only_its_own_bytes() -> None:
    admission = door()
    sending, following = (enter(admission, cost_px=5, cost_bytes=LARGE_LANE) for _ in range(2))
    sending.hold_only(memory_bytes=1, disk_bytes=0)
    assert not in_work(following)
    assert admission.stats().working_bytes == 1
    sending.hold_only(memory_bytes=LARGE_LANE, disk_bytes=0)  # it can only become less
    assert admission.stats().working_bytes == 1
    sending.hold_only(memory_bytes=0, disk_bytes=0)
    assert in_work(following)
    sending.leave()
    assert admission.stats().working_bytes == LARGE_LANE


def test_stats_say_what_each_lane_holds() -> None:
    admission = door(max_disk_bytes=16)
    enter(admission, cost_px=3, cost_bytes=SMALL, disk_bytes=1)
    enter(admission, cost_px=4, cost_bytes=SMALL, disk_bytes=2)  # not small: its file is larger
    enter(admission, cost_px=5, cost_bytes=LARGE_LANE, estimate_s=1.5)
    stats = admission.stats()
    small, large = stats.lanes["small"], stats.lanes["large"]
    assert (small.working, small.working_px, small.working_bytes, small.working_disk_bytes) == (
        1,
        3,
        SMALL,
        1,
    )
    assert (large.working, large.working_disk_bytes, large.waiting, large.waiting_px) == (1, 2, 1, 5)
    assert large.waiting_s == 1.5
    assert (large.max_bytes, small.max_bytes) == (LARGE_LANE, SMALL_LANE)


def test_a_small_request_does_not_wait_behind_large_ones() -> None:
    admission = door()
    enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    enter(admission, cost_px=900, cost_bytes=900)
    assert in_work(enter(admission, cost_px=1, cost_bytes=SMALL))
    assert not in_work(enter(admission, cost_px=1, cost_bytes=SMALL + 1))


def test_small_requests_do_not_keep_large_ones_out() -> None:
    admission = door()
    for _ in range(5):
        enter(admission, cost_px=1, cost_bytes=SMALL)
    assert in_work(enter(admission, cost_px=1, cost_bytes=LARGE_LANE))


# The queue's limit.


def test_the_queue_holds_exactly_its_pixels() -> None:
    admission = door()
    fill(admission)
    enter(admission, cost_px=QUEUE_PX - 1, cost_bytes=500)
    with pytest.raises(Overloaded):
        enter(admission, cost_px=2, cost_bytes=500)
    last = enter(admission, cost_px=1, cost_bytes=1)  # the limit is of both lanes together
    assert waiting_px(admission) == QUEUE_PX
    with pytest.raises(Overloaded) as refused:
        enter(admission, cost_px=1, cost_bytes=1)
    assert refused.value.retry_after_s > 0
    assert "1000 of 1000" in str(refused.value)
    last.leave()
    assert waiting_px(admission) == QUEUE_PX - 1
    assert not in_work(enter(admission, cost_px=1, cost_bytes=500))


def test_a_full_queue_says_when_to_retry() -> None:
    """When the running request will have had the seconds that it still needs."""
    admission = door()
    running = enter(admission, cost_px=100, cost_bytes=LARGE_LANE, estimate_s=60.0)
    enter(admission, cost_px=QUEUE_PX, cost_bytes=500, estimate_s=0.5)
    for served_px, seconds in ((0, 60.0), (75, 15.0), (100, 0.1)):
        running.flow.served_px = served_px
        with pytest.raises(Overloaded, match=f"try again in {seconds} s") as refused:
            enter(admission, cost_px=1, cost_bytes=500, estimate_s=3.0)
        assert refused.value.retry_after_s == pytest.approx(seconds)


def test_a_refused_request_leaves_no_trace() -> None:
    admission = door()
    tickets = fill(admission)
    for _ in range(3):
        with pytest.raises(Overloaded):
            enter(admission, cost_px=QUEUE_PX + 1, cost_bytes=500)
        with pytest.raises(DeadlineExceeded):
            enter(admission, cost_px=1, cost_bytes=500, estimate_s=2.0, time_left_s=1.0)
    assert waiting_px(admission) == 0
    for ticket in tickets:
        ticket.leave()
    assert in_work(enter(admission, cost_px=1, cost_bytes=LARGE_LANE))


def test_a_request_larger_than_the_queue_is_served_where_there_is_room() -> None:
    assert in_work(enter(door(), cost_px=10 * QUEUE_PX, cost_bytes=500))


def test_the_queue_stays_within_its_limit_when_many_threads_enter_at_once() -> None:
    admission = door()
    fill(admission)
    waiting: list[Ticket] = []
    start = threading.Barrier(8)

    def knock() -> None:
        start.wait()
        for _ in range(50):
            with suppress(Overloaded):
                waiting.append(enter(admission, cost_px=7, cost_bytes=500))

    threads = [threading.Thread(target=knock) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waiting) == QUEUE_PX // 7
    assert waiting_px(admission) == 7 * (QUEUE_PX // 7)


# Deadlines.


def test_a_deadline_that_even_an_idle_server_cannot_meet_is_refused_with_the_time_that_would_do() -> None:
    admission = door()
    with pytest.raises(DeadlineExceeded, match=r"about 2\.00 s even if nothing else ran"):
        enter(admission, cost_px=1, cost_bytes=500, estimate_s=2.0, time_left_s=1.9)
    assert admission.stats().refusals == {"late": 1}
    assert in_work(enter(admission, cost_px=1, cost_bytes=500, estimate_s=2.0, time_left_s=2.0))


def test_the_estimate_counts_another_request_with_at_most_the_own_time() -> None:
    admission = door()
    enter(admission, cost_px=1, cost_bytes=500, estimate_s=60.0)
    enter(admission, cost_px=1, cost_bytes=500, estimate_s=0.25)
    needed_s = 1.0 + 1.0 + 0.25
    with pytest.raises(Overloaded, match=r"about 2\.25 s, the deadline is in 2\.10 s") as refused:
        enter(admission, cost_px=1, cost_bytes=10, estimate_s=1.0, time_left_s=needed_s - 0.15)
    # The other two share the device: the shorter one is 0.15 s further when 0.3 s have passed.
    assert refused.value.retry_after_s == pytest.approx(0.3, rel=0.2)
    assert admission.stats().refusals == {"deadline": 1}
    ticket = enter(admission, cost_px=1, cost_bytes=10, estimate_s=1.0, time_left_s=needed_s)
    assert in_work(ticket)
    assert ticket.expected_s == pytest.approx(needed_s)


def test_a_request_that_must_wait_for_memory_is_expected_after_the_one_that_has_it() -> None:
    admission = door()
    enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=60.0)
    with pytest.raises(Overloaded):
        enter(admission, cost_px=1, cost_bytes=500, estimate_s=1.0, time_left_s=60.9)
    assert enter(admission, cost_px=1, cost_bytes=500, estimate_s=1.0).expected_s == pytest.approx(61.0)


def test_a_batch_request_delays_an_interactive_one_by_an_eighth() -> None:
    admission = door()
    admission.enter(Cost(1, 10, device_s=60.0), flow=Flow(Account("", "batch")))
    assert enter(admission, cost_px=1, cost_bytes=10, estimate_s=8.0).expected_s == pytest.approx(9.0)


def test_device_and_codec_threads_are_shared_apart() -> None:
    admission = door()
    admission.enter(Cost(1, 10, device_s=4.0))
    admission.enter(Cost(1, 10, codec_s=4.0))
    ticket = admission.enter(Cost(1, 10, device_s=1.0, codec_s=0.5, latency_s=0.5))
    assert ticket.expected_s == pytest.approx(2 * 1.0 + 0.5)


def test_the_queue_holds_seconds_of_work_or_one_longer_request() -> None:
    admission = door(max_queue_s=60.0)
    enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=10.0)
    long = enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=600.0)
    with pytest.raises(
        Overloaded, match=r"600\.0 of 60 s of work \(--max-queue-s\).*needs 1\.0 s"
    ) as refused:
        enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=1.0)
    assert refused.value.retry_after_s == pytest.approx(10.0)
    long.leave()
    assert admission.stats().waiting_s == 0
    enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=59.0)
    enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=1.0)
    with pytest.raises(Overloaded, match=r"60\.0 of 60 s"):
        enter(admission, cost_px=1, cost_bytes=LARGE_LANE, estimate_s=0.1)
    assert admission.stats().waiting_s == 60.0


def test_without_a_deadline_or_an_estimate_no_request_is_refused() -> None:
    admission = door()
    enter(admission, cost_px=1, cost_bytes=500, estimate_s=1e9)
    assert in_work(enter(admission, cost_px=1, cost_bytes=500, estimate_s=1e9))
    assert in_work(enter(admission, cost_px=1, cost_bytes=10, time_left_s=0.001))


# Order.


def test_requests_of_one_size_enter_in_the_order_they_came() -> None:
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    waiting = [enter(admission, cost_px=10, cost_bytes=LARGE_LANE) for _ in range(20)]
    for ticket in waiting:
        holding.leave()
        assert [in_work(other) for other in waiting] == [
            waiting.index(other) <= waiting.index(ticket) for other in waiting
        ]
        holding = ticket


def test_a_smaller_request_overtakes_a_larger_one_that_waits() -> None:
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    large = enter(admission, cost_px=100, cost_bytes=LARGE_LANE)
    smaller = enter(admission, cost_px=10, cost_bytes=LARGE_LANE)
    holding.leave()
    assert in_work(smaller)
    assert not in_work(large)


def test_a_smaller_request_that_fits_does_not_wait_for_somebody_to_leave() -> None:
    admission = door()
    enter(admission, cost_px=1, cost_bytes=800)
    large = enter(admission, cost_px=100, cost_bytes=800)
    assert in_work(enter(admission, cost_px=10, cost_bytes=400))
    assert not in_work(large)


@pytest.mark.parametrize("cost_px", [50, 200, 1000])
def test_smaller_requests_overtake_by_at_most_the_cost_of_the_overtaken(cost_px: int) -> None:
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    large = enter(admission, cost_px=cost_px, cost_bytes=LARGE_LANE)
    overtaken_px = 0
    small_px = 7
    following = None
    while not in_work(large):
        if waiting_px(admission) + small_px <= QUEUE_PX:
            following = enter(admission, cost_px=small_px, cost_bytes=LARGE_LANE)
        holding.leave()
        if following is not None and in_work(following):
            overtaken_px += small_px
            holding = following
        assert overtaken_px <= cost_px


def test_requests_admitted_past_a_waiting_one_overtake_by_at_most_its_cost() -> None:
    """They fit and it does not; each enters at once, and still its turn comes."""
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=800)
    large = enter(admission, cost_px=100, cost_bytes=800)
    overtaken_px = 0
    while in_work(ticket := enter(admission, cost_px=10, cost_bytes=400)):
        overtaken_px += 10
        assert overtaken_px <= 100
        ticket.leave()
    assert overtaken_px == 90
    holding.leave()
    assert in_work(large)


def test_a_flood_of_one_client_does_not_keep_another_waiting() -> None:
    admission = door(max_queue_px=10**6)
    flood = [admission.enter(Cost(10, LARGE_LANE // 2), flow=Flow(Account("flood"))) for _ in range(500)]
    other = admission.enter(Cost(10, LARGE_LANE // 2), flow=Flow(Account("other")))
    running = [ticket for ticket in flood if in_work(ticket)]
    assert len(running) == 2
    for ticket in running:
        ticket.leave()
    assert in_work(other)


def test_batch_requests_wait_longer_and_are_admitted_all_the_same() -> None:
    admission = door(max_queue_px=10**6)
    holding = enter(admission, cost_px=10, cost_bytes=LARGE_LANE)
    waiting = [
        admission.enter(Cost(10, LARGE_LANE), flow=Flow(Account("", priority)))
        for priority in ("batch", "interactive")
        for _ in range(45)
    ]
    order = []
    for _ in waiting:
        holding.leave()
        (holding,) = [ticket for ticket in waiting if in_work(ticket) and not ticket.left]
        order.append(holding.flow.account.priority)
    assert order[:36].count("batch") == 4
    assert order.count("batch") == 45


# Leaving.


def test_leaving_twice_gives_back_one_place() -> None:
    admission = door()
    first = enter(admission, cost_px=1, cost_bytes=600)
    enter(admission, cost_px=1, cost_bytes=600)
    waiting = [enter(admission, cost_px=1, cost_bytes=600) for _ in range(2)]
    first.leave()
    first.leave()
    assert [in_work(ticket) for ticket in waiting] == [True, False]


def test_a_waiting_ticket_that_leaves_is_cancelled_and_never_admitted() -> None:
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    gone, patient = (enter(admission, cost_px=5, cost_bytes=LARGE_LANE) for _ in range(2))
    gone.leave()
    gone.leave()
    with pytest.raises(CancelledError):
        gone.admitted.result(0)
    assert waiting_px(admission) == 5
    holding.leave()
    assert in_work(patient)
    patient.leave()
    assert in_work(enter(admission, cost_px=1, cost_bytes=LARGE_LANE))


def test_when_a_waiting_large_request_leaves_those_behind_it_enter() -> None:
    admission = door()
    enter(admission, cost_px=1, cost_bytes=600)
    large = enter(admission, cost_px=5, cost_bytes=LARGE_LANE)
    behind = enter(admission, cost_px=5, cost_bytes=600)
    assert not in_work(behind)
    large.leave()
    assert in_work(behind)


def test_a_future_cancelled_while_waiting_holds_its_place_until_it_leaves() -> None:
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    gone, patient = (enter(admission, cost_px=5, cost_bytes=LARGE_LANE) for _ in range(2))
    assert gone.admitted.cancel()
    holding.leave()
    assert not in_work(patient)
    gone.leave()
    assert in_work(patient)


def test_a_callback_of_a_ticket_may_enter_and_leave() -> None:
    """`admitted` ends outside the lock: a callback that leaves or enters does not lock up."""
    admission = door()
    holding = enter(admission, cost_px=1, cost_bytes=LARGE_LANE)
    waiting = [enter(admission, cost_px=5, cost_bytes=LARGE_LANE) for _ in range(3)]
    for ticket in waiting:
        ticket.admitted.add_done_callback(lambda done, ticket=ticket: ticket.leave())  # type: ignore[misc]
    holding.leave()
    assert all(in_work(ticket) for ticket in waiting)
    assert in_work(enter(admission, cost_px=1, cost_bytes=LARGE_LANE))


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes and goes in whatever order: the limits hold, and the door is never shut for nothing."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.admission = door()
        self.present: list[Ticket] = []

    @rule(target=tickets, cost_px=st.integers(1, 400), cost_bytes=st.integers(1, LARGE_LANE))
    def enter(self, cost_px: int, cost_bytes: int) -> Any:
        before = self.waiting_px()
        try:
            ticket = enter(self.admission, cost_px=cost_px, cost_bytes=cost_bytes)
        except Overloaded:
            assert before + cost_px > QUEUE_PX
            return None
        self.present.append(ticket)
        return ticket

    @rule(ticket=consumes(tickets), twice=st.booleans(), cancelled=st.booleans())
    def leave(self, ticket: Ticket | None, twice: bool, cancelled: bool) -> None:
        if ticket is None:
            return
        if cancelled:
            ticket.admitted.cancel()
        ticket.leave()
        if twice:
            ticket.leave()
        self.present.remove(ticket)

    def waiting_px(self) -> int:
        return sum(ticket.cost.pixels for ticket in self.present if not in_work(ticket))

    @invariant()
    def limits_hold(self) -> None:
        assert self.waiting_px() <= QUEUE_PX
        for small, room in ((True, SMALL_LANE), (False, LARGE_LANE)):
            lane = [ticket for ticket in self.present if (ticket.cost.memory_bytes <= SMALL) == small]
            used = [ticket.cost.memory_bytes for ticket in lane if in_work(ticket)]
            assert sum(used) <= room
            if len(used) < len(lane):
                assert used, "a request waits though its lane is empty"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=25)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=5)
def test_all_places_are_free_after_many_threads_entered_and_left(seed: int) -> None:
    admission = door()
    errors: list[BaseException] = []

    def visitor(number: int) -> None:
        dice = random.Random(seed * 31 + number)
        try:
            for _ in range(40):
                try:
                    ticket = enter(
                        admission, cost_px=dice.randint(1, 200), cost_bytes=dice.randint(1, LARGE_LANE)
                    )
                except Overloaded:
                    continue
                fate = dice.random()
                if fate < 0.3:
                    ticket.admitted.cancel()
                elif fate < 0.6 and not ticket.admitted.cancelled():
                    ticket.admitted.result(30)
                ticket.leave()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=visitor, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert in_work(enter(admission, cost_px=1, cost_bytes=LARGE_LANE))
    assert in_work(enter(admission, cost_px=1, cost_bytes=SMALL))
    assert waiting_px(admission) == 0
