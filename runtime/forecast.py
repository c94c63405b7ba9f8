"""Forecast: when requests will be admitted and done, if nothing else arrives. runtime/admission.py asks it whether a deadline
can be met, and after what time a refused request would be taken.

It simulates the future on copies of the lanes: running requests share the device, and the codec threads, in proportion to their
weights; when one has had all the seconds that it was estimated to need, it leaves, and the lane admits who is next.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import count

from runtime.lane import Lane, Ticket

# Halvings of the time after which a deadline can be met: to a thousandth and better.
HALVINGS = 12
TINY_S = 1e-9


class Sharing:
    """One resource, shared by the requests that use it in proportion to their weights."""

    def __init__(self) -> None:
        # Seconds by weight that each request has had so far, had it been there from the start.
        self._level = 0.0
        self._weight = 0.0
        # A heap by the level at which a request has had all it needs.
        self._ends: list[tuple[float, int, Ticket]] = []
        self._numbers = count()

    def add(self, ticket: Ticket, work_s: float) -> None:
        """A request starts; it needs the whole resource for so long."""
        heapq.heappush(self._ends, (self._level + work_s / ticket.weight, next(self._numbers), ticket))
        self._weight += ticket.weight

    def copy(self) -> Sharing:
        """An independent copy, with the same requests."""
        other = Sharing()
        other._level, other._weight, other._ends = self._level, self._weight, list(self._ends)
        other._numbers = count(next(self._numbers))
        return other

    def next_s(self) -> float:
        """Seconds until the next request has had all it needs; infinity if there is none."""
        return max(0.0, self._ends[0][0] - self._level) * self._weight if self._ends else math.inf

    def advance(self, seconds: float) -> list[Ticket]:
        """Let time pass, at most `next_s`. Returns the requests that have had all they need."""
        if not self._ends:
            return []
        self._level += seconds / self._weight
        done: list[Ticket] = []
        while self._ends and self._ends[0][0] <= self._level + TINY_S:
            done.append(heapq.heappop(self._ends)[2])
        self._weight = self._weight - sum(ticket.weight for ticket in done) if self._ends else 0.0
        return done


class Forecast:
    """The future of some lanes, which are left as they are. now_s: seconds from now, 0 at first."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.now_s = 0.0
        self.lanes = [lane.copy() for lane in lanes]
        self._device, self._codec = Sharing(), Sharing()
        self._in_use: dict[Ticket, int] = {}  # of how many of the two resources
        self._gone: set[Ticket] = set()
        for lane in self.lanes:
            for ticket in lane.working:
                self._start(ticket)

    def copy(self) -> Forecast:
        """An independent copy, to go on in another way."""
        other = Forecast(())
        other.now_s, other.lanes = self.now_s, [lane.copy() for lane in self.lanes]
        other._device, other._codec = self._device.copy(), self._codec.copy()
        other._in_use = dict(self._in_use)
        return other

    def until(self, reached: Callable[[], bool], most_s: float = math.inf) -> bool:
        """Let time pass until `reached`, at most until `now_s` is `most_s`. Returns whether it was; the time is `now_s`.

        reached: is asked at first, and whenever requests have left.
        """
        while not reached():
            step_s = min(self._device.next_s(), self._codec.next_s())
            if self.now_s + step_s > most_s:
                step_s = most_s - self.now_s
            if math.isinf(step_s):
                return False  # nothing runs
            at_the_end = self.now_s + step_s >= most_s
            self._pass(step_s)
            if at_the_end:
                self.now_s = most_s
                return reached()
        return True

    def answered_s(self, ticket: Ticket, index: int, most_s: float = math.inf) -> float:
        """Seconds from `now_s` to the answer of a request that arrives now, in lane number `index`.

        most_s: looks no further; returns infinity if it would take longer.
        """
        arrival_s, latency_s = self.now_s, ticket.cost.latency_s
        self._enter(ticket, self.lanes[index])
        if not self.until(lambda: ticket in self._gone, arrival_s + most_s - latency_s):
            return math.inf
        return self.now_s - arrival_s + latency_s

    def work_s(self) -> float:
        """Seconds after which all that is here now will certainly have left."""
        costs = [(ticket.cost, ticket.remaining()) for lane in self.lanes for ticket in lane.working]
        costs += [(ticket.cost, 1.0) for lane in self.lanes for ticket in lane.waiting]
        return sum(part * (cost.device_s + cost.codec_s) for cost, part in costs)

    def _enter(self, ticket: Ticket, lane: Lane) -> None:
        lane.add(ticket)
        for admitted in lane.let_in():
            self._start(admitted)

    def _start(self, ticket: Ticket) -> None:
        part = ticket.remaining()
        self._in_use[ticket] = 2
        self._device.add(ticket, part * ticket.cost.device_s)
        self._codec.add(ticket, part * ticket.cost.codec_s)

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        for ticket in (*self._device.advance(seconds), *self._codec.advance(seconds)):
            self._in_use[ticket] -= 1
            if not self._in_use[ticket]:
                del self._in_use[ticket]
                self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        lane = next(lane for lane in self.lanes if ticket in lane.working)
        lane.remove(ticket)
        self._gone.add(ticket)
        for admitted in lane.let_in():
            self._start(admitted)


def answered_s(lanes: Sequence[Lane], index: int, ticket: Ticket) -> float:
    """Seconds from now to the answer of a request that arrives now. index: of its lane."""
    if lanes[index].fits(ticket) and not any(lane.waiting_px for lane in lanes):
        return _answered_at_once_s(lanes, ticket)
    return Forecast(lanes).answered_s(ticket, index)


def _answered_at_once_s(lanes: Sequence[Lane], ticket: Ticket) -> float:
    """As Forecast.answered_s for a request that need not wait while nobody else does: no need to simulate the future.

    Of device or codec threads, each other request takes what it needs, or as much by weight as this one needs.
    """
    cost, device_s, codec_s = ticket.cost, ticket.cost.device_s, ticket.cost.codec_s
    for lane in lanes:
        for other in lane.working:
            part, ratio = other.remaining(), other.weight / ticket.weight
            device_s += min(part * other.cost.device_s, ratio * cost.device_s)
            codec_s += min(part * other.cost.codec_s, ratio * cost.codec_s)
    return max(device_s, codec_s) + cost.latency_s


def earliest_s(lanes: Sequence[Lane], index: int, ticket: Ticket, most_s: float) -> float:
    """Seconds from now after which a request would be answered within `most_s` of its arrival.

    index: of its lane.
    """
    forecast = Forecast(lanes)
    early_s, late_s = 0.0, forecast.work_s()
    for _ in range(HALVINGS):
        middle_s = (early_s + late_s) / 2
        later = forecast.copy()
        later.until(lambda: False, middle_s)
        if later.copy().answered_s(ticket, index, most_s + TINY_S) < math.inf:
            late_s = middle_s
        else:
            early_s, forecast = middle_s, later
    return late_s
