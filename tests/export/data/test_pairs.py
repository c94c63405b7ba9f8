"""Tests of reading held-out pictures, with published reductions or computed ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.data.pairs import read_held_out, read_pairs
from export.data.pictures import planes, write_picture
from export.data.resize import resize
from runtime.errors import InvalidInput

IMAGE = np.random.default_rng(0).integers(0, 256, (13, 10, 3), dtype=np.uint8)
LOW = resize(IMAGE[:12], 1 / 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Set5's layout, with one picture."""
    for name, image in (("HR/a.png", IMAGE), ("LR_bicubic/X2/ax2.png", LOW)):
        (tmp_path / name).parent.mkdir(parents=True)
        write_picture(tmp_path / name, image)
    return tmp_path


def test_given_reductions_are_taken_and_missing_ones_are_made(folder: Path) -> None:
    given = read_held_out(folder, 2)["a"]
    made = read_pairs(folder / "HR", None, 2)["a"]
    plain = read_held_out(folder / "HR", 2)["a"]
    for pair in (given, made, plain):
        assert pair.high.equal(planes(IMAGE[:12]))
        assert pair.low.equal(planes(LOW))


def test_given_reductions_are_not_remade_and_may_have_the_same_name(folder: Path) -> None:
    low = folder / "LR_bicubic/X2"
    (low / "ax2.png").unlink()
    write_picture(low / "a.png", 255 - LOW)
    assert read_held_out(folder, 2)["a"].low.equal(planes(255 - LOW))


def test_missing_and_wrongly_sized_pictures_are_named(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"validate: no folder at .*X4"):
        read_held_out(folder, 4)
    write_picture(folder / "HR/b.png", IMAGE)
    with pytest.raises(InvalidInput, match=r"validate: no reduction of b\.png .*expected bx2\.png"):
        read_held_out(folder, 2)
    write_picture(folder / "LR_bicubic/X2/bx2.png", LOW[:, :4])
    with pytest.raises(
        InvalidInput, match=r"b\.png is 10×13 px, its reduction 4×6 px; expected 2 times the reduction's size"
    ):
        read_held_out(folder, 2)
    with pytest.raises(InvalidInput, match=r"a\.png is 10×13 px, expected 11 px a side or more"):
        read_pairs(folder / "HR", None, 11)


def test_set5_reduced_here_is_set5_as_published(set5: Path) -> None:
    given, made = read_held_out(set5, 4), read_pairs(set5 / "HR", None, 4)
    assert len(given) == 5
    for name, pair in given.items():
        assert made[name].low.equal(pair.low), name
        assert made[name].high.equal(pair.high), name
