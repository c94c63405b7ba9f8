"""What a GAN's recipe can be told: every objective, every extra, both precisions, both stages of ESRGAN."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.checkpoints import checkpoint
from export.networks import features
from export.training import recipes
from export.training.objectives import OBJECTIVES
from export.training.recipe import TrainingOptions, learning_rate
from runtime.errors import InvalidInput
from tests.export.training.conftest import Train

TINY = {
    "dcgan": "size=32 latent_size=8 width=4 discriminator_width=2 batch=4",
    "acgan": "size=32 latent_size=8 classes=3 width=8 discriminator_width=1 batch=4",
    "esrgan": "features=8 blocks=1 growth=4 batch=2 patch_px=8",
}


def words(settings: str) -> list[str]:
    return [word for setting in settings.split() for word in ("--set", setting)]


def logged(folder: Path) -> dict[str, float]:
    """The last line of losses."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return next(line for line in reversed(lines) if "lr" in line)


@pytest.mark.parametrize("model", ["dcgan", "acgan"])
@pytest.mark.parametrize(
    "settings",
    [
        *(f"objective={name}" for name in OBJECTIVES if name != "wgan-gp"),
        "objective=wgan-gp discriminator_norm=none discriminator_steps=3",
        "objective=hinge discriminator_norm=spectral",
        "label_smoothing=0.1 feature_matching=1 minibatch_kernels=4 mirrored=0.5 workers=2",
    ],
)
def test_every_option_trains(
    train: Train, archive: Callable[..., Path], tmp_path: Path, model: str, settings: str
) -> None:
    run = tmp_path / "run"
    told = ("--model", model, "--data", archive(), "--output", run, "--steps", 2)
    result = train(*told, *words(TINY[model]), *words(settings))
    assert result.exit_code == 0, result.output
    losses = logged(run)
    assert ("gradient_penalty" in losses) == ("wgan-gp" in settings)
    assert ("feature_matching" in losses) == ("feature_matching" in settings)
    assert 0 <= losses["waiting_for_data"] <= 1


def test_balanced_classes_train(train: Train, archive: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = ("--model", "dcgan", "--data", archive(), "--output", run, "--steps", 2)
    result = train(*told, *words(TINY["dcgan"]), *words("balance=0.5"))
    assert result.exit_code == 0, result.output
    assert {"discriminator_class", "generator_class"} <= logged(run).keys()


@pytest.mark.parametrize("model", TINY)
def test_mixed_precision_trains(
    train: Train, archive: Callable[..., Path], photographs: Path, tmp_path: Path, model: str
) -> None:
    data = photographs if model == "esrgan" else archive()
    told = ("--model", model, "--data", data, "--output", tmp_path / "run", "--steps", 2)
    result = train(*told, *words(TINY[model]), "--precision", "bfloat16")
    assert result.exit_code == 0, result.output
    weights = torch.load(tmp_path / "run/checkpoints/step-00000002.pt", weights_only=True)["parts"][
        "generator"
    ]
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())


def test_the_gradient_penalty_stays_in_float32(
    train: Train, archive: Callable[..., Path], tmp_path: Path
) -> None:
    told = ("--model", "dcgan", "--recipe", "wgan-gp", "--data", archive(), "--output", tmp_path / "run")
    result = train(*told, "--steps", 2, *words(TINY["dcgan"]), "--precision", "bfloat16")
    assert result.exit_code == 0, result.output


@pytest.fixture
def vgg19(tmp_path: Path) -> Path:
    """The front of a VGG19 with random weights, in torchvision's form."""
    torch.manual_seed(0)
    state = features.layers(features.NETS["vgg19-conv1_2"]).state_dict()
    torch.save({f"features.{name}": value for name, value in state.items()}, tmp_path / "vgg19.pth")
    return tmp_path / "vgg19.pth"


def test_the_second_stage_starts_from_the_first(
    train: Train, photographs: Path, tmp_path: Path, vgg19: Path
) -> None:
    first = ("--model", "esrgan", "--data", photographs, "--output", tmp_path / "psnr", "--steps", 2)
    assert train(*first, *words(TINY["esrgan"])).exit_code == 0
    weights = tmp_path / "psnr/esrgan.safetensors"
    second = (
        "--model",
        "esrgan",
        "--recipe",
        "compact-gan",
        "--data",
        photographs,
        "--output",
        tmp_path / "gan",
    )
    small = words("feature_net=vgg19-conv1_2 batch=2 patch_px=8 discriminator_width=2 lr=0 ema_decay=0")
    result = train(*second, "--start", weights, "--vgg19", vgg19, "--steps", 1, *small)
    assert result.exit_code == 0, result.output
    assert {"perceptual", "pixel", "generator", "discriminator"} <= logged(tmp_path / "gan").keys()
    before = checkpoint.load("esrgan", str(weights)).module.state_dict()
    after = checkpoint.load("esrgan", str(tmp_path / "gan/esrgan.safetensors")).module.state_dict()
    for name, value in before.items():  # a learning rate of 0 leaves it where it began
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_a_start_that_does_not_fit_is_named(train: Train, photographs: Path, tmp_path: Path) -> None:
    told = (
        "--model",
        "esrgan",
        "--data",
        photographs,
        "--output",
        tmp_path / "run",
        "--start",
        "shipped:esrgan",
    )
    result = train(*told, "--set", "blocks=2")
    assert result.exit_code == 1
    assert "blocks: got 2, but esrgan.safetensors has 3" in result.output


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("objective=wgan-gp", "add --set discriminator_norm=none"),
        ("objective=wgan-gp discriminator_norm=none minibatch_kernels=2", "minibatch_kernels: they compare"),
        ("batch=0", "batch: got 0, expected 1 or more"),
        ("ema_decay=2", "ema_decay: got 2.0, expected 0 to 1"),
        ("discriminator_norm=layer", "got 'layer', expected one of batch, instance, spectral, none"),
        ("discriminator_steps=0", "discriminator_steps: got 0, expected 1 or more"),
        ("schedule=linear", "got 'linear', expected constant, cosine or halving"),
    ],
)
def test_an_option_that_does_not_fit_is_named(
    train: Train, archive: Callable[..., Path], tmp_path: Path, settings: str, told: str
) -> None:
    result = train(
        "--model", "dcgan", "--data", archive(), "--output", tmp_path, *words(TINY["dcgan"]), *words(settings)
    )
    assert result.exit_code == 1
    assert told in result.output


def test_the_second_stage_of_the_paper_needs_the_first(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    result = train(
        "--model", "esrgan", "--recipe", "gan", "--data", photographs, "--output", tmp_path / "run"
    )
    assert result.exit_code == 1
    assert "start: missing" in result.output


def test_a_bad_schedule_is_told_before_the_first_step(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    told = ("--model", "esrgan", "--data", photographs, "--output", tmp_path / "run", *words(TINY["esrgan"]))
    assert "schedule: got 'linear'" in train(*told, "--set", "schedule=linear").output
    assert not (tmp_path / "run").exists()


def test_a_dry_run_writes_nothing(train: Train, archive: Callable[..., Path], tmp_path: Path) -> None:
    told = ("--model", "dcgan", "--data", archive(), "--output", tmp_path / "run", *words(TINY["dcgan"]))
    result = train(*told, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "batch = 4" in result.output
    assert "10000 steps in about" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", recipes.models())
def test_the_recipes_are_listed_and_named(train: Train, model: str) -> None:
    listed = train("--model", model, "--list")
    assert listed.exit_code == 0
    assert [line.split()[:2] for line in listed.output.splitlines()] == [
        [model, name] for name in recipes.of(model)
    ]
    unknown = train("--model", model, "--recipe", "best")
    assert f"{model} has no recipe 'best'" in unknown.output


def test_without_a_model_the_recipes_of_all_are_listed(train: Train) -> None:
    listed = train("--list")
    assert listed.exit_code == 0
    expected = {(model, name) for model in recipes.models() for name in recipes.of(model)}
    assert {tuple(line.split()[:2]) for line in listed.output.splitlines()} == expected


def test_without_a_model_there_is_nothing_to_train(train: Train) -> None:
    result = train("--data", "nowhere")
    assert result.exit_code == 1
    assert "model: missing; expected one of acgan, dcgan, esrgan" in result.output


def test_help_has_a_short_form(train: Train) -> None:
    assert train("-h").output == train("--help").output
    assert "--resume" in train("-h").output


def test_schedules() -> None:
    cosine = TrainingOptions(lr=2.0, schedule="cosine", warmup=0.1)
    assert [learning_rate(cosine, at) for at in (0.05, 0.1, 0.55)] == pytest.approx([1.0, 2.0, 1.0], rel=3e-3)
    assert learning_rate(cosine, 1 - 1e-9) == pytest.approx(0.0, abs=1e-6)
    halving = TrainingOptions(lr=2.0, schedule="halving", halve_at="0.5,0.75")
    assert [learning_rate(halving, at) for at in (0.0, 0.49, 0.5, 0.8)] == [2.0, 2.0, 1.0, 0.5]
    with pytest.raises(InvalidInput, match="halve_at: got 'soon'"):
        learning_rate(TrainingOptions(schedule="halving", halve_at="soon"), 0.0)
