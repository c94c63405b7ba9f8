"""Admission control: decides which requests start now, which wait in the queue and which are refused.

server/core/shared.py calls `Admission.enter` for each request before it decodes any pixel. It gets a Ticket, whose future
completes when the request may start, or the request is refused. The limits hold exactly: memory and disk of the running
requests, pixels and estimated seconds of the waiting ones. Requests of different sizes have lanes of their own
(runtime/lane.py), so a thumbnail never waits behind photographs, nor a photograph behind posters. A request that needs
more than the whole budget is refused for good; one that is refused for now is told after what time it would be taken
(runtime/forecast.py).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runtime.cost import Cost
from runtime.errors import DeadlineExceeded, InvalidInput, Overloaded
from runtime.forecast import Forecast, answered_s, earliest_s
from runtime.jobs import Flow
from runtime.lane import Lane, LaneStats, Ticket

SHORTEST_RETRY_S = 0.1


class LaneRule(NamedTuple):
    """A lane. share: its part of the whole budget. largest_share: the part that one of its requests may need."""

    name: str
    share: float
    largest_share: float


# By size: a request goes to the first lane whose requests may be as large.
LANES = (
    LaneRule("tiny", 1 / 16, 1 / 256),
    LaneRule("small", 3 / 16, 1 / 16),
    LaneRule("large", 3 / 4, 3 / 4),
)
# The most that one request may need.
LARGEST_SHARE = LANES[-1].largest_share


@dataclass(frozen=True)
class AdmissionStats:
    """What admission holds now, by lane ("tiny", "small", "large"), and how many requests it refused so far, by reason.

    refusals: keys "memory", "disk" (more than the whole budget: InvalidInput), "late" (the deadline is too early even for
    an idle server: DeadlineExceeded), "queue" and "deadline" (Overloaded).
    """

    lanes: Mapping[str, LaneStats]
    refusals: Mapping[str, int]

    @property
    def waiting_px(self) -> int:
        """Pixels of all waiting requests; --max-queue-pixels limits them."""
        return sum(lane.waiting_px for lane in self.lanes.values())

    @property
    def waiting_s(self) -> float:
        """Estimated seconds of all waiting requests; --max-queue-s limits them."""
        return sum(lane.waiting_s for lane in self.lanes.values())

    @property
    def working_bytes(self) -> int:
        """Memory of all running requests; --max-active-bytes limits it."""
        return sum(lane.working_bytes for lane in self.lanes.values())


@dataclass(frozen=True)
class QueueLimits:
    """Limits on the waiting requests together. max_s: one request alone may need more."""

    max_px: int
    max_s: float

    def problem(self, lanes: Sequence[Lane], cost: Cost) -> str | None:
        """What is wrong with a queue whose latest request has this cost; None if it is within the limits."""
        pixels, seconds = sum(lane.waiting_px for lane in lanes), sum(lane.waiting_s for lane in lanes)
        if pixels > self.max_px:
            return (
                f"the queue holds {pixels - cost.pixels} of {self.max_px} pixels (--max-queue-pixels), "
                f"this request needs {cost.pixels}"
            )
        if seconds > self.max_s and sum(len(lane.waiting) for lane in lanes) > 1:
            return (
                f"the queue holds {seconds - cost.work_s:.1f} of {self.max_s:g} s of work (--max-queue-s), "
                f"this request needs {cost.work_s:.1f} s"
            )
        return None


class Admission:
    """Admission control of one server. Thread-safe.

    max_active_bytes, max_disk_bytes: limits on the memory and on the temporary files of the running requests.
    max_queue_px, max_queue_s: limits on the pixels and the estimated seconds of the waiting ones.
    """

    def __init__(
        self,
        *,
        max_active_bytes: int,
        max_queue_px: int,
        max_disk_bytes: int = 2**63,
        max_queue_s: float = float("inf"),
    ) -> None:
        self._lock = threading.Lock()
        self._queue_limits = QueueLimits(max_queue_px, max_queue_s)
        self._max_bytes, self._max_disk_bytes = max_active_bytes, max_disk_bytes
        self._lanes = tuple(
            Lane(_part(rule.share, max_active_bytes), _part(rule.share, max_disk_bytes)) for rule in LANES
        )
        self._refusals = Counter[str]()

    def enter(self, cost: Cost, *, flow: Flow | None = None, time_left_s: float | None = None) -> Ticket:
        """Admit a request at once if there is room, else queue it. Does not block; wait for the ticket's `admitted`.

        flow: of its jobs; None for a new one. time_left_s: until the caller's deadline; None if there is none.
        Raises InvalidInput if the request needs more than the whole budget, DeadlineExceeded if the deadline could not be
        met even by an idle server, and Overloaded if it cannot be met now or if the queue is full.
        """
        with self._lock:
            self._check_budget(cost)
            ticket, let_in = self._place(cost, flow or Flow(), time_left_s)
        _admit(let_in)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Free a ticket's place and admit the waiting requests that now fit."""
        with self._lock:
            if ticket.left:
                return
            ticket.left = True
            lane = self._lane(ticket.cost)
            lane.remove(ticket)
            let_in = lane.let_in()
        _admit(let_in)
        ticket.admitted.cancel()

    def hold_only(self, ticket: Ticket, memory_bytes: int, disk_bytes: int) -> None:
        """Reduce what a running request holds, and admit the waiting requests that now fit. It can only become less."""
        with self._lock:
            if ticket.left:
                return
            ticket.sending = True
            lane = self._lane(ticket.cost)
            lane.reduce(ticket, memory_bytes, disk_bytes)
            let_in = lane.let_in()
        _admit(let_in)

    def in_the_way(self) -> list[Ticket]:
        """The requests that only have to send their answers, and hold disk for which others wait."""
        with self._lock:
            return [ticket for lane in self._lanes for ticket in lane.in_the_way()]

    def stats(self) -> AdmissionStats:
        """What is waiting and running now, and the refusals so far."""
        with self._lock:
            lanes = {rule.name: lane.stats() for rule, lane in zip(LANES, self._lanes, strict=True)}
            return AdmissionStats(lanes, dict(self._refusals))

    def _place(self, cost: Cost, flow: Flow, time_left_s: float | None) -> tuple[Ticket, list[Ticket]]:
        """A place in the queue, and the tickets that now run: this one if it is next and fits. Raises as `enter`."""
        index = self._index(cost)
        lane = self._lanes[index]
        ticket = Ticket(cost, flow, self)
        ticket.expected_s = answered_s(self._lanes, index, ticket)
        if time_left_s is not None and ticket.expected_s > time_left_s:
            raise self._late(cost, flow, ticket.expected_s, time_left_s)
        lane.add(ticket)
        let_in = lane.let_in()  # at most the new one: the others did not fit before
        problem = None if let_in else self._queue_limits.problem(self._lanes, cost)
        if problem is not None:
            lane.remove(ticket)
            raise self._overloaded("queue", problem, self._taken_after_s(cost, flow))
        return ticket, let_in

    def _index(self, cost: Cost) -> int:
        for index, rule in enumerate(LANES):
            most_bytes = rule.largest_share * self._max_bytes
            if (
                cost.memory_bytes <= most_bytes
                and cost.disk_bytes <= rule.largest_share * self._max_disk_bytes
            ):
                return index
        return len(LANES) - 1

    def _lane(self, cost: Cost) -> Lane:
        return self._lanes[self._index(cost)]

    def _check_budget(self, cost: Cost) -> None:
        """Raises InvalidInput if a request needs more than any request may have."""
        most = self._lanes[-1]
        for reason, needed, limit, flag in (
            ("memory", cost.memory_bytes, most.max_bytes, "--max-active-bytes"),
            ("disk", cost.disk_bytes, most.max_disk_bytes, "--max-disk-bytes"),
        ):
            if needed > limit:
                self._refusals[reason] += 1
                raise InvalidInput(
                    cost.field,
                    f"the request needs up to {needed} bytes of {reason}, one request may have {limit} "
                    f"({LARGEST_SHARE:.0%} of {flag}); ask for a smaller answer or send a smaller image",
                )

    def _late(
        self, cost: Cost, flow: Flow, expected_s: float, time_left_s: float
    ) -> Overloaded | DeadlineExceeded:
        """The refusal of a request that cannot meet its deadline."""
        deadline = f"the deadline is in {time_left_s:.2f} s"
        if cost.alone_s > time_left_s:
            self._refusals["late"] += 1
            return DeadlineExceeded(
                f"the answer would take about {cost.alone_s:.2f} s even if nothing else ran, {deadline}; allow more "
                "time, or send a smaller image"
            )
        index = self._index(cost)
        retry_after_s = earliest_s(self._lanes, index, Ticket(cost, flow, self), time_left_s)
        problem = f"the answer would take about {expected_s:.2f} s, {deadline}; allow more time"
        return self._overloaded("deadline", problem, retry_after_s)

    def _taken_after_s(self, cost: Cost, flow: Flow) -> float:
        """Seconds after which a request would be queued or admitted, if nothing else arrives."""
        index = self._index(cost)
        forecast = Forecast(self._lanes)

        def taken() -> bool:
            lane, ticket = forecast.lanes[index], Ticket(cost, flow, self)
            lane.add(ticket)
            if lane.let_in():
                return True
            problem = self._queue_limits.problem(forecast.lanes, cost)
            lane.remove(ticket)
            return problem is None

        forecast.until(taken)
        return forecast.now_s

    def _overloaded(self, reason: str, problem: str, retry_after_s: float) -> Overloaded:
        self._refusals[reason] += 1
        retry_after_s = max(retry_after_s, SHORTEST_RETRY_S)
        message = f"{problem}; try again in {retry_after_s:.1f} s"
        return Overloaded(message, retry_after_s=retry_after_s, reason=reason)


def _part(share: float, most: int) -> int:
    """A share of a limit; exact also for limits beyond the precision of floats."""
    numerator, denominator = share.as_integer_ratio()
    return most * numerator // denominator


def _admit(tickets: list[Ticket]) -> None:
    """Complete the futures of tickets that now run. Called without the lock, since callbacks may enter and leave."""
    for ticket in tickets:
        # False if the caller went away and cancelled the future; its own `leave` follows.
        if ticket.admitted.set_running_or_notify_cancel():
            ticket.admitted.set_result(None)
