"""Tests of `python -m export.training`: its lists and rehearsals, and its message for each wrong option or file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.training import recipes
from tests.export.training.conftest import Train
from tests.export.training.test_gan_options import TINY, words


def test_a_start_that_does_not_fit_is_named(train: Train, photographs: Path, tmp_path: Path) -> None:
    arguments = (
        "--model",
        "esrgan",
        "--data",
        photographs,
        "--output",
        tmp_path / "run",
        "--start",
        "shipped:esrgan",
    )
    result = train(*arguments, "--set", "blocks=2")
    assert result.exit_code == 1
    assert "blocks: got 2, but esrgan.safetensors has 3" in result.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("objective=wgan-gp", "give --set discriminator_norm=none"),
        (
            "objective=wgan-gp discriminator_norm=none minibatch_kernels=2",
            "minibatch_kernels: got 2, but 'wgan-gp' needs",
        ),
        ("batch=0", "batch: got 0, expected 1 or more"),
        ("ema_decay=2", "ema_decay: got 2.0, expected 0 to 1"),
        ("discriminator_norm=layer", "got 'layer', expected one of batch, instance, spectral, none"),
        ("discriminator_steps=0", "discriminator_steps: got 0, expected 1 or more"),
        ("schedule=falling", "got 'falling', expected one of constant, cosine, halving, tenth, linear"),
    ],
)
def test_an_option_that_does_not_fit_is_named(
    train: Train, archive: Callable[..., Path], tmp_path: Path, settings: str, message: str
) -> None:
    result = train(
        "--model", "dcgan", "--data", archive(), "--output", tmp_path, *words(TINY["dcgan"]), *words(settings)
    )
    assert result.exit_code == 1
    assert message in result.output


def test_the_second_stage_of_the_paper_needs_the_first(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    result = train(
        "--model", "esrgan", "--recipe", "gan", "--data", photographs, "--output", tmp_path / "run"
    )
    assert result.exit_code == 1
    assert "start: is missing" in result.output


def test_a_bad_schedule_is_refused_before_the_first_step(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    arguments = (
        "--model",
        "esrgan",
        "--data",
        photographs,
        "--output",
        tmp_path / "run",
        *words(TINY["esrgan"]),
    )
    assert "schedule: got 'falling'" in train(*arguments, "--set", "schedule=falling").output
    assert not (tmp_path / "run").exists()


def test_a_dry_run_writes_nothing(train: Train, archive: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ("--model", "dcgan", "--data", archive(), "--output", tmp_path / "run", *words(TINY["dcgan"]))
    result = train(*arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "batch = 4" in result.output
    assert "10000 steps in about" in result.output
    assert not (tmp_path / "run").exists()


def test_files_that_no_run_made_stay(train: Train, archive: Callable[..., Path], tmp_path: Path) -> None:
    """A folder may hold TensorBoard's files of something else, or the weights that the user means to start from."""
    mine = tmp_path / "tensorboard" / "mine"
    mine.parent.mkdir()
    mine.write_text("my own")
    weights = tmp_path / "dcgan.safetensors"
    weights.write_text("my own")
    arguments = ("--model", "dcgan", "--data", archive(), "--output", tmp_path, *words(TINY["dcgan"]))
    result = train(*arguments, "--steps", "1")
    assert result.exit_code == 1
    assert f"{weights} exists" in result.output
    weights.unlink()
    result = train(*arguments, "--steps", "1")
    assert result.exit_code == 0, result.output
    assert mine.read_text() == "my own"


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
    assert f"model: is missing; expected one of {', '.join(recipes.models())}, see --list" in result.output


def test_help_has_a_short_form(train: Train) -> None:
    assert train("-h").output == train("--help").output
    assert "--resume" in train("-h").output


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--set", "leraning_rate=1"), "set: got 'leraning_rate'"),
        (("--set", "lr"), "set: got 'lr', expected key=value"),
        (("--set", "lr=fast"), "set: lr: got 'fast', expected float"),
        (("--set", "classes=2"), "labels run from 0 to 2, expected 0 to 1"),
        (("--set", "channels=1"), "with 3 channels"),
        (("--set", "size=48"), "size: got 48"),
        (("--classes", "a,b"), "classes: got 2 different names, expected 3"),
        (("--data", "nowhere.npz"), "data: nothing at nowhere.npz"),
        (("--resume",), "resume: no checkpoint in"),
    ],
)
def test_a_wrong_option_is_named(
    train: Train, archive: Callable[..., Path], tmp_path: Path, extra: tuple[str, ...], message: str
) -> None:
    common = ("--model", "acgan", "--data", archive(), "--output", tmp_path / "run", "--set", "classes=3")
    result = train(*common, *extra)
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"labels": None}, "the pictures have no labels"),
        ({"labels": np.zeros(3, np.uint8)}, "labels are (3,), expected (12,)"),
        ({"images": None}, "expected `images` or `train_images`"),
        ({"images": np.zeros((12, 32, 32, 3), np.float32)}, "expected [N, H, W(, C)] uint8"),
        ({"images": np.zeros((12, 40, 40, 3), np.uint8)}, "expected at most 32 px"),
    ],
)
def test_an_archive_that_does_not_fit_is_named(
    train: Train,
    archive: Callable[..., Path],
    tmp_path: Path,
    replaced: Mapping[str, Any],
    message: str,
) -> None:
    path = archive(**replaced)
    result = train("--model", "acgan", "--data", path, "--output", tmp_path / "run", "--set", "classes=3")
    assert result.exit_code == 1
    assert message in result.output


def test_a_folder_that_does_not_fit_is_named(train: Train, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    common = ("--model", "esrgan", "--output", tmp_path / "run")
    assert "no folder at" in train(*common, "--data", tmp_path / "nowhere").output
    assert "no pictures in" in train(*common, "--data", tmp_path / "empty").output
    assert "1.png is 64×48, expected 144 px" in train(*common, "--data", photographs).output


def test_a_corrupt_picture_is_named_and_left_out(train: Train, photographs: Path, tmp_path: Path) -> None:
    (photographs / "0.png").write_bytes(b"not a picture")
    tiny = [word for key in ("features=8", "blocks=1", "growth=4", "patch_px=8") for word in ("--set", key)]
    result = train(
        "--model", "esrgan", "--data", photographs, "--output", tmp_path / "run", "--steps", 1, *tiny
    )
    assert result.exit_code == 0, result.output
    assert "skipped: 0.png cannot be decoded" in result.output
    assert "skipped 1 files that could not be used" in result.output


def test_a_model_without_a_recipe_is_named(train: Train, tmp_path: Path) -> None:
    result = train("--model", "ergan", "--data", tmp_path, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "model: got 'ergan'" in result.output


def test_a_rehearsal_shows_the_degraded_crops(train: Train, photographs: Path, tmp_path: Path) -> None:
    """Three rows of four degraded crops, each beside its original, and nothing else is written."""
    from export.data import read_picture

    options = ("--start", "shipped:esrgan", "--set", "batch=1", "--set", "patch_px=8")
    arguments = ("--model", "esrgan", "--recipe", "photo", "--data", photographs, *options)
    result = train(*arguments, "--output", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "second_blur = 0.8" in result.output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["inputs.png"]
    picture = read_picture(tmp_path / "run/inputs.png").astype(int)
    assert picture.shape == (6 * 32, 8 * 32, 3)
    blocks = picture.reshape(6, 32, 8, 32, 3)
    differences = np.abs(blocks[:, :, ::2] - blocks[:, :, 1::2]).mean(axis=(1, 3, 4))
    assert (differences > 1).all()  # degraded
    assert np.median(differences) < 60  # and of the same place
    wrong = train(*arguments, "--output", tmp_path / "run", "--dry-run", "--set", "blur=2")
    assert wrong.exit_code == 1
    assert "blur: got 2.0, expected a probability between 0 and 1" in wrong.output
