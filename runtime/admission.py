"""Admission control: decides which requests start now, which wait in the queue and which are refused.

server/service.py calls `Admission.enter` for each request before it decodes any pixel. It gets a Ticket, whose future
completes when the request may start, or Overloaded or InvalidInput is raised. Three limits hold exactly: the memory and
the disk of the running requests, and the pixels of the waiting ones. A request that needs more than the whole budget is
refused. Small requests have a lane of their own, so a thumbnail never waits behind posters. Within a lane, a request's
place is its cost plus the pixels admitted before it arrived: smaller requests may overtake a larger one, but only by as
many pixels in total as the larger one costs, so no request starves.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from runtime.cost import Cost
from runtime.errors import InvalidInput, Overloaded

# The small lane gets a quarter of the budget; a request is small up to a sixteenth.
SMALL_LANE_SHARE = 1 / 4
SMALL_REQUEST_SHARE = 1 / 16
SHORTEST_RETRY_S = 0.1


@dataclass(frozen=True)
class LaneStats:
    """Requests of one lane now: how many wait and how many run, and what they need together."""

    waiting: int
    waiting_px: int
    waiting_s: float
    working: int
    working_px: int
    working_bytes: int
    working_disk_bytes: int
    max_bytes: int
    max_disk_bytes: int


@dataclass(frozen=True)
class AdmissionStats:
    """What admission holds now, by lane ("small", "large"), and how many requests it refused so far, by reason.

    refusals: keys "memory", "disk" (more than the whole budget: InvalidInput), "queue" and "deadline" (Overloaded).
    """

    lanes: Mapping[str, LaneStats]
    refusals: Mapping[str, int]

    @property
    def waiting_px(self) -> int:
        """Pixels of all waiting requests; --max-queue-pixels limits them."""
        return sum(lane.waiting_px for lane in self.lanes.values())

    @property
    def working_bytes(self) -> int:
        """Memory of all running requests; --max-active-bytes limits it."""
        return sum(lane.working_bytes for lane in self.lanes.values())


@dataclass(eq=False)
class Ticket:
    """A request's place in a lane. `admitted` completes when the request may start; `leave` frees the place.

    order: the lowest is admitted first. memory_bytes, disk_bytes: held while it runs.
    """

    cost: Cost
    order: int
    lane: Lane
    admission: Admission
    admitted: Future[None] = field(default_factory=Future)
    left: bool = False

    def __post_init__(self) -> None:
        self.memory_bytes, self.disk_bytes = self.cost.memory_bytes, self.cost.disk_bytes

    def leave(self) -> None:
        """Free the place, whether the request waits or runs. May be called more than once."""
        self.admission.leave(self)

    def hold_only(self, *, memory_bytes: int, disk_bytes: int) -> None:
        """Give back all but this: the answer is ready and only has to be sent."""
        self.admission.hold_only(self, memory_bytes, disk_bytes)


@dataclass(eq=False)
class Lane:
    """The queue of small requests, or that of large ones.

    max_bytes, max_disk_bytes: limits on the memory and the disk of the running requests.
    passed_px: pixels of all requests admitted so far.
    """

    max_bytes: int
    max_disk_bytes: int
    waiting: list[Ticket] = field(default_factory=list)
    working: list[Ticket] = field(default_factory=list)
    passed_px: int = 0

    def fits(self, ticket: Ticket) -> bool:
        """Whether there is memory and disk for this request now."""
        used_bytes = sum(other.memory_bytes for other in self.working)
        used_disk_bytes = sum(other.disk_bytes for other in self.working)
        return (
            used_bytes + ticket.memory_bytes <= self.max_bytes
            and used_disk_bytes + ticket.disk_bytes <= self.max_disk_bytes
        )

    def let_in(self) -> list[Ticket]:
        """Count the waiting requests that fit now, in their order, as running, and return them."""
        let_in: list[Ticket] = []
        while self.waiting and self.fits(self.waiting[0]):
            ticket = self.waiting.pop(0)
            self.working.append(ticket)
            self.passed_px += ticket.cost.pixels
            let_in.append(ticket)
        return let_in

    def stats(self) -> LaneStats:
        """What the lane holds now."""
        return LaneStats(
            waiting=len(self.waiting),
            waiting_px=sum(ticket.cost.pixels for ticket in self.waiting),
            waiting_s=sum(ticket.cost.alone_s for ticket in self.waiting),
            working=len(self.working),
            working_px=sum(ticket.cost.pixels for ticket in self.working),
            working_bytes=sum(ticket.memory_bytes for ticket in self.working),
            working_disk_bytes=sum(ticket.disk_bytes for ticket in self.working),
            max_bytes=self.max_bytes,
            max_disk_bytes=self.max_disk_bytes,
        )


class Admission:
    """Admission control of one server. Thread-safe.

    max_active_bytes, max_disk_bytes: limits on the memory and on the temporary files of the running requests.
    max_queue_px: limit on the pixels of the waiting ones.
    slots: how many batches the device runs at once; used to estimate waiting times.
    """

    def __init__(
        self, *, max_active_bytes: int, max_queue_px: int, max_disk_bytes: int = 2**63, slots: int = 1
    ) -> None:
        self._lock = threading.Lock()
        self._max_queue_px, self._slots = max_queue_px, slots
        self._small_bytes = max_active_bytes * SMALL_REQUEST_SHARE
        self._small_disk_bytes = max_disk_bytes * SMALL_REQUEST_SHARE
        small_bytes, small_disk_bytes = (
            int(SMALL_LANE_SHARE * most) for most in (max_active_bytes, max_disk_bytes)
        )
        self._small = Lane(small_bytes, small_disk_bytes)
        self._large = Lane(max_active_bytes - small_bytes, max_disk_bytes - small_disk_bytes)
        self._refusals = Counter[str]()

    def enter(self, cost: Cost, *, time_left_s: float | None = None) -> Ticket:
        """Admit a request at once if there is room, else queue it. Does not block; wait for the ticket's `admitted`.

        time_left_s: until the caller's deadline; None if there is none.
        Raises InvalidInput if the request needs more than the whole budget, Overloaded if the queue is full or the
        deadline cannot be met.
        """
        with self._lock:
            try:
                ticket, let_in = self._place(cost, time_left_s)
            except Overloaded as refusal:
                self._refusals[refusal.reason] += 1
                raise
        _admit(let_in)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Free a ticket's place and admit the waiting requests that now fit."""
        with self._lock:
            if ticket.left:
                return
            ticket.left = True
            lane = ticket.lane
            (lane.working if ticket in lane.working else lane.waiting).remove(ticket)
            let_in = lane.let_in()
        _admit(let_in)
        ticket.admitted.cancel()

    def hold_only(self, ticket: Ticket, memory_bytes: int, disk_bytes: int) -> None:
        """Reduce what a running request holds, and admit the waiting requests that now fit. It can only become less."""
        with self._lock:
            ticket.memory_bytes = min(ticket.memory_bytes, memory_bytes)
            ticket.disk_bytes = min(ticket.disk_bytes, disk_bytes)
            let_in = ticket.lane.let_in()
        _admit(let_in)

    def stats(self) -> AdmissionStats:
        """What is waiting and running now, and the refusals so far."""
        with self._lock:
            lanes = {"small": self._small.stats(), "large": self._large.stats()}
            return AdmissionStats(lanes, dict(self._refusals))

    def _place(self, cost: Cost, time_left_s: float | None) -> tuple[Ticket, list[Ticket]]:
        """A place in the queue, and the tickets that now run: this one if it is next and fits. Raises as `enter`."""
        self._check_fits(cost)
        is_small = cost.memory_bytes <= self._small_bytes and cost.disk_bytes <= self._small_disk_bytes
        lane = self._small if is_small else self._large
        estimate_s = cost.alone_s
        expected_s = self._expected_s(estimate_s)
        if time_left_s is not None and expected_s > time_left_s:
            raise Overloaded(
                f"the answer would take about {expected_s:.1f} s, the deadline is in {time_left_s:.1f} s; "
                "try again later or allow more time",
                retry_after_s=max(expected_s - estimate_s, SHORTEST_RETRY_S),
                reason="deadline",
            )
        ticket = Ticket(cost, lane.passed_px + cost.pixels, lane, self)
        waiting_px = self._waiting_px()
        lane.waiting.append(ticket)
        lane.waiting.sort(key=lambda waiting: waiting.order)
        let_in = lane.let_in()  # at most the new one: the others did not fit before
        if not let_in and waiting_px + cost.pixels > self._max_queue_px:
            lane.waiting.remove(ticket)
            raise Overloaded(
                f"the queue holds {waiting_px} of {self._max_queue_px} pixels, this request needs {cost.pixels}; "
                "try again later",
                retry_after_s=max(expected_s - estimate_s, SHORTEST_RETRY_S),
                reason="queue",
            )
        return ticket, let_in

    def _check_fits(self, cost: Cost) -> None:
        """Raises InvalidInput if a request needs more than any request may have."""
        most = self._large
        for reason, needed, limit, flag in (
            ("memory", cost.memory_bytes, most.max_bytes, "--max-active-bytes"),
            ("disk", cost.disk_bytes, most.max_disk_bytes, "--max-disk-bytes"),
        ):
            if needed > limit:
                self._refusals[reason] += 1
                raise InvalidInput(
                    cost.field,
                    f"the request needs up to {needed} bytes of {reason}, one request may have {limit} "
                    f"({1 - SMALL_LANE_SHARE:.0%} of {flag}); ask for a smaller answer or send a smaller image",
                )

    def _waiting_px(self) -> int:
        """Pixels of the requests that wait now. Called with the lock held."""
        return sum(ticket.cost.pixels for lane in (self._small, self._large) for ticket in lane.waiting)

    def _expected_s(self, estimate_s: float) -> float:
        """Estimated seconds until a request is done. With fair turns, another request delays it by at most its own cost."""
        others = (t for lane in (self._small, self._large) for t in (*lane.working, *lane.waiting))
        return estimate_s + sum(min(other.cost.alone_s, estimate_s) for other in others) / self._slots


def _admit(tickets: list[Ticket]) -> None:
    """Complete the futures of tickets that now run. Called without the lock, since callbacks may enter and leave."""
    for ticket in tickets:
        # False if the caller went away and cancelled the future; its own `leave` follows.
        if ticket.admitted.set_running_or_notify_cancel():
            ticket.admitted.set_result(None)
