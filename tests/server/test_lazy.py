"""Models that are opened for the first request that needs them, within a budget of bytes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.bundle import Bundle
from runtime.errors import BundleError, Cancelled, EngineError, ModelNotFound, Overloaded
from runtime.jobs import Item, Job
from runtime.stopwatch import Stopwatch
from server.models import memory, models
from server.models.entry import Entry
from server.models.models import Models
from tests.clock import Clock
from tests.server.conftest import until
from tests.server.versions import Opener, write_version

GENEROUS = 2**50
UNTIL_NOTHING_S = 0.3  # of a wait for something that must not come


@dataclass
class Lazy:
    """Lazy models, not open; a bundle a name."""

    models: Models
    opener: Opener
    bundles: dict[str, Bundle]

    def state(self, name: str) -> str:
        return self.models.catalog.entries[name].state

    def states(self) -> str:
        """The open models' names."""
        return "".join(name for name in self.bundles if self.state(name) == "serving")


@contextmanager
def lazily(folder: Path, names: str = "abc", room_for: int | None = None, **options: Any) -> Iterator[Lazy]:
    """room_for: the budget, in models."""
    opener = Opener()
    bundles = {name: write_version(folder, level, name) for level, name in enumerate(names)}
    max_bytes = room_for and max(map(memory.bytes_to_open, bundles.values())) * room_for
    options = {"available_bytes": lambda: GENEROUS, **options}
    served = Models(lazy=True, open_bundle=opener, max_bytes=max_bytes, **options)
    for bundle in bundles.values():
        served.add(bundle)
    try:
        yield Lazy(served, opener, bundles)
    finally:
        opener.gate.set()
        served.close()


async def use(lazy: Lazy, name: str) -> int:
    """Use a model as a request does; its level."""
    async with lazy.models.using("upscale", name) as model:
        assert model.engine in lazy.opener.engines
        assert not model.engine.closed.is_set()
        return model.engine.level


def test_nothing_is_open_before_the_first_request(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        assert [entry.state for entry in lazy.models.catalog.entries.values()] == ["idle"] * 3
        assert not list(lazy.models)
        assert lazy.models.stats().open == 0
        assert asyncio.run(use(lazy, "b")) == 1
        assert lazy.states() == "b"
        assert [model.name for model in lazy.models] == ["b"]


def test_requests_for_a_model_that_is_being_opened_wait_for_it_together(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        lazy.opener.gate.clear()

        async def together() -> list[int]:
            calls = [asyncio.create_task(use(lazy, "b")) for _ in range(5)]
            await asyncio.to_thread(lazy.opener.entered.wait, 30)
            assert lazy.state("b") == "loading"
            lazy.opener.gate.set()
            return await asyncio.gather(*calls)

        assert asyncio.run(together()) == [1] * 5
        assert len(lazy.opener.engines) == 1


def test_waiting_for_a_model_counts_as_queue_time(tmp_path: Path) -> None:
    clock = Clock()
    with lazily(tmp_path) as lazy:
        lazy.opener.gate.clear()
        stopwatch = Stopwatch(clock)

        async def timed() -> None:
            async with lazy.models.using("upscale", "b", stopwatch):
                clock.now_s += 5

        async def opening_takes_3_s() -> None:
            call = asyncio.create_task(timed())
            await asyncio.to_thread(lazy.opener.entered.wait, 30)
            clock.now_s += 3
            lazy.opener.gate.set()
            await call

        asyncio.run(opening_takes_3_s())
        assert stopwatch.times().queue_s == 3


def test_a_caller_that_gives_up_leaves_the_others_their_model(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        lazy.opener.gate.clear()

        async def one_gives_up() -> int:
            first, second = (asyncio.create_task(use(lazy, "b")) for _ in range(2))
            await asyncio.to_thread(lazy.opener.entered.wait, 30)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            lazy.opener.gate.set()
            return await second

        assert asyncio.run(one_gives_up()) == 1


def test_the_least_recently_used_model_is_closed_for_another(tmp_path: Path) -> None:
    with lazily(tmp_path, "abcd", room_for=2) as lazy:
        for name, still_open in [("a", "a"), ("b", "ab"), ("a", "ab"), ("c", "ac"), ("d", "cd"), ("c", "cd")]:
            asyncio.run(use(lazy, name))
            assert lazy.states() == still_open
        assert {engine.manifest.name for engine in lazy.opener.engines if engine.closed.is_set()} == {
            "a",
            "b",
        }
        assert lazy.models.stats().open == 2


def test_a_model_in_use_is_not_closed_and_a_request_waits_for_room(tmp_path: Path) -> None:
    with lazily(tmp_path, "ab", room_for=1) as lazy:

        async def both() -> None:
            async with lazy.models.using("upscale", "a"):
                other = asyncio.create_task(use(lazy, "b"))
                while lazy.state("b") != "loading":
                    await asyncio.sleep(0)
                assert not await asyncio.to_thread(lazy.opener.engines[0].closed.wait, UNTIL_NOTHING_S)
                assert not lazy.opener.opened(1)
            assert await other == 1

        asyncio.run(both())
        assert lazy.states() == "b"


def test_later_requests_wait_for_a_model_that_makes_room(tmp_path: Path) -> None:
    """Otherwise a steady load on one model would keep all others waiting."""
    with lazily(tmp_path, "ab", room_for=1) as lazy:

        async def in_turn() -> None:
            async with lazy.models.using("upscale", "a"):
                other = asyncio.create_task(use(lazy, "b"))
                while not lazy.models.catalog.entries["a"].leaving:
                    await asyncio.sleep(0)
                later = asyncio.create_task(use(lazy, "a"))
                await asyncio.sleep(0.05)
                assert not later.done()
            assert list(await asyncio.gather(other, later)) == [1, 0]

        asyncio.run(in_turn())
        assert [engine.level for engine in lazy.opener.engines] == [0, 1, 0]


def test_nobody_waits_for_room_any_more(tmp_path: Path) -> None:
    with lazily(tmp_path, "ab", room_for=1) as lazy:

        async def gives_up() -> None:
            async with lazy.models.using("upscale", "a"):
                other = asyncio.create_task(use(lazy, "b"))
                while lazy.state("b") != "loading":
                    await asyncio.sleep(0)
                other.cancel()
                await asyncio.gather(other, return_exceptions=True)
                while lazy.state("b") != "idle":
                    await asyncio.sleep(0)

        asyncio.run(gives_up())
        assert asyncio.run(use(lazy, "b")) == 1


def test_the_engine_is_closed_only_after_its_last_batch(tmp_path: Path) -> None:
    """A caller that went away leaves a batch on the device."""
    with lazily(tmp_path, "ab", room_for=1) as lazy:

        async def leaves_a_batch() -> None:
            async with lazy.models.using("upscale", "a") as model:
                engine = lazy.opener.engines[0]
                engine.entered.clear()
                engine.gate.clear()
                image = {"image": np.zeros((3, 8, 8), np.float32)}
                job = Job(engine, [Item("x", 64)], inputs=lambda _: image, deliver=lambda *_: None)
                model.scheduler.submit(job)
                engine.entered.wait(30)
                model.scheduler.cancel(job)
            other = asyncio.create_task(use(lazy, "b"))
            while lazy.state("b") != "loading":
                await asyncio.sleep(0)
            assert not await asyncio.to_thread(engine.closed.wait, UNTIL_NOTHING_S)
            engine.gate.set()
            assert await other == 1
            assert engine.closed.is_set()

        asyncio.run(leaves_a_batch())


def test_a_model_larger_than_the_budget_is_refused_with_the_flag(tmp_path: Path) -> None:
    bundle = write_version(tmp_path, 1)
    served = Models(lazy=True, open_bundle=Opener(), max_bytes=2**20)
    with pytest.raises(BundleError, match="--max-models-bytes allows 1 MiB"):
        served.add(bundle)


def test_a_model_is_closed_for_another_where_memory_is_short(tmp_path: Path) -> None:
    available = [GENEROUS]
    with lazily(tmp_path, available_bytes=lambda: available[0]) as lazy:
        asyncio.run(use(lazy, "a"))
        available[0] = 0
        with pytest.raises(Overloaded, match="this process may take 0 MiB more"):
            asyncio.run(use(lazy, "b"))
        assert lazy.states() == ""
        available[0] = GENEROUS
        assert asyncio.run(use(lazy, "b")) == 1


def test_a_failure_is_repeated_for_a_while_and_then_tried_again(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        lazy.opener.broken.add(1)
        for _ in range(3):
            with pytest.raises(EngineError, match="b: does not compile"):
                asyncio.run(use(lazy, "b"))
            lazy.opener.broken.clear()  # it is not even tried
        assert lazy.state("b") == "unavailable"
        assert asyncio.run(use(lazy, "a")) == 0
        entry = lazy.models.catalog.entries["b"]
        entry.retry_at_s -= models.RETRY_OPENING_S
        assert asyncio.run(use(lazy, "b")) == 1
        assert lazy.state("b") == "serving"


def test_a_bundle_that_changed_since_it_was_listed_is_taken_as_it_is_now(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        changed = write_version(tmp_path, 200, "b")
        assert asyncio.run(use(lazy, "b")) == 200
        assert lazy.models.catalog.entries["b"].version == changed.version


def test_a_folder_that_holds_another_model_now_is_not_opened(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        shutil.rmtree(tmp_path / "b")
        (tmp_path / "a").rename(tmp_path / "b")
        with pytest.raises(BundleError, match="now holds a; reload"):
            asyncio.run(use(lazy, "b"))


def test_a_request_that_waits_for_a_model_that_is_replaced_gets_the_new_one(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:

        async def replaced_meanwhile() -> int:
            with lazy.models._one_at_a_time:  # as while a reload opens another model
                waiting = asyncio.create_task(use(lazy, "b"))
                while lazy.state("b") != "loading":
                    await asyncio.sleep(0)
                lazy.models._swap("b", Entry(write_version(tmp_path, 200, "b")))
            return await waiting

        assert asyncio.run(replaced_meanwhile()) == 200
        assert not lazy.opener.opened(1)


def test_a_request_that_waits_for_a_model_that_is_removed_is_told_so(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:

        async def removed_meanwhile() -> int:
            with lazy.models._one_at_a_time:
                waiting = asyncio.create_task(use(lazy, "b"))
                while lazy.state("b") != "loading":
                    await asyncio.sleep(0)
                lazy.models._swap("b", None)
            return await waiting

        with pytest.raises(ModelNotFound, match="'b' is not served here"):
            asyncio.run(removed_meanwhile())


def test_replacing_an_idle_model_opens_nothing_and_an_open_one_its_successor(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        asyncio.run(use(lazy, "a"))
        lazy.models.add(write_version(tmp_path, 100, "a"))
        lazy.models.add(write_version(tmp_path, 101, "b"))
        assert lazy.states() == "a"
        until(lambda: lazy.opener.opened(0)[0].closed.is_set())
        assert asyncio.run(use(lazy, "a")) == 100
        assert len(lazy.opener.opened(100)) == 1


def test_a_server_that_closes_opens_no_more(tmp_path: Path) -> None:
    with lazily(tmp_path) as lazy:
        pass
    with pytest.raises(Cancelled):
        asyncio.run(use(lazy, "a"))
    assert all(engine.closed.is_set() for engine in lazy.opener.engines)
