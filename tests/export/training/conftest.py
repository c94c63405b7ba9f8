"""Fixtures for the training tests: small data, finished runs, and `train`, which runs the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from export import families
from export.data import write_picture
from export.training import recipes
from export.training.__main__ import main

Train = Callable[..., Result]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums in one order, so that equal runs are equal to the last bit."""
    torch.set_num_threads(1)


def run_command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def train() -> Train:
    """`python -m export.training` with these arguments, in this process."""
    return run_command


def write_photographs(folder: Path) -> Path:
    """A folder of three smooth 64×48 pictures."""
    folder.mkdir(parents=True)
    down, across = np.mgrid[0:48, 0:64]
    for number in range(1, 4):
        planes = [np.sin(down / (3 * number)), np.cos(across / (5 * number)), np.sin((down + across) / 9)]
        write_picture(folder / f"{number}.png", (np.stack(planes, axis=2) * 127 + 128).astype(np.uint8))
    return folder


def write_two_kinds(folder: Path) -> Path:
    """A folder with A and B, each with three smooth 64×48 pictures."""
    for side in ("A", "B"):
        write_photographs(folder / side)
    return folder


def write_archive(path: Path, **replaced: np.ndarray | None) -> Path:
    """An .npz of 12 random pictures, 3 classes; keywords replace its arrays, None leaves one out."""
    random = np.random.default_rng(0)
    arrays = {
        "images": random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8),
        "labels": np.arange(12, dtype=np.uint8) % 3,
        "classes": np.array(["cat", "dog", "ship"]),
    }
    kept = {name: array for name, array in (arrays | replaced).items() if array is not None}
    np.savez(path, **kept)  # type: ignore[arg-type]
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photographs")


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    return lambda **replaced: write_archive(tmp_path / "archive.npz", **replaced)


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photographs and an archive that no test changes; beside the photographs, two kinds of them."""
    folder = tmp_path_factory.mktemp("training-data")
    write_two_kinds(folder / "two-kinds")
    return write_photographs(folder / "photographs"), write_archive(folder / "archive.npz")


def write_vgg19(path: Path) -> Path:
    """A style-transfer VGG19 of random weights up to conv1_2, the layout of the public file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = {0: nn.Conv2d(3, 3, 1), 2: nn.Conv2d(3, 64, 3), 5: nn.Conv2d(64, 64, 3)}
    torch.save(
        {
            f"{place}.{name}": value
            for place, layer in convolutions.items()
            for name, value in layer.state_dict().items()
        },
        path,
    )
    return path


def tiny_command(model: str, photographs: Path, archive: Path, output: Path) -> list[Any]:
    """The arguments of a run of four steps with the generator's tiny configuration, as its recipe's options allow."""
    spec, (_, recipe) = families.get(model), recipes.get(model, None)
    small = {
        "batch": 2, "log_every": 1, "checkpoint_every": 2, "patch_px": 8, "crop_px": 32, "discriminator_width": 1,
        "content_layer": "conv1_2", "style_layers": "conv1_1,conv1_2", "load_px": 32, "pool": 1,
    }  # fmt: skip
    settings = asdict(spec.tiny) | {key: small[key] for key in small if hasattr(recipe.options, key)}
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    data = archive if spec.signature(spec.tiny).latent_size else photographs
    if len(recipe.trainer.exports) > 1:  # a generator for each direction between two kinds of pictures
        data = photographs.parent / "two-kinds"
    command = ["--model", model, "--data", data, "--output", output, "--steps", 4, *pairs]
    if hasattr(recipe.options, "style_layers"):
        vgg19 = write_vgg19(photographs.parent / "vgg19.pth")
        command += ["--style", photographs / "1.png", "--vgg19", vgg19]
    return command


@pytest.fixture(scope="session", params=recipes.models())
def complete_run(
    request: pytest.FixtureRequest, shared_data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], str]:
    """A complete run of each model: its arguments, and what it printed. Tests work on copies."""
    torch.set_num_threads(1)
    command = tiny_command(request.param, *shared_data, tmp_path_factory.mktemp(request.param) / "run")
    result = run_command(*command)
    assert result.exit_code == 0, result.output
    return command, result.output


@pytest.fixture
def command(complete_run: tuple[list[Any], str], tmp_path: Path) -> list[Any]:
    """The arguments of a run of each model, in a folder that does not exist yet."""
    arguments = list(complete_run[0])
    arguments[arguments.index("--output") + 1] = tmp_path / "run"
    return arguments


@pytest.fixture
def completed(complete_run: tuple[list[Any], str], command: list[Any]) -> list[Any]:
    """The same, the folder holding a complete run."""
    source, target = (arguments[arguments.index("--output") + 1] for arguments in (complete_run[0], command))
    shutil.copytree(source, target)
    return command
