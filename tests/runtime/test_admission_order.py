"""Admission control: who is next. Small requests first, but nobody is overtaken for ever."""

from __future__ import annotations

import pytest

from runtime.cost import Cost
from runtime.jobs import Flow
from runtime.shares import Account
from tests.runtime.admitting import (
    LARGE_LANE,
    QUEUE_PX,
    door,
    enter,
    in_work,
    waiting_px,
)


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
