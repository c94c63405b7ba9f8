"""Admission control: exact limits, lanes, and deadlines that cannot be met."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from runtime.cost import Cost
from runtime.errors import DeadlineExceeded, InvalidInput, Overloaded
from runtime.jobs import Flow
from runtime.lane import Ticket
from runtime.shares import Account
from tests.runtime.admitting import (
    LARGE_LANE,
    MAX_BYTES,
    QUEUE_PX,
    SMALL,
    SMALL_LANE,
    TINY,
    TINY_LANE,
    door,
    enter,
    fill,
    in_work,
    waiting_px,
)


def test_a_request_enters_at_once_where_there_is_room() -> None:
    ticket = enter(door(), cost_px=10, cost_bytes=10)
    assert ticket.admitted.result(0) is None


@pytest.mark.parametrize(
    ("bytes_each", "room"), [(5, TINY_LANE), (SMALL, SMALL_LANE), (300, LARGE_LANE), (LARGE_LANE, LARGE_LANE)]
)
def test_a_lane_holds_exactly_its_memory(bytes_each: int, room: int) -> None:
    admission = door()
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


def test_a_thumbnail_does_not_wait_behind_small_requests_with_large_answers() -> None:
    admission = door()
    for _ in range(9):  # 3 of them run
        enter(admission, cost_px=80, cost_bytes=SMALL)
    assert not in_work(enter(admission, cost_px=1, cost_bytes=TINY + 1))
    assert in_work(enter(admission, cost_px=1, cost_bytes=TINY))


def test_a_lanes_room_is_exact_also_where_floats_are_not() -> None:
    lanes = door(max_disk_bytes=2**63 + 16).stats().lanes
    assert lanes["large"].max_disk_bytes == (2**63 + 16) // 4 * 3


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
    last = enter(admission, cost_px=1, cost_bytes=1)  # the limit is of all lanes together
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
