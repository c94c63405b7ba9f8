"""Training the small classifier, on pictures that anyone could tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from export.evaluation.classifier import main, varied
from export.evaluation.classifiers import load


def archive(path: Path, **replaced: np.ndarray | None) -> Path:
    """480 + 30 pictures of 12×12: dark, grey, bright."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {}
    for split, count in (("train", 480), ("test", 30)):
        labels = np.arange(count) % 3
        images = 20 + 90 * labels[:, None, None] + random.integers(0, 30, (count, 12, 12))
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    kept = {name: array for name, array in (arrays | replaced).items() if array is not None}
    np.savez(path, **kept)  # type: ignore[arg-type]
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_it_learns_tells_its_accuracy_and_writes_a_file(tmp_path: Path) -> None:
    data, output = archive(tmp_path / "shades.npz"), tmp_path / "judge.safetensors"
    result = run(
        "--data", data, "--output", output, "--epochs", 10, "--classes", "dark, grey, bright", "--flips"
    )
    assert result.exit_code == 0, result.output
    assert "epoch 10/10: " in result.output
    assert float(result.output.split("epoch 10/10: ")[1].split(" %")[0]) >= 90
    judge = load(output)
    assert (judge.class_names, judge.channels, judge.size) == (("dark", "grey", "bright"), 1, 32)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    data = archive(tmp_path / "shades.npz")
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "two", "other")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        assert run("--data", data, "--output", file, "--epochs", 1, "--seed", seed).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()


def test_moved_pictures_keep_their_pixels() -> None:
    image = torch.zeros(200, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4], image[:, :, 4, 5] = 255, 51
    moved = varied(image, torch.Generator().manual_seed(0), flips=True)
    assert moved.shape == image.shape
    assert moved.sum(dim=(1, 2, 3)).tolist() == pytest.approx([1.2] * 200)
    places = {tuple(torch.nonzero(one[0] == 1)[0].tolist()) for one in moved}
    assert {row for row, _ in places} == {column for _, column in places} == {2, 3, 4, 5, 6}
    mirrored = {bool(one[0, :, :-1][one[0, :, 1:] == 1].sum() > 0) for one in moved}
    assert mirrored == {True, False}


@pytest.mark.parametrize(
    ("arguments", "replaced", "told"),
    [
        (["--classes", "a,b"], {}, "got 2 names, expected 3"),
        ([], {"train_labels": None}, "no labels"),
        (["--channels", "3"], {}, "3 channels"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, arguments: list[str], replaced: dict[str, None], told: str
) -> None:
    data = archive(tmp_path / "shades.npz", **replaced)
    result = run("--data", data, "--output", tmp_path / "judge.safetensors", *arguments)
    assert result.exit_code == 1
    assert told in result.output
