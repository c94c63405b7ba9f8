"""The stopwatch of a request: wall time, on a clock that the test turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.stopwatch import ACTIVITIES, MOST_PERIODS, Activity, Period, Stopwatch, Times
from tests.clock import Clock


def test_items_that_overlap_on_the_device_count_once() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    for _ in range(3):  # begins 1 s apart, each 3 s long: [0, 3), [1, 4), [2, 5)
        stopwatch.begin("inference")
        clock.now_s += 1
    for _ in range(3):
        stopwatch.end("inference")
        clock.now_s += 1
    assert stopwatch.times() == Times(queue_s=0, inference_s=5, codec_s=0, total_s=6)


def test_device_and_codec_threads_may_work_at_once_and_waiting_is_when_neither_does() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.during("queue"):
        clock.now_s += 1  # waits
        with stopwatch.during("decode"):
            clock.now_s += 2  # decodes
            with stopwatch.during("inference"):
                clock.now_s += 4  # both
        clock.now_s += 8  # waits again
    clock.now_s += 16  # none of the three
    assert stopwatch.times() == Times(queue_s=9, inference_s=4, codec_s=6, total_s=31)


def test_what_is_still_under_way_counts_until_now() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.begin("inference")
    clock.now_s += 2
    assert stopwatch.times().inference_s == 2
    clock.now_s += 3
    assert stopwatch.times().inference_s == 5


steps = st.lists(st.tuples(st.sampled_from(ACTIVITIES), st.booleans(), st.integers(0, 9)))


@given(steps)
def test_no_part_exceeds_the_whole_whatever_overlaps(steps: list[tuple[Activity, bool, int]]) -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    under_way: list[Activity] = []
    for activity, begins, seconds in steps:
        if begins:
            stopwatch.begin(activity)
            under_way.append(activity)
        elif activity in under_way:
            stopwatch.end(activity)
            under_way.remove(activity)
        clock.now_s += seconds
    times = stopwatch.times()
    assert times.total_s == sum(seconds for _, _, seconds in steps)
    assert times.queue_s + times.inference_s <= times.total_s
    assert times.queue_s + times.codec_s <= times.total_s


# Periods, of which a trace is made.


def test_periods_say_when_an_activity_was_under_way_without_a_break() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.record()
    with stopwatch.during("decode"):
        clock.now_s += 1
        with stopwatch.during("inference"), stopwatch.during("inference"):
            clock.now_s += 2
    clock.now_s += 4
    with stopwatch.during("inference"):
        clock.now_s += 8
        assert stopwatch.periods() == [
            Period("decode", 100, 103),
            Period("inference", 101, 103),
            Period("inference", 107, 115),
        ]


def test_no_periods_are_kept_unless_asked_for_and_never_more_than_a_trace_may_hold() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.during("decode"):
        pass
    assert stopwatch.periods() == []
    stopwatch.record()
    for _ in range(2 * MOST_PERIODS):
        with stopwatch.during("inference"):
            clock.now_s += 1
    periods = stopwatch.periods()
    assert len(periods) == MOST_PERIODS
    assert periods[-1] == Period("inference", 99 + MOST_PERIODS, 100 + 2 * MOST_PERIODS)
