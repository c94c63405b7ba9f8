"""Data small enough to train on in a test, and the command line as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from export.data import write_picture
from export.training.__main__ import main

Train = Callable[..., Result]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums in one order, so that equal runs are equal to the last bit."""
    torch.set_num_threads(1)


@pytest.fixture
def train() -> Train:
    """`python -m export.training` with these arguments, in this process."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three smooth 64×48 pictures."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    down, across = np.mgrid[0:48, 0:64]
    for number in range(1, 4):
        planes = [np.sin(down / (3 * number)), np.cos(across / (5 * number)), np.sin((down + across) / 9)]
        write_picture(folder / f"{number}.png", (np.stack(planes, axis=2) * 127 + 128).astype(np.uint8))
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    """Writes an .npz of 12 random pictures, 3 classes; keywords replace its arrays, None leaves one out."""

    def write(**replaced: np.ndarray | None) -> Path:
        random = np.random.default_rng(0)
        arrays = {
            "images": random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8),
            "labels": np.arange(12, dtype=np.uint8) % 3,
            "classes": np.array(["cat", "dog", "ship"]),
        }
        path = tmp_path / "archive.npz"
        kept = {name: array for name, array in (arrays | replaced).items() if array is not None}
        np.savez(path, **kept)  # type: ignore[arg-type]
        return path

    return write
