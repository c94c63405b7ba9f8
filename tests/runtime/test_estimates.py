"""Estimates: how fast they follow, what a stall does to them, and how they become the seconds of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cost import Cost
from runtime.estimates import FIRST_GUESS_S_PER_PX, Coding, Estimates, OnDevice, Rate, Speed
from runtime.pictures.formats import Encoding

PX = 1000
MEGAPIXEL = 10**6


def value(rate: Rate, now_s: float = 0.0) -> float:
    found = rate.value(now_s)
    assert found is not None
    return found


def learned(seconds_per_px: float, times: int = 100) -> Rate:
    rate = Rate()
    for _ in range(times):
        rate.learn(seconds_per_px * PX, PX, 0.0)
    return rate


def test_nothing_is_known_before_something_ran_but_the_guess() -> None:
    assert Rate().value(0.0) is None
    rate = Rate(guess=3.0)
    assert rate.value(0.0) == 3.0
    rate.learn(1.0 * PX, PX, 0.0)
    assert rate.value(0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
def test_after_twenty_batches_at_another_speed_the_estimate_is_that_speed(factor: float) -> None:
    rate = learned(1.0)
    for _ in range(20):
        rate.learn(factor * PX, PX, 0.0)
    assert abs(value(rate) - factor) < 0.15 * abs(1 - factor)
    for _ in range(20):
        rate.learn(factor * PX, PX, 0.0)
    assert abs(value(rate) - factor) < 0.02 * abs(1 - factor)


def test_one_stalled_batch_moves_the_estimate_by_a_third_at_most() -> None:
    rate = learned(1.0)
    rate.learn(60_000.0 * PX, PX, 0.0)
    assert 1.0 < value(rate) <= 1.34
    for _ in range(10):
        rate.learn(1.0 * PX, PX, 0.0)
    assert value(rate) == pytest.approx(1.0, rel=0.15)


def test_a_device_that_stalled_is_trusted_again_after_some_minutes_in_which_nothing_ran() -> None:
    """Otherwise every request with a deadline would be refused for ever, and nothing would correct the estimate."""
    rate = learned(1.0)
    for _ in range(5):
        rate.learn(60_000.0 * PX, PX, 0.0)
    stalled = value(rate)
    assert stalled > 2.0
    assert value(rate, 60.0) - 1.0 == pytest.approx((stalled - 1.0) / 2, rel=0.3)
    assert value(rate, 600.0) < 1.3
    # And what it went back to, it does not forget at the next batch.
    rate.learn(1.0 * PX, PX, 600.0)
    assert value(rate, 600.0) < 1.3


def test_a_device_that_was_fast_for_a_moment_is_not_trusted_for_long() -> None:
    rate = learned(1.0)
    rate.learn(0.0, PX, 0.0)
    assert value(rate) > 0.85
    for _ in range(10):
        rate.learn(0.0, PX, 0.0)
    assert value(rate, 600.0) == pytest.approx(0.9, abs=0.1)


@given(st.lists(st.tuples(st.floats(0.5, 2.0), st.integers(1, 10**6)), min_size=1, max_size=50))
def test_an_estimate_lies_between_the_fastest_and_the_slowest(runs: list[tuple[float, int]]) -> None:
    rate = Rate()
    for number, (speed, pixels) in enumerate(runs):
        rate.learn(speed * pixels, pixels, float(number))
    speeds = [speed for speed, _ in runs]
    assert min(speeds) * 0.999 <= value(rate, 1e3) <= max(speeds) * 1.001


def test_small_things_are_estimated_by_small_things() -> None:
    speed = Speed()
    speed.learn(32 * 32, 0.020, 32 * 32, 0.0)
    speed.learn(192 * 192, 0.200, 192 * 192, 0.0)
    assert speed.value(0.0, 32 * 32) == pytest.approx(0.020 / 32**2)
    assert speed.value(0.0, 192 * 192) == pytest.approx(0.200 / 192**2)
    assert speed.value(0.0, 10**8) == speed.value(0.0, 192 * 192)  # the next known size
    assert speed.value(0.0) == pytest.approx(0.22 / (32**2 + 192**2), rel=0.1)


def test_a_poster_is_not_estimated_by_thumbnails_which_cost_more_for_each_pixel() -> None:
    speed = Speed(guess=5e-6)
    speed.learn(32 * 32, 0.020, 32 * 32, 0.0)
    assert speed.value(0.0, 192 * 192) == 5e-6
    assert speed.value(0.0, 16 * 16) == pytest.approx(0.020 / 32**2)
    speed.learn(192 * 192, 0.400, 192 * 192, 0.0)
    assert speed.value(0.0, 192 * 192) == pytest.approx(0.400 / 192**2)


def costs(estimates: Estimates, coding: Coding, device: OnDevice | None = None) -> Cost:
    return estimates.cost(Cost(MEGAPIXEL, 1), device or OnDevice(4, 1e-6, 2), coding)


def test_a_small_picture_is_decoded_computed_and_encoded_one_after_the_other() -> None:
    estimates = Estimates(4)
    cost = costs(estimates, Coding(Encoding("png"), 10 * MEGAPIXEL))
    assert cost.device_s == pytest.approx(0.5)  # two slots
    assert cost.codec_s == pytest.approx(FIRST_GUESS_S_PER_PX * 10 * MEGAPIXEL / 4)
    assert cost.alone_s == pytest.approx(0.5 + FIRST_GUESS_S_PER_PX * 10 * MEGAPIXEL)


def test_a_single_tile_has_only_one_of_the_slots() -> None:
    coding = Coding(Encoding("png"), 0)
    cost = costs(Estimates(4), coding, OnDevice(1, 1e-6, 2))
    assert cost.device_s == pytest.approx(0.5)
    assert cost.alone_s == pytest.approx(1.0)


def test_the_steps_of_a_large_picture_overlap_and_samples_are_encoded_side_by_side() -> None:
    estimates = Estimates(4)
    large = costs(estimates, Coding(Encoding("png"), 10 * MEGAPIXEL, overlaps=True))
    assert large.alone_s == pytest.approx(max(0.5, FIRST_GUESS_S_PER_PX * 10 * MEGAPIXEL))
    samples = costs(estimates, Coding(Encoding("png"), 10 * MEGAPIXEL, files=16))
    assert samples.alone_s == pytest.approx(0.5 + FIRST_GUESS_S_PER_PX * 10 * MEGAPIXEL / 4)


def test_codecs_are_learned_by_format_and_effort_and_size() -> None:
    now_s = 0.0
    estimates = Estimates(1, clock=lambda: now_s)
    slow = Coding(Encoding("webp", lossless=True), MEGAPIXEL)
    fast = Coding(Encoding("webp"), MEGAPIXEL)
    guess = costs(estimates, fast).codec_s
    for _ in range(30):
        estimates.learn(slow, 2.0)
    assert costs(estimates, slow).codec_s == pytest.approx(2.0)
    assert costs(estimates, fast).codec_s == guess
    best = Coding(Encoding("png", compression=9), MEGAPIXEL)
    estimates.learn(best, 3.0)
    assert costs(estimates, best).codec_s == pytest.approx(3.0)
    assert costs(estimates, Coding(Encoding("png"), MEGAPIXEL)).codec_s == pytest.approx(
        FIRST_GUESS_S_PER_PX * MEGAPIXEL
    )


def test_what_samples_took_side_by_side_is_learned_as_what_they_take_alone() -> None:
    estimates = Estimates(4)
    samples = Coding(Encoding("png"), MEGAPIXEL, files=8)
    estimates.learn(samples, 1.0)
    assert costs(estimates, samples).alone_s == pytest.approx(0.5 + 1.0)
    assert costs(estimates, samples).codec_s == pytest.approx(1.0)
