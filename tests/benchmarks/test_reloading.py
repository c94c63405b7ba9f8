"""The benchmark of reloading, with a small model and a few swaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reloading import measure
from tests.server.bundles import write_upscaler


@pytest.mark.slow
def test_no_request_notices_a_few_swaps_of_a_real_server(tmp_path: Path) -> None:
    report = measure(write_upscaler(tmp_path), swaps=6, clients=3, quiet_s=1)
    assert report["failures"] == 0, report["first_failures"]
    answers = report["answers_by_version"]
    assert isinstance(answers, dict)
    assert len(answers) == 2
    assert min(answers.values()) > 0
