"""A stopwatch for one request: how long it queued, ran on the device and spent in codecs.

server/core/calls.py makes one for each call. The service, the codec threads and the scheduler begin and end activities on it,
and `times` becomes the answer's `Timing`. All times are wall time: two tiles on the device at the same moment count
once, so no part exceeds the total.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from runtime.ran import Ran

Activity = Literal["queue", "inference", "decode", "encode"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)
# Most periods of an activity that are recorded apart; the last one then takes in all that follow.
MOST_PERIODS = 32


@dataclass(frozen=True)
class Period:
    """A time in which an activity was under way without a break, on the stopwatch's clock."""

    activity: Activity
    started_s: float
    ended_s: float


@dataclass(frozen=True)
class Times:
    """Seconds of wall time since the stopwatch was made.

    inference_s: at least one of the request's items was on the device.
    codec_s: at least one codec thread decoded, resized or encoded for it. May overlap inference_s.
    queue_s: the request waited (for admission, a codec thread or the device) and nothing ran for it. Overlaps neither,
        so queue_s + inference_s <= total_s and queue_s + codec_s <= total_s.
    total_s: everything, including the upload, stitching and switches between threads.
    """

    queue_s: float
    inference_s: float
    codec_s: float
    total_s: float


class Stopwatch:
    """Counts the running activities of one request and their wall time. Thread-safe.

    clock: in seconds. started_s: on it. After `record`, `periods` also says when each activity was under way.
    ran: which engines computed the request.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.ran = Ran()
        self._lock = threading.Lock()
        self.started_s = self._changed_s = clock()
        self._under_way: dict[Activity, int] = dict.fromkeys(ACTIVITIES, 0)
        self._queue_s = self._inference_s = self._codec_s = 0.0
        self._recording = False
        self._begun_s: dict[Activity, float] = {}
        self._periods: dict[Activity, list[Period]] = {activity: [] for activity in ACTIVITIES}

    def record(self) -> None:
        """Keep the periods of all activities from now on."""
        self._recording = True

    def periods(self) -> list[Period]:
        """The recorded periods so far, in the order of their starts; activities under way end now."""
        with self._lock:
            self._advance()
            ended = [period for periods in self._periods.values() for period in periods]
            under_way = [Period(kind, begun_s, self._changed_s) for kind, begun_s in self._begun_s.items()]
            return sorted([*ended, *under_way], key=lambda period: period.started_s)

    def begin(self, activity: Activity) -> None:
        """Start an activity. Several of the same kind may run at once; each needs its own `end`."""
        self._change(activity, 1)

    def end(self, activity: Activity) -> None:
        """End an activity started with `begin`."""
        self._change(activity, -1)

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """Context manager: `begin` on entering, `end` on leaving."""
        self.begin(activity)
        try:
            yield
        finally:
            self.end(activity)

    def times(self) -> Times:
        """The times so far, running activities included."""
        with self._lock:
            self._advance()
            total_s = self._changed_s - self.started_s
            return Times(self._queue_s, self._inference_s, self._codec_s, total_s)

    def _change(self, activity: Activity, by: int) -> None:
        with self._lock:
            self._advance()
            self._under_way[activity] += by
            if self._recording:
                self._record(activity)

    def _record(self, activity: Activity) -> None:
        """Note that an activity begins or ends. Called with the lock held."""
        if self._under_way[activity]:
            self._begun_s.setdefault(activity, self._changed_s)
        elif activity in self._begun_s:
            begun_s, periods = self._begun_s.pop(activity), self._periods[activity]
            if len(periods) == MOST_PERIODS:
                begun_s = periods.pop().started_s
            periods.append(Period(activity, begun_s, self._changed_s))

    def _advance(self) -> None:
        """Count the time since the last change. Called with the lock held."""
        now_s = self._clock()
        passed_s, self._changed_s = now_s - self._changed_s, now_s
        under_way = self._under_way
        in_codec = under_way["decode"] or under_way["encode"]
        if under_way["inference"]:
            self._inference_s += passed_s
        if in_codec:
            self._codec_s += passed_s
        if under_way["queue"] and not under_way["inference"] and not in_codec:
            self._queue_s += passed_s
