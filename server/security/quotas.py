"""Quotas: pixels in flight and per second of each caller, held exactly. server/core/shared.py asks before admission.

Pixels are those that admission counts (`Cost.pixels` in runtime/cost.py): what the device computes, halos included. A
request is refused, never queued, if it would exceed its caller's quota; RetryInfo is the time after which it would be
taken if the caller sent nothing else meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runtime.cost import Cost
from runtime.errors import InvalidInput, Overloaded
from server.security.callers import Caller, Quota

# If the running requests take longer than estimated.
SHORTEST_RETRY_S = 0.1
# Times are floats: a request that comes exactly when it was told to is not refused for a fraction of a pixel. The fraction
# is still owed, so the rate holds exactly.
TOLERANCE_PX = 0.5


@dataclass(eq=False)
class Hold:
    """A request of a caller. pixels: that it costs. ends_s: when it is expected to be done, on the quotas' clock."""

    pixels: int
    ends_s: float
    is_spent: bool = False

    def spend(self) -> None:
        """The device may begin: from here on the pixels count against the rate, however the request ends."""
        self.is_spent = True


@dataclass
class Account:
    """What one caller holds and may still spend.

    open: its requests. saved_px: the pixels that it may spend at once, at the time saved_at_s.
    """

    saved_px: float
    saved_at_s: float
    open: list[Hold] = field(default_factory=list)

    @property
    def active_px(self) -> int:
        """Pixels of its open requests."""
        return sum(hold.pixels for hold in self.open)

    def save(self, quota: Quota, now_s: float) -> None:
        """Add what the time since the last look has brought, up to the burst."""
        if quota.pixels_per_second is not None:
            saved = self.saved_px + (now_s - self.saved_at_s) * quota.pixels_per_second
            self.saved_px = min(saved, quota.burst_px)
        self.saved_at_s = now_s


class Quotas:
    """The accounts of all callers that have a quota. For one event loop. clock: seconds, as time.monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    def active_px(self, name: str) -> int:
        """Pixels of a caller's open requests."""
        account = self._accounts.get(name)
        return account.active_px if account else 0

    @contextmanager
    def hold(self, caller: Caller, cost: Cost) -> Iterator[Hold]:
        """Context manager around a request, from before its admission until its answer has left.

        Yields its Hold; unless that is spent, the pixels are given back at the end. Raises Overloaded if the caller's quota
        does not allow the request now, InvalidInput if it never will.
        """
        hold = Hold(cost.pixels, self._clock() + cost.alone_s)
        if caller.quota == Quota():
            yield hold
            return
        account = self._account(caller)
        account.save(caller.quota, self._clock())
        self._check(caller, account, cost)
        account.open.append(hold)
        account.saved_px -= hold.pixels
        try:
            yield hold
        finally:
            account.open.remove(hold)
            if not hold.is_spent:
                account.saved_px += hold.pixels

    def _account(self, caller: Caller) -> Account:
        return self._accounts.setdefault(caller.name, Account(caller.quota.burst_px, self._clock()))

    def _check(self, caller: Caller, account: Account, cost: Cost) -> None:
        """Raises InvalidInput or Overloaded if the request exceeds the quota."""
        quota, needed_px = caller.quota, cost.pixels
        for setting, most_px in (
            ("max_active_pixels", quota.max_active_pixels),
            ("burst_pixels", quota.burst_px if quota.pixels_per_second is not None else None),
        ):
            if most_px is not None and needed_px > most_px:
                raise InvalidInput(
                    cost.field,
                    f"this request takes {needed_px} pixels of the device, {caller.name} may use {most_px} at once "
                    f"({setting} of its token); send smaller ones",
                )
        problems: list[tuple[float, str, str]] = []
        if quota.pixels_per_second is not None and account.saved_px < needed_px - TOLERANCE_PX:
            wait_s = (needed_px - account.saved_px) / quota.pixels_per_second
            rate = f"{quota.pixels_per_second:g} pixels a second are allowed"
            problems.append((wait_s, "rate", f"{rate}, {max(int(account.saved_px), 0)} are left now"))
        if quota.max_active_pixels is not None and account.active_px + needed_px > quota.max_active_pixels:
            wait_s = self._until_free_s(account, account.active_px + needed_px - quota.max_active_pixels)
            active = f"{account.active_px} of {quota.max_active_pixels} pixels are in use by its open calls"
            problems.append((wait_s, "quota", active))
        if problems:
            wait_s, reason, _ = max(problems)
            what = " and ".join(sentence for *_, sentence in problems)
            raise Overloaded(
                f"the quota of {caller.name} is used up: {what}, this request takes {needed_px}; try again later",
                retry_after_s=math.ceil(wait_s * 1e3) / 1e3,  # clients are told whole milliseconds
                reason=reason,
            )

    def _until_free_s(self, account: Account, needed_px: int) -> float:
        """Seconds until so many pixels are expected to be free, as far as the open requests were estimated."""
        freed_px = 0
        for hold in sorted(account.open, key=lambda hold: hold.ends_s):
            freed_px += hold.pixels
            if freed_px >= needed_px:
                return max(hold.ends_s - self._clock(), SHORTEST_RETRY_S)
        raise AssertionError("the open requests hold fewer pixels than are in use")
