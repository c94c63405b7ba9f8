"""Tests that two processes, each with its rows of the same batches, train the same weights as one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export.networks import features
from export.training.machine import Machine

STEPS = 4
# The gradients of two halves, averaged, differ from the whole batch's by rounding (1e-7 of them); Adam divides by their
# size, so that a single weight whose gradient is near 0 may differ by a part of the learning rate, 1e-4 or more, a step.
# Hence the mean over a tensor: without averaging it is some 1e-4.
MEAN_DIFFERENCE = 2e-5
FIRST_STAGE = "features=8 blocks=1 growth=4 warmup=0"
# Nothing here depends on the other pictures of a batch, which another process holds: no batch norm, no relativistic mean.
SECOND_STAGE = (
    "objective=hinge discriminator_norm=none discriminator_width=2 feature_net=vgg19-conv1_2 warmup=0 "
    "discriminator_steps=2"
)


def command(data: Path, output: Path, settings: str, *flags: str) -> list[str]:
    pairs = [word for setting in (settings + " patch_px=8").split() for word in ("--set", setting)]
    start = [sys.executable, "-m", "export.training", "--model", "esrgan", "--accelerator", "cpu"]
    return [*start, "--data", str(data), "--output", str(output), "--threads", "1", *pairs, *flags]


def trained(data: Path, output: Path, settings: str, *flags: str) -> dict[str, torch.Tensor]:
    """The weights of all networks, in float32, after a few steps on four pictures each."""
    arguments = command(data, output, settings + " batch=4", "--steps", str(STEPS), *flags)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    state = torch.load(output / f"checkpoints/step-{STEPS:08d}.pt", weights_only=True)["parts"]
    return {
        f"{part}.{name}": value
        for part in ("generator", "discriminator")
        for name, value in state.get(part, {}).items()
    }


def assert_close(together: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> None:
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        assert (together[name] - value).abs().mean() < MEAN_DIFFERENCE, name


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(photographs: Path, tmp_path: Path) -> None:
    alone = trained(photographs, tmp_path / "alone", FIRST_STAGE)
    together = trained(photographs, tmp_path / "together", FIRST_STAGE, "--devices", "2")
    other = trained(photographs, tmp_path / "other", FIRST_STAGE, "--seed", "1")
    assert_close(together, alone)
    assert any((other[name] - value).abs().mean() > 100 * MEAN_DIFFERENCE for name, value in alone.items())


@pytest.mark.slow
def test_two_processes_train_both_players_as_one_does(photographs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = features.layers(features.NETS["vgg19-conv1_2"]).state_dict()
    torch.save({f"features.{name}": value for name, value in net.items()}, tmp_path / "vgg19.pth")
    flags = ("--recipe", "compact-gan", "--vgg19", str(tmp_path / "vgg19.pth"))
    alone = trained(photographs, tmp_path / "alone", SECOND_STAGE, *flags)
    together = trained(photographs, tmp_path / "together", SECOND_STAGE, *flags, "--devices", "2")
    assert_close(together, alone)


class OneOfTwo(Machine):
    """A process that takes itself for one of two."""

    @property
    def processes(self) -> int:
        return 2


def test_an_update_that_would_not_be_averaged_over_the_processes_is_refused() -> None:
    machine, network = OneOfTwo("cpu"), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"calls Machine\.parallel"):
        machine.step(optimizer, network(torch.ones(1, 1)).sum())


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused(photographs: Path, tmp_path: Path) -> None:
    arguments = command(photographs, tmp_path / "run", "batch=3", "--devices", "2")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "batch: got 3 pictures for 2 processes" in done.stderr
