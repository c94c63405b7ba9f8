"""The list of deliberate faults fits the source: quick, so that a change that leaves an entry behind is noticed at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.faults import FOLDER, ROOT, Fault, StaleFault, check_test_exists, faulty_text, read

ENTRY = """
[[fault]]
name = "adds one too many"
file = "plus.py"
before = "a + b"
after = "a + b + 1"
"""


@pytest.mark.parametrize("fault", read(), ids=lambda fault: f"{fault.room}: {fault.name}")
def test_a_fault_fits_its_file_and_its_tests_exist(fault: Fault) -> None:
    faulty_text(fault, ROOT)
    for test in fault.tests:
        check_test_exists(test, ROOT)


def test_no_two_faults_have_one_name() -> None:
    assert [name for name, count in Counter(fault.name for fault in read()).items() if count > 1] == []


def test_there_are_faults_in_every_list() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {fault.room for fault in read()} != set()


def one(folder: Path, entry: str) -> Fault:
    (folder / "room.toml").write_text(entry)
    (fault,) = read(folder)
    return fault


def test_an_entry_is_read_with_its_room(tmp_path: Path) -> None:
    fault = one(tmp_path, ENTRY + 'tests = ["test_plus.py::test_plus"]')
    assert (fault.room, fault.name) == ("room", "adds one too many")
    assert fault.tests == ("test_plus.py::test_plus",)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", "either"),
        ('tests = ["a"]\nequivalent = "why"', "either"),
        ('tests = ["a"]\ntest = "b"', "unknown key test"),
    ],
    ids=["no tests", "tests of an equivalent", "a wrong key"],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, more: str, why: str) -> None:
    with pytest.raises(StaleFault, match=why):
        one(tmp_path, ENTRY + more)


def test_an_entry_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StaleFault, match="file missing"):
        one(tmp_path, ENTRY.replace('file = "plus.py"', "") + 'tests = ["a"]')


@pytest.mark.parametrize(
    ("source", "after", "why"),
    [
        (None, "a", "no file"),
        ("a - b", "a", "occurs 0 times"),
        ("a + b, a + b", "a", "occurs 2 times"),
        ("a + b", "a + b", "the same"),
        ("a + b", "a +", "no Python"),
    ],
)
def test_a_fault_that_does_not_fit_is_stale(tmp_path: Path, source: str | None, after: str, why: str) -> None:
    if source is not None:
        (tmp_path / "plus.py").write_text(source)
    with pytest.raises(StaleFault, match=why):
        faulty_text(Fault("room", "name", "plus.py", "a + b", after, ("a",)), tmp_path)


@pytest.mark.parametrize(
    "argument", ["test_a.py", "test_a.py::test_b", "test_a.py::TestC::test_d[2-x::y]", "."]
)
def test_a_test_that_is_there_exists(tmp_path: Path, argument: str) -> None:
    (tmp_path / "test_a.py").write_text("def test_b(): ...\nclass TestC:\n    async def test_d(self): ...\n")
    check_test_exists(argument, tmp_path)


@pytest.mark.parametrize("argument", ["test_z.py", "test_a.py::test_z", "test_a.py::TestC::test_b"])
def test_a_test_that_is_gone_is_stale(tmp_path: Path, argument: str) -> None:
    (tmp_path / "test_a.py").write_text("def test_b(): ...\nclass TestC:\n    def test_d(self): ...\n")
    with pytest.raises(StaleFault, match=r"test_a|test_z"):
        check_test_exists(argument, tmp_path)
