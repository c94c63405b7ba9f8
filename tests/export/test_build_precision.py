"""Tests that a float16 bundle is computed in at least float16 on every kind of CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.build import command
from runtime import bundle as bundles
from runtime.backends import cpu_features

LEAST_DB = 60.0


@pytest.mark.parametrize(
    ("cpu", "target", "precision"),
    [
        ("plain", "openvino", "float32"),
        ("avx512-bf16", "openvino", "bfloat16"),
        ("amx", "openvino", "bfloat16"),
        ("amx", "onnx", "float32"),  # ONNX Runtime has no bfloat16 on a CPU
    ],
)
def test_fastest_is_what_the_targets_run_fastest_on_this_cpu(
    cpu: str, target: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cpu_features.IMITATE, cpu)
    options = f"--model dcgan --fastest --dry-run --target {target} --output"
    result = CliRunner().invoke(command.main, [*options.split(), str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert f"precision:     {precision}" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["plain", "avx512-bf16", "amx"])
def test_a_float16_build_serves_60_db_from_float32_torch(
    cpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cpu_features.IMITATE, cpu)
    options = "--model esrgan --fp16 --target openvino --tile 96 --halo 16 --output"
    result = CliRunner().invoke(command.main, [*options.split(), str(tmp_path)])
    assert result.exit_code == 0, result.output
    built = bundles.load(tmp_path / "esrgan-x4")
    assert built.manifest.precision == "float16"
    (served,) = [
        row
        for row in json.loads((built.path / "report.json").read_text())["verified"]
        if row["backend"] == "openvino"
    ]
    assert served["executed"] == "float32"  # none of the three has fast float16
    assert min(row["psnr_db"] for row in served["rows"]) >= LEAST_DB
