"""Shares: whose turn it is when clients and classes of priority wait for one thing.

Three levels: a class of priority gets turns by its weight, within a class all clients get equal ones, and within a client
all its connections, however many requests they have. Start-time fair queuing (Goyal, Vin and Cheng 1996): whoever was
served least, in pixels by weight, is next, and a newcomer starts where the one just served started. So nobody starves, and
nobody saves up turns by waiting.

runtime/scheduling/fair_queue.py (items for the device) and runtime/lane.py (requests for admission) each have
one. Nothing here locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Priority = Literal["interactive", "batch"]
# While both wait, interactive requests get eight turns for each one of a batch request.
WEIGHTS: Mapping[Priority, float] = {"interactive": 8.0, "batch": 1.0}


class Account(NamedTuple):
    """Whom a request's turns are charged to. client: any name; "" for all unnamed ones. connection: among the client's."""

    client: str = ""
    priority: Priority = "interactive"
    connection: str = ""

    @property
    def path(self) -> tuple[str, str, str]:
        """From the class of priority down."""
        return self.priority, self.client, self.connection


@dataclass
class Share:
    """A class, a client or a connection. clock_px: pixels served by weight, on the clock of its siblings.

    waiting: requests below it. now_px: where the child that was served last started.
    """

    weight: float = 1.0
    clock_px: float = 0.0
    now_px: float = 0.0
    waiting: int = 0
    children: dict[str, Share] = field(default_factory=dict)

    def begin(self, name: str, weight: float) -> Share:
        """One more request of that child waits."""
        child = self.children.setdefault(name, Share(weight))
        if not child.waiting:
            child.clock_px = max(child.clock_px, self.now_px)
        child.waiting += 1
        return child

    def end(self, name: str) -> None:
        """One request less of that child waits. Children are forgotten when nothing waits below their parent."""
        self.children[name].waiting -= 1
        if not any(child.waiting for child in self.children.values()):
            self.now_px = max(child.clock_px for child in self.children.values())
            self.children.clear()

    def serve(self, name: str, pixels: int) -> Share:
        """Charge a child for its turn."""
        child = self.children[name]
        self.now_px = max(self.now_px, child.clock_px)
        child.clock_px += pixels / child.weight
        return child

    def copy(self) -> Share:
        """An independent copy of this share and all below it."""
        return replace(self, children={name: child.copy() for name, child in self.children.items()})


class Shares:
    """The shares of all who wait for one thing."""

    def __init__(self, root: Share | None = None) -> None:
        self._root = root or Share()

    def begin(self, account: Account) -> None:
        """One more request of this account waits."""
        share, weight = self._root, WEIGHTS[account.priority]
        for name in account.path:
            share, weight = share.begin(name, weight), 1.0

    def end(self, account: Account) -> None:
        """One request less of this account waits: it was served, or has left."""
        shares = [self._root]
        for name in account.path[:-1]:
            shares.append(shares[-1].children[name])
        for share, name in zip(reversed(shares), reversed(account.path), strict=True):
            share.end(name)

    def place(self, account: Account) -> tuple[float, ...]:
        """The place in the order of accounts that wait; the lowest is next."""
        share, clocks = self._root, []
        for name in account.path:
            share = share.children[name]
            clocks.append(share.clock_px)
        return tuple(clocks)

    def serve(self, account: Account, pixels: int) -> None:
        """Charge an account for a turn. Call it before the `end` of the request that was served."""
        share = self._root
        for name in account.path:
            share = share.serve(name, pixels)

    def copy(self) -> Shares:
        """An independent copy, to look ahead."""
        return Shares(self._root.copy())
