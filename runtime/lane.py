"""Lane: a queue of requests with its own share of the memory and the disk. runtime/admission.py has one for each size
of requests, and runtime/forecast.py looks ahead on copies of them.

Accounts (a client's interactive or batch requests) take turns, see runtime/shares.py. Among the requests of one account, a
request's place is its cost plus the pixels that the account got admitted before it arrived: smaller requests may overtake a
larger one, but those that arrive later only by as many pixels in total as the larger one costs, so no request starves.
"""

from __future__ import annotations

from bisect import insort
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

from runtime.cost import Cost
from runtime.jobs import Flow
from runtime.shares import WEIGHTS, Account, Shares


class Door(Protocol):
    """What a ticket asks of Admission."""

    def leave(self, ticket: Ticket) -> None:
        """As `Ticket.leave`."""

    def hold_only(self, ticket: Ticket, memory_bytes: int, disk_bytes: int) -> None:
        """As `Ticket.hold_only`."""


@dataclass(eq=False)
class Ticket:
    """A request's place in a lane. `admitted` completes when the request may start; `leave` frees the place.

    flow: of its jobs. expected_s: estimated seconds from its arrival to its answer. order: within its account, the lowest
    is admitted first. memory_bytes, disk_bytes: held while it runs. sending: whether all is done but sending the answer.
    """

    cost: Cost
    flow: Flow
    door: Door
    expected_s: float = 0.0
    admitted: Future[None] = field(default_factory=Future)
    order: int = 0
    left: bool = False
    sending: bool = False

    def __post_init__(self) -> None:
        self.memory_bytes, self.disk_bytes = self.cost.memory_bytes, self.cost.disk_bytes

    @property
    def weight(self) -> float:
        """Its share of the device and the codec threads, beside others."""
        return WEIGHTS[self.flow.account.priority]

    def remaining(self) -> float:
        """The part of its work that is still to be done, 0 to 1."""
        if self.sending:
            return 0.0
        return max(0.0, 1 - self.flow.done_px / max(1, self.cost.pixels))

    def leave(self) -> None:
        """Free the place, whether the request waits or runs. May be called more than once."""
        self.door.leave(self)

    def hold_only(self, *, memory_bytes: int, disk_bytes: int) -> None:
        """Give back all but this: the answer is ready and only has to be sent."""
        self.door.hold_only(self, memory_bytes, disk_bytes)


@dataclass(frozen=True)
class LaneStats:
    """Requests of one lane now: how many wait and how many run, and what they need together. waiting_s: estimated."""

    waiting: int
    waiting_px: int
    waiting_s: float
    working: int
    working_px: int
    working_bytes: int
    working_disk_bytes: int
    max_bytes: int
    max_disk_bytes: int


@dataclass
class AccountQueue:
    """The waiting requests of one account, in their order. passed_px: of those admitted while others waited."""

    tickets: list[Ticket] = field(default_factory=list)
    passed_px: int = 0

    def copy(self) -> AccountQueue:
        """An independent copy, with the same tickets."""
        return replace(self, tickets=list(self.tickets))


class Lane:
    """Waiting and running requests. max_bytes, max_disk_bytes: limits of the running ones together."""

    def __init__(self, max_bytes: int, max_disk_bytes: int) -> None:
        self.max_bytes, self.max_disk_bytes = max_bytes, max_disk_bytes
        self.working: list[Ticket] = []
        self.waiting_px, self.waiting_s = 0, 0.0
        self._queues: dict[Account, AccountQueue] = {}
        self._shares = Shares()
        self._used_bytes = self._used_disk_bytes = 0

    @property
    def waiting(self) -> list[Ticket]:
        """The waiting requests, account by account."""
        return [ticket for queue in self._queues.values() for ticket in queue.tickets]

    def add(self, ticket: Ticket) -> None:
        """Let a request wait. `let_in` admits it when it fits and is next."""
        account = ticket.flow.account
        queue = self._queues.setdefault(account, AccountQueue())
        ticket.order = queue.passed_px + ticket.cost.pixels
        insort(queue.tickets, ticket, key=lambda waiting: waiting.order)
        self._shares.begin(account)
        self.waiting_px += ticket.cost.pixels
        self.waiting_s += ticket.cost.work_s

    def remove(self, ticket: Ticket) -> None:
        """Forget a request, whether it waits or runs."""
        if ticket in self.working:
            self.working.remove(ticket)
            self._used_bytes -= ticket.memory_bytes
            self._used_disk_bytes -= ticket.disk_bytes
        else:
            self._stop_waiting(ticket)

    def reduce(self, ticket: Ticket, memory_bytes: int, disk_bytes: int) -> None:
        """Take note that a running request now holds no more than this."""
        memory_bytes, disk_bytes = min(ticket.memory_bytes, memory_bytes), min(ticket.disk_bytes, disk_bytes)
        self._used_bytes -= ticket.memory_bytes - memory_bytes
        self._used_disk_bytes -= ticket.disk_bytes - disk_bytes
        ticket.memory_bytes, ticket.disk_bytes = memory_bytes, disk_bytes

    def let_in(self) -> list[Ticket]:
        """Count the waiting requests that fit now, in their order, as running, and return them."""
        let_in: list[Ticket] = []
        while self._queues:
            account = min(self._queues, key=self._shares.place)
            queue = self._queues[account]
            ticket = queue.tickets[0]
            if not self.fits(ticket):
                break
            queue.passed_px += ticket.cost.pixels
            self._shares.serve(account, ticket.cost.pixels)
            self._stop_waiting(ticket)
            self.working.append(ticket)
            self._used_bytes += ticket.memory_bytes
            self._used_disk_bytes += ticket.disk_bytes
            let_in.append(ticket)
        return let_in

    def in_the_way(self) -> list[Ticket]:
        """The requests that only have to send their answers, and hold disk that the next waiting one needs."""
        if not self._queues:
            return []
        first = self._queues[min(self._queues, key=self._shares.place)].tickets[0]
        if self._used_disk_bytes + first.disk_bytes <= self.max_disk_bytes:
            return []
        return [ticket for ticket in self.working if ticket.sending and ticket.disk_bytes]

    def copy(self) -> Lane:
        """An independent copy, with the same tickets, to look ahead."""
        lane = Lane(self.max_bytes, self.max_disk_bytes)
        lane.working = list(self.working)
        lane.waiting_px, lane.waiting_s = self.waiting_px, self.waiting_s
        lane._queues = {account: queue.copy() for account, queue in self._queues.items()}
        lane._shares = self._shares.copy()
        lane._used_bytes, lane._used_disk_bytes = self._used_bytes, self._used_disk_bytes
        return lane

    def stats(self) -> LaneStats:
        """What the lane holds now."""
        return LaneStats(
            waiting=len(self.waiting),
            waiting_px=self.waiting_px,
            waiting_s=self.waiting_s,
            working=len(self.working),
            working_px=sum(ticket.cost.pixels for ticket in self.working),
            working_bytes=self._used_bytes,
            working_disk_bytes=self._used_disk_bytes,
            max_bytes=self.max_bytes,
            max_disk_bytes=self.max_disk_bytes,
        )

    def fits(self, ticket: Ticket) -> bool:
        """Whether there is memory and disk for this request now."""
        return (
            self._used_bytes + ticket.memory_bytes <= self.max_bytes
            and self._used_disk_bytes + ticket.disk_bytes <= self.max_disk_bytes
        )

    def _stop_waiting(self, ticket: Ticket) -> None:
        account = ticket.flow.account
        queue = self._queues[account]
        queue.tickets.remove(ticket)
        if not queue.tickets:
            del self._queues[account]
        self._shares.end(account)
        self.waiting_px -= ticket.cost.pixels
        # Rounding must not leave anything behind when nothing waits.
        self.waiting_s = self.waiting_s - ticket.cost.work_s if self._queues else 0.0
