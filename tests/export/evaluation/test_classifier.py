"""Tests of training the small classifier, on pictures that differ only in brightness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from export.data import Labelled
from export.evaluation.classifier import augmented, main, one_cycle, train
from export.evaluation.classifiers import Config, SmallNet, load


def archive(path: Path, **replaced: np.ndarray | None) -> Path:
    """60 + 30 pictures of 12×12: dark, grey, bright."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {}
    for split, count in (("train", 60), ("test", 30)):
        labels = np.arange(count) % 3
        images = 20 + 90 * labels[:, None, None] + random.integers(0, 30, (count, 12, 12))
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    kept = {name: array for name, array in (arrays | replaced).items() if array is not None}
    np.savez(path, **kept)  # type: ignore[arg-type]
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def shades(count: int, seed: int) -> Labelled:
    """Dark, grey and bright pictures of 32×32 in turn."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 20 + 90 * labels[:, None, None, None] + torch.randint(30, (count, 1, 32, 32), generator=random)
    return Labelled(images.to(torch.uint8), labels, ())


def test_the_small_classifier_learns_to_tell_shades(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    net = SmallNet(Config(classes=3, width=4))
    right = train(net, shades(512, 1), shades(60, 2), epochs=12, seed=0, flips=True)
    assert right >= 0.95
    assert f"epoch 12/12: {100 * right:.2f} %" in capsys.readouterr().out


def test_the_command_prints_the_accuracy_and_writes_a_file(tmp_path: Path) -> None:
    data, output = archive(tmp_path / "shades.npz"), tmp_path / "judge.safetensors"
    result = run("--data", data, "--output", output, "--epochs", 2, "--classes", "dark, grey, bright")
    assert result.exit_code == 0, result.output
    assert "epoch 2/2: " in result.output
    judge = load(output)
    assert (judge.class_names, judge.channels, judge.size) == (("dark", "grey", "bright"), 1, 32)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    data = archive(tmp_path / "shades.npz")
    files = [tmp_path / f"{name}.safetensors" for name in ("first", "second", "other")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        assert run("--data", data, "--output", file, "--epochs", 1, "--seed", seed).exit_code == 0
    first, second, other = (load_file(file)["linear.weight"] for file in files)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_learning_rate_rises_for_a_quarter_and_falls_to_nothing() -> None:
    assert [one_cycle(done) for done in (0, 0.125, 0.25)] == [0, 0.5, 1]
    assert one_cycle(0.625) == pytest.approx(0.5)
    assert one_cycle(1) == pytest.approx(0)


def test_moved_pictures_keep_their_pixels() -> None:
    image = torch.zeros(200, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4], image[:, :, 4, 5] = 255, 51
    moved = augmented(image, torch.Generator().manual_seed(0), flips=True)
    assert moved.shape == image.shape
    assert moved.sum(dim=(1, 2, 3)).tolist() == pytest.approx([1.2] * 200)
    places = {tuple(torch.nonzero(picture[0] == 1)[0].tolist()) for picture in moved}
    assert {row for row, _ in places} == {column for _, column in places} == {2, 3, 4, 5, 6}
    mirrored = {bool(picture[0, :, :-1][picture[0, :, 1:] == 1].sum() > 0) for picture in moved}
    assert mirrored == {True, False}


@pytest.mark.parametrize(
    ("arguments", "replaced", "message"),
    [
        (["--classes", "a,b"], {}, "got 2 names, expected 3"),
        ([], {"train_labels": None}, "no labels"),
        (["--channels", "3"], {}, "3 channels"),
    ],
)
def test_wrong_options_and_data_are_named_in_the_error(
    tmp_path: Path, arguments: list[str], replaced: dict[str, None], message: str
) -> None:
    data = archive(tmp_path / "shades.npz", **replaced)
    result = run("--data", data, "--output", tmp_path / "judge.safetensors", *arguments)
    assert result.exit_code == 1
    assert message in result.output
