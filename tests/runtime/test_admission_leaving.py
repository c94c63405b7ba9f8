"""Admission control: places are always freed, however a request ends."""

from __future__ import annotations

import random
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from runtime.errors import Overloaded
from runtime.lane import Ticket
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
    in_work,
    waiting_px,
)


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
        for above, most, room in (
            (0, TINY, TINY_LANE),
            (TINY, SMALL, SMALL_LANE),
            (SMALL, MAX_BYTES, LARGE_LANE),
        ):
            lane = [ticket for ticket in self.present if above < ticket.cost.memory_bytes <= most]
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
    assert in_work(enter(admission, cost_px=1, cost_bytes=TINY))
    assert waiting_px(admission) == 0
