"""Tests of reading and writing picture files: colour spaces, alpha, orientation, sizes, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from export.data.pictures import (
    as_floats,
    as_grid,
    as_picture,
    decode_all,
    pictures_under,
    read_picture,
    write_picture,
)
from runtime.errors import InvalidInput


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".jpg"])
def test_a_written_picture_is_read_back(tmp_path: Path, ending: str) -> None:
    smooth = np.tile(np.arange(0, 240, 6, dtype=np.uint8)[:, None, None], (1, 30, 3))
    write_picture(tmp_path / f"a{ending}", smooth)
    read = read_picture(tmp_path / f"a{ending}")
    assert read.shape == (40, 30, 3)
    assert read.dtype == np.uint8
    lossless = ending not in (".jpg", ".webp")
    np.testing.assert_allclose(
        read.astype(int), smooth, atol=0 if lossless else 6
    )  # of smooth ramps, at quality 75


def test_grey_becomes_three_equal_channels_and_stays_itself_as_one(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    write_picture(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png", channels=1), grey)
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png"), np.repeat(grey, 3, axis=2))


def test_colours_become_grey_by_their_brightness(tmp_path: Path) -> None:
    write_picture(
        tmp_path / "a.png", np.array([[[255, 255, 255], [0, 255, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    )
    white, green, blue, black = read_picture(tmp_path / "a.png", channels=1).ravel().tolist()
    assert 255 == white > green > blue > black == 0


def test_alpha_is_flattened_on_black_and_16_bits_become_8(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 65535, np.uint16)
    pixels[:2, :, 3] = 0
    pyvips.Image.new_from_array(pixels).copy(interpretation="rgb16").write_to_file(str(tmp_path / "a.png"))
    for channels in (1, 3):
        read = read_picture(tmp_path / "a.png", channels)
        assert read.shape == (4, 4, channels)
        assert read.dtype == np.uint8
        assert read[:, 0, 0].tolist() == [0, 0, 255, 255]


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    image = pyvips.Image.new_from_array(noise(8, 20, 3)).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.write_to_file(str(tmp_path / "a.jpg"))
    assert read_picture(tmp_path / "a.jpg").shape == (20, 8, 3)


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 60), (10, 15)), ((10, 60), (10, 60)), ((8, 9), (8, 9))]
)
def test_a_shorter_side_that_is_longer_is_reduced(
    tmp_path: Path, shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    stripes = np.zeros((*shape, 3), np.uint8)
    stripes[::2] = 200
    write_picture(tmp_path / "a.png", stripes)
    read = read_picture(tmp_path / "a.png", shorter_px=10)
    assert read.shape == (*expected, 3)
    if (
        shape != expected
    ):  # stripes finer than a pixel become their mean, where taking every fourth row keeps them
        np.testing.assert_allclose(read[2:-2].astype(int), 100, atol=3)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_a_file_cut_short_is_an_error_and_not_half_a_picture(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_picture(path, noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(InvalidInput, match=rf"data: a\{ending} cannot be decoded: \S"):
        read_picture(path)


def test_each_keeps_the_order_and_gives_errors_as_values(tmp_path: Path) -> None:
    def read(path: Path) -> int:
        if path.name == "3":
            raise InvalidInput("data", "3 is odd")
        return int(path.name)

    made = list(decode_all([tmp_path / str(number) for number in range(300)], read))
    assert [value for value in made if isinstance(value, int)] == [n for n in range(300) if n != 3]
    assert isinstance(made[3], InvalidInput)


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="data: no pictures in"):
        pictures_under(tmp_path)
    with pytest.raises(InvalidInput, match="validate: no folder at"):
        pictures_under(tmp_path / "nowhere", "validate")


def test_pictures_become_floats_and_floats_pictures() -> None:
    images = torch.from_numpy(noise(6, 3, 4, 5))
    floats = as_floats(images)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert float(floats.max()) <= 1
    np.testing.assert_array_equal(as_picture(floats[0]), images[0].permute(1, 2, 0))
    grid = as_grid(floats, columns=3)
    assert grid.shape == (8, 15, 3)
    np.testing.assert_array_equal(grid[4:, 5:10], images[4].permute(1, 2, 0))
