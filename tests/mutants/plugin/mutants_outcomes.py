"""A pytest plugin for runs with deliberate faults: one JSON line a test, so that the runner reads no printed text.

The runner loads it by `-p mutants_outcomes` and names the file to write in MUTANTS_OUTCOMES.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        with Path(os.environ["MUTANTS_OUTCOMES"]).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([report.nodeid, report.outcome]) + "\n")
