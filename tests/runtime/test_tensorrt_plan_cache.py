"""The cache of compiled plans: private, exact, and without plans that were altered."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.backends import tensorrt_plan_cache as plan_cache
from runtime.manifest import EngineFile


def entry_for(**changes: str) -> EngineFile:
    plain = EngineFile("engines/x.plan", "tensorrt", "11.4", "8.9", "0" * 64, "n1-8")
    return replace(plain, **changes)


def test_keeps_a_plan_for_exactly_what_it_was_compiled_for(tmp_path: Path) -> None:
    cache = plan_cache.PlanCache(tmp_path / "cache")
    cache.put(entry_for(), b"plan")
    again = plan_cache.PlanCache(tmp_path / "cache")
    assert again.get(entry_for(path="engines/renamed.plan"))[0] == b"plan"
    assert again.get(entry_for(library_version="11.5"))[0] is None
    assert again.get(entry_for(profile="n1-4"))[0] is None


def test_the_cache_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    path = plan_cache.PlanCache(folder).put(entry_for(), b"plan")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_refuses_an_altered_plan_and_says_so(tmp_path: Path) -> None:
    cache = plan_cache.PlanCache(tmp_path)
    cache.put(entry_for(), b"plan").write_bytes(b"evil")
    cached, why = cache.get(entry_for())
    assert cached is None
    assert "altered" in why
    cache.put(entry_for(), b"plan again")
    assert cache.get(entry_for())[0] == b"plan again"


def test_ignores_a_link_and_a_file_that_the_index_does_not_list(tmp_path: Path) -> None:
    cache = plan_cache.PlanCache(tmp_path / "cache")
    path = cache.put(entry_for(), b"plan")
    (tmp_path / "elsewhere").write_bytes(b"plan")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.get(entry_for())[0] is None


@pytest.mark.parametrize("broken", [b"", b"{", b"[1, 2]", b"\xff\xfe"])
def test_a_damaged_index_counts_as_empty(tmp_path: Path, broken: bytes) -> None:
    cache = plan_cache.PlanCache(tmp_path)
    cache.put(entry_for(), b"plan")
    (tmp_path / plan_cache.INDEX).write_bytes(broken)
    assert cache.get(entry_for())[0] is None
    cache.put(entry_for(), b"plan")
    assert cache.get(entry_for())[0] == b"plan"


def test_the_cache_drops_the_oldest_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "MAX_PLANS", 2)
    cache = plan_cache.PlanCache(tmp_path)
    for version in ("1", "2", "3"):
        cache.put(entry_for(library_version=version), version.encode())
    kept = [cache.get(entry_for(library_version=version))[0] for version in ("1", "2", "3")]
    assert kept == [None, b"2", b"3"]
    assert len(list(tmp_path.glob("*.plan"))) == 2


@pytest.mark.parametrize("variable", ["", "relative/path"])
def test_lies_in_the_home_folder_unless_the_environment_names_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert plan_cache.default_folder() == tmp_path / ".cache" / "ganforge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert plan_cache.default_folder() == tmp_path / "own" / "ganforge"
