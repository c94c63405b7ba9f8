"""Admission control: decides which requests start now, which wait in the queue and which are refused.

server/service.py calls `Admission.enter` for each request before it decodes any pixel. It gets a Ticket, whose future
completes when the request may start, or Overloaded is raised. Two limits hold exactly: the memory of the running
requests, and the pixels of the waiting ones. Small requests have a lane of their own, so a thumbnail never waits behind
posters. Within a lane, a request's place is its cost plus the pixels admitted before it arrived: smaller requests may
overtake a larger one, but only by as many pixels in total as the larger one costs, so no request starves.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from runtime.errors import Overloaded

# The small lane gets a quarter of the memory; a request is small up to a sixteenth.
SMALL_LANE_SHARE = 1 / 4
SMALL_REQUEST_SHARE = 1 / 16
SHORTEST_RETRY_S = 0.1


@dataclass(eq=False)
class Ticket:
    """A request's place in a lane. `admitted` completes when the request may start; `leave` frees the place.

    cost_px, cost_bytes, estimate_s: the arguments of `Admission.enter`. order: the lowest is admitted first.
    """

    cost_px: int
    cost_bytes: int
    estimate_s: float
    order: int
    lane: Lane
    admission: Admission
    admitted: Future[None] = field(default_factory=Future)
    left: bool = False

    def leave(self) -> None:
        """Free the place, whether the request waits or runs. May be called more than once."""
        self.admission.leave(self)


@dataclass(eq=False)
class Lane:
    """The queue of small requests, or that of large ones.

    max_bytes: limit on the memory of the running requests; a request that runs alone may exceed it.
    passed_px: pixels of all requests admitted so far.
    """

    max_bytes: float
    waiting: list[Ticket] = field(default_factory=list)
    working: list[Ticket] = field(default_factory=list)
    passed_px: int = 0

    def fits(self, ticket: Ticket) -> bool:
        """Whether there is memory for this request now."""
        used = sum(other.cost_bytes for other in self.working)
        return not self.working or used + ticket.cost_bytes <= self.max_bytes

    def let_in(self, ticket: Ticket) -> None:
        """Count a request as running."""
        self.working.append(ticket)
        self.passed_px += ticket.cost_px


class Admission:
    """Admission control of one server. Thread-safe.

    max_active_bytes: limit on the memory of the running requests. max_queue_px: limit on the pixels of the waiting ones.
    slots: how many batches the device runs at once; used to estimate waiting times.
    """

    def __init__(self, *, max_active_bytes: int, max_queue_px: int, slots: int = 1) -> None:
        self._lock = threading.Lock()
        self._max_queue_px, self._slots = max_queue_px, slots
        self._small_request_bytes = max_active_bytes * SMALL_REQUEST_SHARE
        self._small = Lane(max_active_bytes * SMALL_LANE_SHARE)
        self._large = Lane(max_active_bytes * (1 - SMALL_LANE_SHARE))

    def enter(
        self, *, cost_px: int, cost_bytes: int, estimate_s: float = 0.0, time_left_s: float | None = None
    ) -> Ticket:
        """Admit a request at once if there is room, else queue it. Does not block; wait for the ticket's `admitted`.

        cost_px: pixels that the device will compute. cost_bytes: memory that the request needs while it runs.
        estimate_s: device time for this request alone, 0 if unknown. time_left_s: until the caller's deadline.
        Raises Overloaded if the queue is full or the deadline cannot be met.
        """
        with self._lock:
            lane = self._small if cost_bytes <= self._small_request_bytes else self._large
            ticket = Ticket(cost_px, cost_bytes, estimate_s, lane.passed_px + cost_px, lane, self)
            expected_s = self._expected_s(estimate_s)
            if time_left_s is not None and expected_s > time_left_s:
                raise Overloaded(
                    f"the answer would take about {expected_s:.1f} s, the deadline is in {time_left_s:.1f} s; "
                    "try again later or allow more time",
                    retry_after_s=max(expected_s - estimate_s, SHORTEST_RETRY_S),
                    reason="deadline",
                )
            is_next = not lane.waiting or ticket.order < lane.waiting[0].order
            if is_next and lane.fits(ticket):
                lane.let_in(ticket)
                ticket.admitted.set_result(None)
                return ticket
            waiting_px = self._waiting_px()
            if waiting_px + cost_px > self._max_queue_px:
                raise Overloaded(
                    f"the queue holds {waiting_px} of {self._max_queue_px} pixels, this request needs {cost_px}; "
                    "try again later",
                    retry_after_s=max(expected_s - estimate_s, SHORTEST_RETRY_S),
                    reason="queue",
                )
            lane.waiting.append(ticket)
            lane.waiting.sort(key=lambda waiting: waiting.order)
            return ticket

    def leave(self, ticket: Ticket) -> None:
        """Free a ticket's place and admit the waiting requests that now fit."""
        with self._lock:
            if ticket.left:
                return
            ticket.left = True
            lane = ticket.lane
            (lane.working if ticket in lane.working else lane.waiting).remove(ticket)
            let_in: list[Ticket] = []
            while lane.waiting and lane.fits(lane.waiting[0]):
                following = lane.waiting.pop(0)
                lane.let_in(following)
                let_in.append(following)
        for following in let_in:
            # False if the caller went away and cancelled the future; its own `leave` follows.
            if following.admitted.set_running_or_notify_cancel():
                following.admitted.set_result(None)
        ticket.admitted.cancel()

    def _waiting_px(self) -> int:
        """Pixels of the requests that wait now. Called with the lock held."""
        return sum(ticket.cost_px for lane in (self._small, self._large) for ticket in lane.waiting)

    def _expected_s(self, estimate_s: float) -> float:
        """Estimated seconds until a request is done. With fair turns, another request delays it by at most its own cost."""
        others = (t for lane in (self._small, self._large) for t in (*lane.working, *lane.waiting))
        return estimate_s + sum(min(other.estimate_s, estimate_s) for other in others) / self._slots
