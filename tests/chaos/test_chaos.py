"""The judge of the chaos runs: every cell has an expectation and a trouble, and what differs is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.chaos import __main__ as command
from tests.chaos.cells import ALL, Cell, Result, Runner, judge
from tests.chaos.expectations import CALLS, EXPECTATIONS, LOADS, OF_CALL, expectation
from tests.chaos.servers import write_bundles
from tests.chaos.troubles import TROUBLES

CODES = {
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "killed",
    "ended by the server",
}


def test_every_trouble_has_an_expectation_for_every_call() -> None:
    assert list(TROUBLES) == list(EXPECTATIONS)
    assert len(ALL) == len(TROUBLES) * len(CALLS) * len(LOADS) == 88
    assert {trouble for trouble, _ in OF_CALL} <= set(EXPECTATIONS)
    for cell in ALL:
        assert expectation(cell.trouble, cell.call).caller <= CODES


def test_no_client_may_see_or_cause_an_internal_error() -> None:
    for each in (*EXPECTATIONS.values(), *OF_CALL.values()):
        assert "INTERNAL" not in each.caller | each.log | each.other_callers


def test_what_differs_is_reported() -> None:
    expected = EXPECTATIONS["cancel"]
    assert judge(expected, ["CANCELLED"], ["CANCELLED"], {"OK": 3}) == []
    assert judge(expected, ["OK"], [""], {"OK": 3, "INTERNAL": 2}) == [
        "the caller saw OK, expected CANCELLED",
        "the log says nothing, expected CANCELLED",
        "other callers saw {'INTERNAL': 2}, expected OK",
    ]


def test_the_report_has_a_row_for_each_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "OUTPUT", tmp_path / "build")
    cell = Cell("cancel", "Upscale", "quiet")
    results = [
        Result(cell, problems=("the caller saw OK",)),
        Result(cell),
        Result(ALL[-1], skipped="no compiler"),
    ]
    command.write(results)
    text = (tmp_path / "build" / "chaos.md").read_text(encoding="utf-8")
    assert "| cancel | differs 1/2 | – |" in text
    assert "| skipped |" in text
    assert "- cancel, Upscale, quiet: the caller saw OK" in text
    assert len(json.loads((tmp_path / "build" / "chaos.json").read_text(encoding="utf-8"))) == 3


def test_a_wrong_name_is_refused() -> None:
    done = CliRunner().invoke(command.main, ["--only", "earthquake"])
    assert done.exit_code == 2
    assert "no cell has earthquake in its name, such as cancel, Upscale, quiet" in done.stderr


@pytest.mark.slow
def test_a_cell_runs_and_a_broken_promise_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundles(tmp_path / "bundles")
    runner = Runner(tmp_path / "bundles", tmp_path / "servers", seed=1)
    try:
        kept = runner.run(Cell("cancel", "Generate", "loaded"))
        assert (kept.problems, kept.seen, kept.logged) == ((), ("CANCELLED",), ("CANCELLED",))
        assert kept.others["OK"] > 0
        monkeypatch.setitem(TROUBLES, "cancel", lambda scene: [scene.start("small").outcome()])
        broken = runner.run(Cell("cancel", "Generate", "quiet"))
        assert broken.problems == (
            "the caller saw OK, expected CANCELLED",
            "the log says OK, expected CANCELLED",
        )
    finally:
        runner.close()
