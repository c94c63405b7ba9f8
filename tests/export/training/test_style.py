"""Tests of learning a style: its losses are the paper's, and what cannot work is named before the training starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional as F

from export.checkpoints import checkpoint
from export.data import read_picture, write_picture
from export.models.style import compare, recipes
from export.models.style.generator import SPEC, TransformerNet
from export.models.style.recipes import StyleTrainer
from export.training.machine import Machine
from export.training.recipe import Source
from tests.export.training.conftest import Train, tiny_command, write_photographs, write_vgg19


@pytest.fixture
def command(tmp_path: Path) -> list[Any]:
    return tiny_command(
        "style", write_photographs(tmp_path / "photographs"), tmp_path / "none.npz", tmp_path / "run"
    )


@pytest.fixture
def trainer(tmp_path: Path) -> StyleTrainer:
    folder = write_photographs(tmp_path / "photographs")
    options = recipes.StyleOptions(
        crop_px=32, batch=2, content=2.0, style=3.0, variation=5.0,
        content_layer="conv1_2", style_layers="conv1_1,conv1_2",
    )  # fmt: skip
    source = Source(folder, vgg19=write_vgg19(tmp_path / "vgg19.pth"), style=folder / "1.png")
    torch.manual_seed(0)
    return StyleTrainer(TransformerNet(SPEC.tiny), SPEC.tiny, options, source, Machine("cpu"))


def replaced(command: list[Any], option: str, value: Any) -> list[Any]:
    place = command.index(option)
    return [*command[:place], *([option, value] if value is not None else []), *command[place + 2 :]]


def features(picture: Tensor, file: Path) -> list[Tensor]:
    """What VGG19's conv1_1 and conv1_2 give after the activation, from the file's tensors by hand."""
    weights = torch.load(file, weights_only=True)
    maps = F.conv2d(picture, weights["0.weight"], weights["0.bias"])
    found = []
    for place in (2, 5):
        padded = F.pad(maps, (1, 1, 1, 1), mode="reflect")
        maps = F.conv2d(padded, weights[f"{place}.weight"], weights[f"{place}.bias"]).relu()
        found.append(maps)
    return found


def gram(maps: Tensor) -> Tensor:
    return torch.einsum("nihw,njhw->nij", maps, maps) / maps[0].numel()


def test_the_losses_are_those_of_the_paper(trainer: StyleTrainer, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(3)
    photograph, output = (torch.rand(2, 3, 32, 32, generator=random) * 255 for _ in range(2))
    file = tmp_path / "vgg19.pth"
    style = torch.from_numpy(read_picture(tmp_path / "photographs" / "1.png")).permute(2, 0, 1)[None] / 255
    painted = features(output / 255, file)
    content = (painted[1] - features(photograph / 255, file)[1]).square().mean()
    grams = zip(map(gram, painted), map(gram, features(style, file)), strict=True)
    distance = sum((mine - wanted).square().sum() for mine, wanted in grams) / 2  # the mean of two pictures
    down, across = (output / 255).diff(dim=2).square().mean(), (output / 255).diff(dim=3).square().mean()
    terms = trainer.losses(photograph, output)
    assert list(terms) == ["content", "style", "variation"]
    assert float(terms["content"]) == pytest.approx(2 * float(content), rel=1e-4)
    assert float(terms["style"]) == pytest.approx(3 * float(distance), rel=1e-4)
    assert float(terms["variation"]) == pytest.approx(5 * float(down + across), rel=1e-4)


def test_steps_bring_the_losses_down(trainer: StyleTrainer) -> None:
    for group in trainer.optimizer.param_groups:
        group["lr"] = 1e-3
    batch = trainer.batch(0)
    assert float(batch.real.max()) > 200  # in [0, 255], as the network takes it
    sums = [float(sum(trainer.generator_step(batch).values())) for _ in range(12)]
    assert sums[-1] < 0.7 * sums[0]


def test_samples_show_photographs_beside_what_is_painted_of_them(trainer: StyleTrainer) -> None:
    picture = trainer.samples(trainer.generator.eval())
    assert picture.shape == (4 * 32, 2 * 32, 3)
    with torch.inference_mode():
        photograph = torch.from_numpy(picture[:32, :32].copy()).permute(2, 0, 1)[None].float()
        painted = trainer.generator(photograph).clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(picture[:32, 32:] - painted).max() <= 0.51


def test_what_cannot_work_is_named_before_the_training_starts(
    command: list[Any], train: Train, tmp_path: Path
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff no picture")
    write_picture(tmp_path / "stamp.png", np.zeros((20, 90, 3), np.uint8))
    (tmp_path / "empty").mkdir()
    cases = (
        ("--style", None, "style: is missing; give the picture whose style is learned: --style PICTURE"),
        ("--style", tmp_path / "nowhere.png", "style: no file at"),
        ("--style", tmp_path / "torn.jpg", "style: torn.jpg cannot be decoded"),
        ("--style", tmp_path / "stamp.png", "style: stamp.png is 90×20, expected 32 px a side or more"),
        ("--data", tmp_path / "empty", "data: no pictures in"),
        ("--vgg19", tmp_path / "stamp.png", "vgg19: stamp.png"),
    )
    for option, value, said in cases:
        result = train(*replaced(command, option, value))
        assert result.exit_code != 0
        assert said in result.output
    settings = (
        ("content_layer=conv4_2", "there is no conv4_2: vgg19.pth ends at conv1_2"),
        ("style_layers=conv1_1,conv2_1", "there is no conv2_1: vgg19.pth ends at conv1_2"),
        ("style_layers=relu1_1", "relu1_1"),
        ("crop_px=30", "crop_px: got 30, expected a multiple of 4"),
        ("crop_px=64", "no picture of"),
        ("style=-1", "style: got -1.0, expected 0 or more"),
    )
    for setting, said in settings:
        result = train(*command, "--set", setting)
        assert result.exit_code != 0
        assert said in result.output
    assert not (tmp_path / "run").exists()


def test_a_grey_style_picture_is_named_and_works(command: list[Any], train: Train, tmp_path: Path) -> None:
    write_picture(
        tmp_path / "etching.png", np.random.default_rng(0).integers(0, 256, (40, 60, 1), dtype=np.uint8)
    )
    result = train(*replaced(command, "--style", tmp_path / "etching.png"), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "style: etching.png at 60×40 px (grey, and so will be what the network paints)" in result.output


def test_a_resumed_run_needs_no_option_again(command: list[Any], train: Train, tmp_path: Path) -> None:
    assert train(*command, "--steps", 2).exit_code == 0
    assert json.loads((tmp_path / "run" / "options.json").read_text())["style"].endswith("1.png")
    short = ["--model", "style", "--output", tmp_path / "run", "--resume", "--steps", "3"]
    result = train(*short)
    assert result.exit_code == 0, result.output
    assert "continued after step 2" in result.output
    (tmp_path / "photographs" / "1.png").rename(tmp_path / "photographs" / "moved.png")
    assert "style: no file at" in train(*short).output


def test_batch_norm_is_trained_too_and_measured_for_the_exported_weights(
    command: list[Any], train: Train, tmp_path: Path
) -> None:
    result = train(*command, "--set", "norm=batch")
    assert result.exit_code == 0, result.output
    module = checkpoint.load("style", str(tmp_path / "run" / "style.safetensors")).module
    assert isinstance(module, TransformerNet)
    variance = module.get_buffer("in1.running_var")
    assert not torch.equal(variance, torch.ones_like(variance))


def test_pictures_are_compared_with_a_photograph_and_a_style(tmp_path: Path) -> None:
    folder, vgg19 = write_photographs(tmp_path / "photographs"), write_vgg19(tmp_path / "vgg19.pth")
    photograph, other = folder / "1.png", folder / "2.png"
    layers = ("--content-layer", "conv1_2", "--style-layers", "conv1_1,conv1_2")
    common = ["--style", other, "--vgg19", vgg19, *layers]
    result = CliRunner().invoke(compare.main, [str(word) for word in (photograph, other, *common)])
    assert result.exit_code == 0, result.output
    described, itself, style = result.output.splitlines()
    assert "2.png at 64×48 px" in described
    assert itself.startswith("1.png:  content 0  style ")
    assert "style 0 " not in itself
    assert style.startswith("2.png:  content ")
    assert "  style 0  variation " in style
    write_picture(tmp_path / "small.png", np.zeros((40, 40, 3), np.uint8))
    result = CliRunner().invoke(
        compare.main, [str(word) for word in (photograph, tmp_path / "small.png", *common)]
    )
    assert "small.png has another size than 1.png" in result.output
