"""The scheduler: requests that wait get equal shares of the device, whatever their size, and none starves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.jobs import Flow
from tests.runtime.gated_engine import (
    THUMBNAIL_PX,
    TILE_PX,
    Gated,
    job,
    scheduling,
)


@pytest.mark.parametrize("posters", [1, 2, 5, 8])
@pytest.mark.parametrize("steps", range(12))
def test_a_thumbnail_gets_the_next_batch_whatever_posters_wait(posters: int, steps: int) -> None:
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 99, pixels=1))
        engine.held()  # so that all posters come before the first of them runs
        for number in range(posters):
            scheduler.submit(job(engine, number, 5000))
        engine.let_go()
        for _ in range(steps):
            engine.step()
        engine.held()
        scheduler.submit(job(engine, 77, pixels=THUMBNAIL_PX, shape="thumbnail"))
        engine.let_go()
        assert engine.held() == [(77, 0)]


def test_a_thumbnail_waits_for_no_more_than_its_own_share_of_a_crowd() -> None:
    posters = 45
    for steps in range(0, 2 * posters, 8):
        engine = Gated(1)
        with scheduling(engine) as scheduler:
            scheduler.submit(job(engine, 99, pixels=1))
            engine.held()  # so that all posters come before the first of them runs
            for number in range(posters):
                scheduler.submit(job(engine, number, 50))
            engine.let_go()
            for _ in range(steps):
                engine.step()
            engine.held()
            scheduler.submit(job(engine, 777, pixels=THUMBNAIL_PX, shape="thumbnail"))
            engine.let_go()
            waited = 0
            while engine.step() != [(777, 0)]:
                waited += 1
            assert waited <= posters * THUMBNAIL_PX / TILE_PX + 1


@settings(max_examples=20)
@given(
    pixels=st.lists(st.integers(1, 50_000), min_size=2, max_size=6),
    max_batch=st.integers(1, 8),
    batches=st.integers(1, 25),
)
def test_waiting_requests_get_equal_shares_by_pixels(pixels: list[int], max_batch: int, batches: int) -> None:
    engine = Gated(max_batch)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 99, pixels=1))
        engine.held()
        for number, each in enumerate(pixels):
            scheduler.submit(job(engine, number, 400, pixels=each))
        engine.let_go()
        served = [0] * len(pixels)
        for _ in range(batches):
            for number, _ in engine.held():
                served[number] += pixels[number]
            if max(served[n] // each for n, each in enumerate(pixels)) >= 400:
                break  # somebody has nothing left, and needs no share
            assert max(served) - min(served) <= max(pixels)
            engine.let_go()


@pytest.mark.parametrize("crowd", [1, 3, 20])
def test_a_flood_of_thumbnails_starves_no_poster(crowd: int) -> None:
    """`crowd` callers who each send the next thumbnail when the last one ran get one share each, and so does a poster."""
    engine = Gated(1)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0, 10_000))
        for number in range(1, crowd + 1):
            scheduler.submit(job(engine, number, pixels=THUMBNAIL_PX, shape="thumbnail"))
        poster = thumbnails = 0
        for _ in range(600):
            ((number, _),) = engine.held()
            if number:
                thumbnails += THUMBNAIL_PX
                scheduler.submit(job(engine, number, pixels=THUMBNAIL_PX, shape="thumbnail"))
            else:
                poster += TILE_PX
            engine.let_go()
        assert poster == pytest.approx(thumbnails / crowd, rel=0.25)


def test_jobs_of_the_same_request_share_its_turns() -> None:
    """Two bands of a poster beside another poster: the device's time is halved between the posters."""
    engine, flow = Gated(1), Flow()
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0, pixels=1))
        engine.held()
        for number in (1, 2):
            scheduler.submit(job(engine, number, 100, flow=flow))
        scheduler.submit(job(engine, 3, 100))
        engine.let_go()
        served = [engine.step()[0][0] for _ in range(40)]
        assert served.count(3) == pytest.approx(20, abs=1)
        assert served.count(1) + served.count(2) == pytest.approx(20, abs=1)


def test_new_requests_do_not_delay_waiting_ones() -> None:
    """Five posters at a time, always new ones: each is done after its own share."""
    engine, tiles, others = Gated(1), 12, 5
    with scheduling(engine) as scheduler:
        for number in range(others):
            scheduler.submit(job(engine, number, 3))
        for _ in range(4):
            engine.step()
        scheduler.submit(job(engine, 1000, tiles))
        left, following = tiles, others
        for batches in range(1, 10_000):  # noqa: B007 - counted for the line after the loop
            ((number, index),) = engine.held()
            left -= number == 1000
            if left == 0:
                break
            if number != 1000 and index == 2:
                scheduler.submit(job(engine, following, 3))
                following += 1
            engine.let_go()
        assert batches <= tiles * (others + 1) * 1.25


def test_requests_of_another_model_or_shape_get_their_turns() -> None:
    engine, other = Gated(8), Gated(8)
    with scheduling(engine) as scheduler:
        scheduler.submit(job(engine, 0, 1000))
        engine.held()
        scheduler.submit(job(engine, 1, shape="strip"))
        scheduler.submit(job(other, 2))
        other.let_go()
        engine.let_go()
        assert engine.step() == [(1, 0)]
        assert other.held() == [(2, 0)]
