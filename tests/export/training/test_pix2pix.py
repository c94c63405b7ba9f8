"""Training on pairs, through the command line: it learns what the pairs show, resumes, and names what cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.checkpoints import checkpoint
from export.data import read_picture, write_picture
from export.models.cyclegan.pix2pix import WithInput
from tests.export.training.conftest import Train, write_photographs

SMALL = (
    "features=4", "downs=3", "crop_px=32", "load_px=0", "discriminator_width=4", "discriminator_layers=1",
)  # fmt: skip


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """B is the negative of A."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for path in sorted(write_photographs(folder / "A").iterdir()):
        (folder / "B").mkdir(exist_ok=True)
        write_picture(folder / "B" / path.name, 255 - read_picture(path))
    return folder


def command(pairs: Path, output: Path, *settings: str, steps: int = 4) -> list[Any]:
    options = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    start = ["--model", "cyclegan", "--recipe", "pix2pix-compact", "--data", pairs, "--output", output]
    return [*start, "--steps", steps, "--threads", "1", *options]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded = checkpoint.load("cyclegan", str(folder / "cyclegan.safetensors"), {})
    assert loaded.config.architecture == "unet"
    return loaded.module.state_dict()


@pytest.mark.parametrize("dropout", ["dropout=0", "dropout=0.5"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    dropout: str, pairs: Path, tmp_path: Path, train: Train
) -> None:
    output = tmp_path / "run"
    arguments = command(pairs, output, dropout, "downs=5", "checkpoint_every=2", "batch=2")
    assert train(*arguments).exit_code == 0
    unbroken = weights(output)
    (output / "checkpoints" / "step-00000004.pt").unlink()
    result = train(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert "continued after step 2" in result.output
    again = weights(output)
    assert all(torch.equal(again[name], value) for name, value in unbroken.items())


def test_it_learns_what_the_pairs_show(pairs: Path, tmp_path: Path, train: Train) -> None:
    """Far nearer to the other picture of each pair than the input is."""
    arguments = command(pairs, tmp_path / "run", "lr=4e-3", "ema_decay=0.9", "sample_every=0", steps=80)
    result = train(*arguments, "--validate", pairs)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (figures,) = (row for row in rows if "output_db" in row)
    assert figures["output_db"] > figures["input_db"] + 6
    assert "pixel" in rows[0]


def test_the_direction_turns_the_pairs_round(pairs: Path, tmp_path: Path, train: Train) -> None:
    for path in list((pairs / "B").iterdir()):
        path.unlink()
        write_picture(path.with_suffix(".webp"), np.full((48, 64, 3), 255, np.uint8))
    settings = ("lr=4e-3", "ema_decay=0", "direction=b-to-a")
    arguments = command(pairs, tmp_path / "run", *settings, steps=1)
    result = train(*arguments, "--validate", pairs)
    assert result.exit_code == 0, result.output
    assert "b-to-a" in result.output
    samples = read_picture(tmp_path / "run" / "samples" / "step-00000001.png")
    assert (samples[:, :32] == 255).all(), "the input, in the first column, is white"
    assert not (samples[:, 64:] == 255).all()


def test_the_discriminator_sees_the_input_beside_the_output() -> None:
    image = torch.rand(2, 3, 4, 4)
    pair = WithInput(torch.nn.Tanh())(image)
    assert torch.equal(pair, torch.cat((image, image.tanh()), dim=1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("direction=AtoB",), "direction: got 'AtoB', expected one of a-to-b, b-to-a"),
        (("crop_px=36",), "crop_px: got 36, expected a multiple of 8, at least 8"),
        (("crop_px=8", "discriminator_layers=3"), "crop_px: got 8, expected 24 or more"),
        (("in_channels=1",), "expected 3 for both"),
        (("downs=1",), "downs: got 1, expected 2 or more"),
        (("pixel=-1",), "pixel: got -1"),
        (("load_px=16",), "load_px: got 16, expected at least crop_px=32"),
    ],
)
def test_an_option_that_cannot_work_is_named(
    settings: tuple[str, ...], said: str, pairs: Path, tmp_path: Path, train: Train
) -> None:
    result = train(*command(pairs, tmp_path / "run", *settings))
    assert result.exit_code == 1, result.output
    assert said in result.output


def test_bad_pairs_are_named_before_the_training_starts(pairs: Path, tmp_path: Path, train: Train) -> None:
    (pairs / "A" / "1.png").rename(pairs / "A" / "lonely.png")
    (pairs / "B" / "2.png").write_bytes(b"no picture")
    result = train(*command(pairs, tmp_path / "run", steps=1))
    start, _, _ = result.output.partition("step 1/1")
    for problem in ("A/lonely has no partner in B/", "B/1 has no partner in A/", "2.png cannot be decoded"):
        assert f"skipped: {problem}" in start
    assert ", 1 pairs in A and B" in start
