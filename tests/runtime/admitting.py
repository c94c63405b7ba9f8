"""What the tests of admission share: a small budget of two lanes, and requests that enter it."""

from __future__ import annotations

from typing import Any

from runtime.admission import Admission
from runtime.cost import Cost
from runtime.lane import Ticket

# Of 1600 bytes a quarter is the small lane's, and a request of up to 100 bytes is small.
MAX_BYTES, SMALL_LANE, LARGE_LANE, SMALL = 1600, 400, 1200, 100
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
    """Both lanes full."""
    large = [enter(admission, cost_px=1, cost_bytes=600) for _ in range(2)]
    small = [enter(admission, cost_px=1, cost_bytes=SMALL) for _ in range(4)]
    assert all(in_work(ticket) for ticket in (*large, *small))
    return [*large, *small]
