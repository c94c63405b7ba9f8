"""What the tests of admission share: a small budget of three lanes, and requests that enter it."""

from __future__ import annotations

from typing import Any

from runtime.admission import Admission
from runtime.cost import Cost
from runtime.lane import Ticket

# Of 1600 bytes, a request of up to 100 is small, and one of up to 6 tiny.
MAX_BYTES, TINY_LANE, SMALL_LANE, LARGE_LANE = 1600, 100, 300, 1200
SMALL, TINY = 100, 6
QUEUE_PX = 1000


def door(**options: Any) -> Admission:
    return Admission(**{"max_active_bytes": MAX_BYTES, "max_queue_px": QUEUE_PX, **options})


def enter(
    admission: Admission,
    *,
    cost_px: int,
    cost_bytes: int,
    disk_bytes: int = 0,
    estimate_s: float = 0.0,
    time_left_s: float | None = None,
) -> Ticket:
    return admission.enter(Cost(cost_px, cost_bytes, disk_bytes, estimate_s), time_left_s=time_left_s)


def in_work(ticket: Ticket) -> bool:
    return ticket.admitted.done() and not ticket.admitted.cancelled()


def waiting_px(admission: Admission) -> int:
    return admission.stats().waiting_px


def fill(admission: Admission) -> list[Ticket]:
    """All lanes full."""
    large = [enter(admission, cost_px=1, cost_bytes=600) for _ in range(2)]
    small = [enter(admission, cost_px=1, cost_bytes=SMALL) for _ in range(3)]
    tiny = [enter(admission, cost_px=1, cost_bytes=5) for _ in range(20)]
    assert all(in_work(ticket) for ticket in (*large, *small, *tiny))
    return [*large, *small, *tiny]
