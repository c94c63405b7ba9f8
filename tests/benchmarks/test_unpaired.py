"""The benchmark of training without pairs: its folders, its look and its figures, with generators that change nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import unpaired
from export.build import photographs
from export.data import read_picture, write_picture

HALF_GREY = 128 / 255


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, left in enumerate((0, 100, 200)):
        picture = (photographs.crop(60, 80).transpose(1, 2, 0) * 255).round().astype(np.uint8)
        for part in ("train", "test"):
            (tmp_path / "photographs" / part).mkdir(parents=True, exist_ok=True)
            write_picture(tmp_path / "photographs" / part / f"{number}.png", np.roll(picture, left, axis=1))
    result = CliRunner().invoke(
        unpaired.main, ["prepare", str(tmp_path / "photographs"), str(tmp_path / "kinds")]
    )
    assert result.exit_code == 0, result.output
    return tmp_path / "kinds"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_of_each_picture_to_train_on_only_one_kind_is_written(folder: Path) -> None:
    assert names(folder / "train") == ["A/0.png", "A/2.png", "B/1.png"]
    assert names(folder / "test") == [f"{side}/{number}.png" for side in "AB" for number in range(3)]
    before, after = (read_picture(folder / "test" / side / "1.png") for side in "BA")
    np.testing.assert_array_equal(after, unpaired.dusk(before))


def test_the_look_is_the_formula_of_the_card() -> None:
    black, grey, white = unpaired.dusk(np.array([[[0] * 3, [128] * 3, [255] * 3]], np.uint8))[0] / 255
    np.testing.assert_allclose(black, (0.02, 0.03, 0.08), atol=0.5 / 255)
    np.testing.assert_allclose(white, (0.36, 0.33, 0.48), atol=0.5 / 255)
    expected = (0.02 + 0.34 * HALF_GREY**1.5, 0.03 + 0.30 * HALF_GREY**1.4, 0.08 + 0.40 * HALF_GREY**1.1)
    np.testing.assert_allclose(grey, expected, atol=0.5 / 255)


def test_doing_nothing_is_not_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpaired, "load", lambda source: lambda picture: picture)
    result = CliRunner().invoke(unpaired.main, ["measure", str(folder / "test"), "forth", "back"])
    assert result.exit_code == 1
    assert "A → B is 0.00 dB nearer than doing nothing, in 0 of 3 pictures" in result.output
    assert "expected 3 dB nearer at least" in result.output


def test_what_undoes_the_look_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forth(picture: torch.Tensor) -> torch.Tensor:
        values = picture.permute(1, 2, 0).numpy() / 255
        shares = ((values - unpaired.LIFT) / unpaired.GAIN).clip(0, 1) ** (1 / np.array(unpaired.GAMMA))
        return torch.from_numpy((shares * 255).round().astype(np.uint8)).permute(2, 0, 1)

    def back(picture: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(unpaired.dusk(picture.permute(1, 2, 0).numpy())).permute(2, 0, 1)

    monkeypatch.setattr(unpaired, "load", {"forth": forth, "back": back}.__getitem__)
    result = CliRunner().invoke(unpaired.main, ["measure", str(folder / "test"), "forth", "back"])
    assert result.exit_code == 0, result.output
    assert "in 3 of 3 pictures" in result.output
    target = folder / "strip.png"
    picture = next((folder / "test/B").iterdir())
    shutil.copy(picture, folder / "one.png")
    result = CliRunner().invoke(
        unpaired.main, ["strip", str(folder / "one.png"), "forth", "back", str(target), "--height-px", "60"]
    )
    assert result.exit_code == 0, result.output
    strip = read_picture(target)
    assert strip.shape == (60, 3 * 80 + 2 * unpaired.GAP_PX, 3)
    np.testing.assert_array_equal(strip[:, :80], unpaired.dusk(read_picture(picture)))
