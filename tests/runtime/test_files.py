"""Files are written completely or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runtime.files import atomic_write, sha256, write_text


def test_a_file_is_renamed_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with atomic_write(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.parent == path.parent
        assert unfinished.name.startswith(".")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [None, "old"])
def test_a_failed_write_leaves_no_file(
    tmp_path: Path, failure: type[BaseException], existing: str | None
) -> None:
    path = tmp_path / "result.json"
    if existing:
        path.write_text(existing)

    def write() -> None:
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert [(left, left.read_text()) for left in tmp_path.iterdir()] == ([(path, "old")] if existing else [])


def test_permissions_are_those_of_the_file_that_was_there_or_the_usual_ones(tmp_path: Path) -> None:
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    plain.touch()
    kept.touch(0o600)
    write_text(tmp_path / "new", "")
    write_text(kept, "")
    assert (tmp_path / "new").stat().st_mode == plain.stat().st_mode
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_writer_that_puts_a_private_file_there_changes_no_permissions(tmp_path: Path) -> None:
    """As safetensors does: a file of its own, mode 0600, renamed to the path that it was given."""
    usual = tmp_path / "usual"
    usual.touch()
    with atomic_write(tmp_path / "weights") as unfinished:
        private = tmp_path / "private"
        private.touch(0o600)
        private.replace(unfinished)
    assert (tmp_path / "weights").stat().st_mode == usual.stat().st_mode


def test_two_concurrent_writers_of_a_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_the_hash_covers_the_whole_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "data").write_bytes(data)
    assert sha256(tmp_path / "data") == hashlib.sha256(data).hexdigest()
