"""Tests of the benchmark of upscalers on tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import upscalers
from benchmarks.upscalers import Upscaler
from runtime.bundle import Bundle
from tests.conftest import TinyBundle

TINY = (
    Upscaler("deep", "esrgan", {"features": "8", "blocks": "1", "growth": "4"}),
    Upscaler("plain", "srvgg", {"features": "8", "convolutions": "2"}),
)


def test_upscalers_are_measured_in_turns(
    tiny_bundle: TinyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny(_path: Path, family: str, *_rest: Any, **_sizes: Any) -> Bundle:
        return tiny_bundle(family, "float32")

    for name, value in (("UPSCALERS", TINY), ("random_bundle", tiny)):
        monkeypatch.setattr(upscalers, name, value)
    words = [
        "--output",
        tmp_path,
        "--precision",
        "float32",
        "--side-px",
        80,
        "--rounds",
        2,
        "--duration-s",
        0.1,
    ]
    result = CliRunner().invoke(upscalers.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "upscalers.png").stat().st_size > 0
    deep, plain = json.loads((tmp_path / "upscalers.json").read_text())["rows"]
    turns = [line.split()[2] for line in result.output.splitlines() if line.startswith("round")]
    assert turns == ["deep", "plain"] * 2
    assert deep["times_as_fast"] == [1, 1]
    for ratio, rate, base in zip(
        plain["times_as_fast"], plain["output_mpx_per_s"], deep["output_mpx_per_s"], strict=True
    ):
        assert ratio == pytest.approx(rate / base, rel=0.02, abs=0.01)
    assert (plain["parameters"], plain["precision"]) == (4920, "float32")
