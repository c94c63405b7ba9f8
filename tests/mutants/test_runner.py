"""The runner of deliberate faults on a tiny project: each verdict, and nothing written outside its copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.faults import Fault
from tests.mutants.runner import Result, check

PLUS = "def plus(a: int, b: int) -> int:\n    return a + b\n"
TESTS = """
import subprocess, sys, time
import pytest

def test_plus():
    from plus import plus
    assert plus(2, 3) == 5

def test_zero():
    from plus import plus
    assert plus(0, 0) == 0

def test_from_another_process_in_another_folder(tmp_path):
    command = [sys.executable, "-c", "from plus import plus; print(plus(2, 3))"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "5\\n"

def test_fails_anyway():
    raise AssertionError

@pytest.mark.skip
def test_left_out(): ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu: a', 'network: b']\n")
    (folder / "plus.py").write_text(PLUS)
    (folder / "test_plus.py").write_text(TESTS)
    (folder / "test_import.py").write_text("from plus import plus\n\ndef test_import():\n    plus(1, 2)\n")
    return folder


def fault(after: str, *tests: str, before: str = "a + b") -> Fault:
    return Fault("tiny", f"{after} by {tests}", "plus.py", before, after, tests)


def only(result: list[Result]) -> Result:
    (single,) = result
    return single


def test_every_verdict_and_the_source_is_left_alone(project: Path) -> None:
    files = {path.name: path.stat().st_mtime_ns for path in project.iterdir()}
    shown: list[Result] = []
    faults = [
        fault("a - b", "test_plus.py::test_plus"),
        fault("a - b", "test_plus.py::test_zero"),
        fault("a * b", "test_plus.py::test_zero", "test_plus.py::test_plus"),
        fault("a - b", "test_plus.py::test_from_another_process_in_another_folder"),
        fault("a - b", "test_plus.py::test_fails_anyway"),
        fault("a - b", "test_plus.py::test_left_out"),
        fault("def minus", "test_import.py", before="def plus"),
        fault("a", "test_plus.py::test_plus", before="a / b"),
        fault("a", "test_plus.py::test_gone"),
        Fault("tiny", "no difference", "plus.py", "a + b", "b + a", equivalent="addition commutes"),
    ]
    results = check(faults, project, on_result=shown.append)
    assert [result.verdict for result in results] == [
        "caught",
        "survived",
        "caught",
        "caught",
        *["broken"] * 5,
    ]
    assert [result.fault for result in results] == faults[:-1]
    assert shown == results
    assert results[2].why == "test_plus.py::test_plus"
    for result, why in zip(
        results[4:],
        ("fails without the fault", "skipped", "cannot be imported", "occurs 0 times", "no test_gone"),
        strict=True,
    ):
        assert why in result.why
    assert {path.name: path.stat().st_mtime_ns for path in project.iterdir()} == files


@pytest.mark.slow
def test_faults_of_one_size_tried_at_once_do_not_meet(project: Path) -> None:
    wrong = [fault(after, "test_plus.py::test_plus") for after in ("a - b", "a * b")]
    right = [fault("b + a", "test_plus.py::test_plus")]
    results = check([*wrong, *right, *wrong], project, jobs=2)
    assert [result.verdict for result in results] == ["caught", "caught", "survived", "caught", "caught"]


@pytest.mark.slow
def test_a_fault_that_hangs_is_caught_within_the_limit(project: Path) -> None:
    hangs = fault("[a for _ in iter(int, 1)]", "test_plus.py::test_plus")
    assert only(check([hangs], project, timeout_s=15)).verdict == "caught"
