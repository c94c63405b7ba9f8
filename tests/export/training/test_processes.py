"""Two processes through the launcher train what one does: each takes its rows of the same batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

STEPS = 4
# The gradients of two halves, averaged, differ from the whole batch's by rounding (1e-7 of them); Adam divides by their
# size, so that a weight whose gradient is near 0 may differ by a small part of the learning rate, 5e-4, a step.
ATOL = 2e-5


def trained(data: Path, output: Path, *flags: str) -> dict[str, torch.Tensor]:
    """The generator's float32 weights after a few steps on four pictures each."""
    settings = {"features": 8, "blocks": 1, "growth": 4, "patch_px": 8, "batch": 4, "warmup": 0}
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "export.training", "--model", "esrgan", "--accelerator", "cpu"]
    where = ["--data", str(data), "--output", str(output), "--steps", str(STEPS), "--threads", "1"]
    done = subprocess.run([*command, *where, *pairs, *flags], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    state = torch.load(output / f"checkpoints/step-{STEPS:08d}.pt", weights_only=True)
    return state["parts"]["generator"]


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(photographs: Path, tmp_path: Path) -> None:
    alone = trained(photographs, tmp_path / "alone")
    together = trained(photographs, tmp_path / "together", "--devices", "2")
    start = trained(photographs, tmp_path / "other", "--seed", "1")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=ATOL)
    assert any((start[name] - value).abs().max() > 100 * ATOL for name, value in alone.items())


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused(photographs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export.training", "--model", "esrgan", "--accelerator", "cpu"]
    where = [
        "--data",
        str(photographs),
        "--output",
        str(tmp_path / "run"),
        "--set",
        "batch=3",
        "--devices",
        "2",
    ]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "batch: got 3 pictures for 2 processes" in done.stderr
