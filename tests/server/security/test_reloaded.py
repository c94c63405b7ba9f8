"""Values that are read again when their files change: what counts as a change, and what a failure leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.security.reloaded import Reloaded
from tests.clock import Clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "value").write_text("old")
    return tmp_path / "value"


def reloaded(file: Path, **options: object) -> Reloaded[str]:
    def read() -> str:
        content = file.read_text()
        if content == "bad":
            raise ValueError("this is bad")
        return content

    return Reloaded("value", [file], read, **options)  # type: ignore[arg-type]


def test_a_file_that_is_replaced_or_written_to_is_read_again(file: Path) -> None:
    value = reloaded(file)
    assert value.current() == "old"
    file.with_suffix(".new").write_text("new")
    file.with_suffix(".new").replace(file)
    assert value.current() == "new"
    file.write_text("longer")
    assert value.current() == "longer"


def test_a_change_that_keeps_length_and_time_is_seen(file: Path) -> None:
    """As rsync --inplace --times makes it."""
    value, before = reloaded(file), file.stat()
    os.utime(file, ns=(0, 0))
    assert value.current() == "old"
    before = file.stat()
    # The clock of a file system has steps of milliseconds.
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_text("new")
        os.utime(file, ns=(0, 0))
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert value.current() == "new"


def test_a_link_counts_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    """Kubernetes changes a secret so: the files are links into a folder that is itself a link."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "value").write_text(name)
    (tmp_path / "data").symlink_to("first")
    (tmp_path / "value").symlink_to("data/value")
    value = reloaded(tmp_path / "value")
    assert value.current() == "first"
    (tmp_path / "new").symlink_to("second")
    (tmp_path / "new").replace(tmp_path / "data")
    assert value.current() == "second"


def test_a_failure_keeps_the_old_value_and_is_logged_once(file: Path) -> None:
    value = reloaded(file)
    with capture_logs() as lines:
        file.write_text("bad")
        assert [value.current() for _ in range(3)] == ["old"] * 3
        file.unlink()
        assert [value.current() for _ in range(3)] == ["old"] * 3
        file.write_text("good again")
        assert value.current() == "good again"
    events = [(line["event"], line.get("reason", "")[:11]) for line in lines]
    kept = "not reloaded, the old one stays"
    assert events == [(kept, "this is bad"), (kept, "[Errno 2] N"), ("reloaded", "")]


def test_files_are_looked_at_no_more_often_than_asked(file: Path) -> None:
    clock = Clock()
    value = reloaded(file, check_every_s=1.0, clock=clock)
    file.write_text("new")
    clock.now_s += 0.9
    assert value.current() == "old"
    clock.now_s += 0.2
    assert value.current() == "new"


def test_the_first_failure_is_raised(file: Path) -> None:
    file.write_text("bad")
    with pytest.raises(ValueError, match="this is bad"):
        reloaded(file)
