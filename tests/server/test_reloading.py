"""Models follow the folder of bundles while the server serves, and no request notices."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runtime import bundle as bundles_on_disk
from runtime.bundle import GRAPH, MANIFEST
from runtime.errors import BundleError, ModelNotFound
from server.models import memory
from server.models.models import Models
from server.models.reloading import Reload, Reloader, Watch
from tests.server.conftest import until
from tests.server.versions import Opener, Painter, write_version

GENEROUS = 2**50


@dataclass
class Following:
    """Models that follow a folder. changes: how often they changed."""

    folder: Path
    models: Models
    opener: Opener
    reloader: Reloader
    changes: list[None]

    def reload(self, *names: str) -> dict[str, str]:
        """Reload. What happened to each model."""
        return outcomes(self.reloader.reload(names))

    def levels(self) -> dict[str, int]:
        """The level that each model paints in."""
        return {model.name: painter(model).level for model in self.models}


def painter(model: Any) -> Painter:
    assert isinstance(model.engine, Painter)
    return model.engine


def outcomes(done: Reload | None) -> dict[str, str]:
    assert done is not None
    kinds = ("added", "replaced", "removed", "refused", "unchanged")
    return {change.name: kind for kind in kinds for change in getattr(done, kind)}


@contextmanager
def following(folder: Path, *, served: dict[str, int] | None = None, **options: Any) -> Iterator[Following]:
    """served: the models at the start, and their levels."""
    for name, level in (served or {}).items():
        write_version(folder, level, name)
    opener = Opener()
    options = {"available_bytes": lambda: GENEROUS, "open_bundle": opener, **options}
    engines = [Painter(bundle) for bundle in bundles_on_disk.discover(folder, may_be_empty=True)]
    models = Models(engines, **options)
    changes: list[None] = []
    reloader = Reloader(models, folder, on_change=lambda: changes.append(None))
    try:
        yield Following(folder, models, opener, reloader, changes)
    finally:
        opener.gate.set()
        models.close()


# What a reload does.


def test_models_are_added_replaced_and_removed(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1, "b": 2, "c": 3}) as running:
        write_version(tmp_path, 20, "b")
        shutil.rmtree(tmp_path / "c")
        write_version(tmp_path, 4, "d")
        expected = {"a": "unchanged", "b": "replaced", "c": "removed", "d": "added"}
        assert running.reload() == expected
        assert running.levels() == {"a": 1, "b": 20, "d": 4}
        assert list(running.models.catalog.entries) == ["a", "b", "d"]
        assert running.reload() == dict.fromkeys("abd", "unchanged")
        assert running.changes == [None]
        assert running.reloader.counts() == {"added": 1, "replaced": 1, "removed": 1, "refused": 0}


def test_what_serves_already_is_not_opened_again(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        shutil.copytree(tmp_path / "a", tmp_path / ".copy")
        shutil.rmtree(tmp_path / "a")
        (tmp_path / ".copy").rename(tmp_path / "a")
        assert running.reload() == {"a": "unchanged"}
        assert not running.opener.engines


def test_putting_the_folder_back_rolls_back(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        old = running.models.catalog.entries["a"].version
        shutil.copytree(tmp_path / "a", tmp_path / ".old")
        write_version(tmp_path, 2, "a")
        assert running.reload() == {"a": "replaced"}
        shutil.rmtree(tmp_path / "a")
        (tmp_path / ".old").rename(tmp_path / "a")
        assert running.reload() == {"a": "replaced"}
        assert running.levels() == {"a": 1}
        assert running.models.catalog.entries["a"].version == old


def test_only_the_models_that_were_named(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1, "b": 2, "c": 3}) as running:
        for name in "ab":
            write_version(tmp_path, 100, name)
        shutil.rmtree(tmp_path / "c")
        assert running.reload("b", "z") == {"b": "replaced", "z": "refused"}
        assert running.levels() == {"a": 1, "b": 100, "c": 3}
        assert running.reload("c") == {"c": "removed"}
        assert running.reload() == {"a": "replaced", "b": "unchanged"}


def test_the_defaults_follow(tmp_path: Path) -> None:
    with following(tmp_path, served={"mine": 1}) as running:
        find = running.models.find
        assert find("upscale", "").name == "mine"
        write_version(tmp_path, 2, "esrgan-x4")
        running.reload()
        assert find("upscale", "").name == "esrgan-x4"
        shutil.rmtree(tmp_path / "esrgan-x4")
        running.reload()
        assert find("upscale", "").name == "mine"
        shutil.rmtree(tmp_path / "mine")
        running.reload()
        with pytest.raises(ModelNotFound, match="there is none yet"):
            find("upscale", "")


def test_a_default_that_was_named_has_no_substitute(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1, "b": 2}, defaults={"upscale": "a"}) as running:
        shutil.rmtree(tmp_path / "a")
        running.reload()
        with pytest.raises(Exception, match="no default model"):
            running.models.find("upscale", "")
        write_version(tmp_path, 3, "a")
        running.reload()
        assert running.models.find("upscale", "").name == "a"


# What is refused.


def break_hash(path: Path) -> None:
    (path / GRAPH).write_bytes(b"\x12\x01x")


def break_manifest(path: Path) -> None:
    (path / MANIFEST).write_text("{")


def lose_the_graph(path: Path) -> None:
    (path / GRAPH).unlink()


@pytest.mark.parametrize("harm", [break_hash, break_manifest, lose_the_graph])
def test_a_bad_bundle_is_refused_and_the_old_one_stays(tmp_path: Path, harm: Any) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        version = write_version(tmp_path, 2, "a").version
        harm(tmp_path / "a")
        assert running.reload() == {"a": "refused"}
        assert running.levels() == {"a": 1}
        write_version(tmp_path, 2, "a")
        assert running.reload() == {"a": "replaced"}
        assert running.models.catalog.entries["a"].version == version


def test_an_engine_that_does_not_open_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        running.opener.broken.add(2)
        write_version(tmp_path, 2, "a")
        (refused,) = running.reloader.reload().refused
        assert (refused.name, refused.reason) == ("a", "a: does not compile")
        assert refused.version == running.models.catalog.entries["a"].version
        assert running.levels() == {"a": 1}


def test_a_library_that_raises_anything_is_refused(tmp_path: Path) -> None:
    def fails(bundle: object) -> Any:
        raise MemoryError

    with following(tmp_path, open_bundle=fails) as running:
        write_version(tmp_path, 2, "a")
        assert running.reload() == {"a": "refused"}


def test_a_name_that_another_folder_has_is_refused(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        shutil.copytree(tmp_path / "a", tmp_path / "0")
        (refused,) = running.reloader.reload().refused
        assert f"{tmp_path / 'a'} is called a too" in refused.reason
        shutil.rmtree(tmp_path / "a")
        assert running.reload() == {"a": "replaced"}
        assert running.models.catalog.entries["a"].bundle.path == tmp_path / "0"


def test_two_folders_may_exchange_their_bundles(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1, "b": 2}) as running:
        (tmp_path / "a").rename(tmp_path / ".c")
        (tmp_path / "b").rename(tmp_path / "a")
        (tmp_path / ".c").rename(tmp_path / "b")
        assert set(running.reload().values()) <= {"replaced"}
        assert running.levels() == {"a": 1, "b": 2}
        assert running.reload() == {"a": "unchanged", "b": "unchanged"}


def test_without_memory_for_both_the_new_one_is_refused(tmp_path: Path) -> None:
    available = [GENEROUS]
    with following(tmp_path, served={"a": 1}, available_bytes=lambda: available[0]) as running:
        bundle = write_version(tmp_path, 2, "a")
        available[0] = memory.bytes_to_open(bundle) + memory.RESERVE_BYTES - 1
        (refused,) = running.reloader.reload().refused
        assert (
            "a needs about 64 MiB and 64 MiB in reserve, this process may take 128 MiB more" in refused.reason
        )
        assert running.levels() == {"a": 1}
        available[0] += 1
        assert running.reload() == {"a": "replaced"}


def test_the_budget_holds_for_models_that_are_added(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}, max_bytes=150 * 2**20) as running:
        write_version(tmp_path, 2, "b")
        write_version(tmp_path, 3, "c")
        assert running.reload() == {"a": "unchanged", "b": "added", "c": "refused"}


def test_a_folder_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    with following(tmp_path / "bundles", served={"a": 1}) as running:
        (tmp_path / "bundles").rename(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match="the models stay as they are"):
            running.reload()
        assert running.levels() == {"a": 1}


# The old model.


def test_requests_under_way_finish_on_the_old_model(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:

        async def replace_under_way() -> None:
            async with running.models.using("upscale", "a") as old:
                write_version(tmp_path, 2, "a")
                assert await asyncio.to_thread(running.reload) == {"a": "replaced"}
                async with running.models.using("upscale", "a") as new:
                    assert (painter(old).level, painter(new).level) == (1, 2)
                assert not painter(old).closed.is_set()
                assert running.models.stats().open == 2
            assert await asyncio.to_thread(painter(old).closed.wait, 30)

        asyncio.run(replace_under_way())
        until(lambda: running.models.stats().open == 1)


def test_a_removed_model_finishes_its_requests(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1, "b": 2}) as running:

        async def remove_under_way() -> None:
            async with running.models.using("upscale", "a") as old:
                shutil.rmtree(tmp_path / "a")
                assert await asyncio.to_thread(running.reload) == {"a": "removed", "b": "unchanged"}
                assert not painter(old).closed.is_set()
                with pytest.raises(ModelNotFound, match="'a' is not served here; there are b"):
                    async with running.models.using("upscale", "a"):
                        pass
            assert await asyncio.to_thread(painter(old).closed.wait, 30)

        asyncio.run(remove_under_way())


def test_the_old_model_serves_while_the_new_one_is_opened(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        write_version(tmp_path, 2, "a")
        running.opener.gate.clear()
        reloading = threading.Thread(target=running.reload)
        reloading.start()
        assert running.opener.entered.wait(30)
        assert running.levels() == {"a": 1}
        running.opener.gate.set()
        reloading.join()
        assert running.levels() == {"a": 2}


def test_two_reloads_at_once_run_one_after_the_other(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        write_version(tmp_path, 2, "a")
        running.opener.gate.clear()
        done: list[dict[str, str]] = []
        threads = [threading.Thread(target=lambda: done.append(running.reload())) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert running.opener.entered.wait(30)
        running.opener.gate.set()
        for thread in threads:
            thread.join()
        assert done == [{"a": "replaced"}, {"a": "unchanged"}, {"a": "unchanged"}]
        assert len(running.opener.engines) == 1


def test_a_reload_that_is_closed_stops_before_its_next_bundle(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1}) as running:
        write_version(tmp_path, 2, "a")
        running.reloader.close()
        assert running.reload() == {"a": "refused"}
        assert not running.opener.engines


# Watching.


def test_watching_takes_a_bundle_once_it_stays_the_same(tmp_path: Path) -> None:
    with following(tmp_path) as running:
        follow = running.reloader.follow
        assert follow() is None
        write_version(tmp_path / "elsewhere", 1, "a")
        source = tmp_path / "elsewhere" / "a"
        (tmp_path / "a").mkdir()
        shutil.copy(source / MANIFEST, tmp_path / "a")
        assert follow() is None  # new
        (tmp_path / "a" / GRAPH).write_bytes(b"")
        assert follow() is None  # changed again
        shutil.copy(source / GRAPH, tmp_path / "a")
        assert follow() is None
        assert not running.opener.engines
        assert outcomes(follow()) == {"a": "added"}
        assert follow() is None


def test_a_copy_that_stops_half_way_is_refused_once_and_taken_when_it_goes_on(tmp_path: Path) -> None:
    with following(tmp_path) as running, capture_logs() as lines:
        follow = running.reloader.follow
        source = write_version(tmp_path / "elsewhere", 1, "a").path
        (tmp_path / "a").mkdir()
        shutil.copy(source / MANIFEST, tmp_path / "a")
        done = [follow() for _ in range(20)]
        assert [outcomes(each) for each in done if each] == [{"a": "refused"}]
        assert [line["event"] for line in lines] == ["bundle refused"]
        shutil.copy(source / GRAPH, tmp_path / "a")
        assert [outcomes(each) for each in (follow(), follow()) if each] == [{"a": "added"}]


def test_a_bundle_is_removed_once_it_stays_away(tmp_path: Path) -> None:
    with following(tmp_path, served={"a": 1, "b": 2}) as running:
        follow = running.reloader.follow
        assert [follow(), outcomes(follow()), follow()] == [None, {"a": "unchanged", "b": "unchanged"}, None]
        (tmp_path / "b").rename(tmp_path / ".b")
        assert follow() is None
        (tmp_path / ".b").rename(tmp_path / "b")
        assert follow() is None  # as before
        assert follow() is None
        shutil.rmtree(tmp_path / "b")
        assert [follow(), outcomes(follow())] == [None, {"a": "unchanged", "b": "removed"}]


def test_a_refused_bundle_is_tried_again_when_anything_changes(tmp_path: Path) -> None:
    available = [0]
    with following(tmp_path, available_bytes=lambda: available[0]) as running:
        write_version(tmp_path, 1, "a")
        running.reloader.follow()
        assert outcomes(running.reloader.follow()) == {"a": "refused"}
        available[0] = GENEROUS
        assert running.reloader.follow() is None
        write_version(tmp_path, 2, "b")
        running.reloader.follow()
        assert outcomes(running.reloader.follow()) == {"a": "added", "b": "added"}


def test_a_watched_folder_that_cannot_be_read_is_logged_once(tmp_path: Path) -> None:
    with following(tmp_path / "bundles", served={"a": 1}) as running, capture_logs() as lines:
        watch = Watch(running.reloader, every_s=0.001)
        watch.start()
        until(lambda: len(running.reloader._seen) == 1)
        (tmp_path / "bundles").rename(tmp_path / "elsewhere")
        until(lambda: len(lines) == 1)
        threading.Event().wait(0.1)  # it goes on looking
        (tmp_path / "elsewhere").rename(tmp_path / "bundles")
        write_version(tmp_path / "bundles", 2, "a")
        until(lambda: len(lines) == 2)
        watch.close()
        assert running.levels() == {"a": 2}
    assert [line["event"] for line in lines] == ["not reloaded", "model replaced"]
