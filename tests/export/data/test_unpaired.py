"""Tests of Unpaired: crops of either side, what does not depend on the order of work, and a message for each bad folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.data import Unpaired, generator, read_sides, write_picture
from export.data.crops import DRAWN_BELOW
from runtime.errors import InvalidInput

CROP = 4


def write(folder: Path, *pictures: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        write_picture(folder / f"{number}.png", picture)
    return folder


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "A", noise(0, 6, 9), noise(1, 4, 5))
    write(tmp_path / "B", noise(2, 7, 4))
    return tmp_path


def crops_of(picture: np.ndarray) -> set[bytes]:
    """Every crop of a picture there can be, mirrored or not."""
    height, width = (length - CROP + 1 for length in picture.shape[:2])
    cuts = [picture[y : y + CROP, x : x + CROP] for y in range(height) for x in range(width)]
    return {way.tobytes() for cut in cuts for way in (cut, cut[:, ::-1])}


def drawn(pictures: torch.Tensor) -> set[bytes]:
    levels = (pictures * 255).round().to(torch.uint8)
    return {level.permute(1, 2, 0).contiguous().numpy().tobytes() for level in levels}


def test_crops_are_of_their_own_side_and_all_of_them_come(folder: Path) -> None:
    unpaired = Unpaired(folder, crop_px=CROP)
    batches = [unpaired.batch(generator(0, number), 50) for number in range(20)]
    of_a = crops_of(noise(0, 6, 9)) | crops_of(noise(1, 4, 5))
    assert drawn(torch.cat([a for a, _ in batches])) == of_a
    assert drawn(torch.cat([b for _, b in batches])) == crops_of(noise(2, 7, 4))


def test_the_sides_are_drawn_independently(folder: Path) -> None:
    """Else the same places of both would always come together, and the network could learn pairs."""
    write_picture(folder / "B/1.png", noise(1, 4, 5))
    write_picture(folder / "B/0.png", noise(0, 6, 9))
    a, b = Unpaired(folder, crop_px=CROP).batch(generator(0, 0), 20)
    assert 0 < int((a == b).flatten(1).all(1).sum()) < 10


def test_processes_share_a_batch_and_a_cache_changes_nothing(folder: Path) -> None:
    whole = Unpaired(folder, crop_px=CROP).batch(generator(3, 8), 4)
    half = Unpaired(folder, crop_px=CROP, cache_gib=0).batch(generator(3, 8), 4, part=slice(2, 4))
    for all_rows, rows in zip(whole, half, strict=True):
        assert torch.equal(all_rows[2:], rows)
        assert rows.is_contiguous(memory_format=torch.channels_last)


def test_large_pictures_are_reduced_to_the_side_they_are_loaded_at(tmp_path: Path) -> None:
    write(tmp_path / "trainA", noise(0, 16, 32))
    write(tmp_path / "trainB", noise(1, 8, 9))
    unpaired = Unpaired(tmp_path, crop_px=CROP, load_px=8)
    assert [side.cache[side.paths[0]].shape for side in unpaired.sides] == [(8, 16, 3), (8, 9, 3)]


def test_files_that_cannot_be_used_are_skipped_by_name(folder: Path) -> None:
    (folder / "A/2.jpg").write_bytes(b"not a picture")
    write_picture(folder / "B/1.png", noise(0, 3, 9))
    unpaired = Unpaired(folder, crop_px=CROP)
    assert len(unpaired.skipped) == 2
    assert unpaired.skipped[0].startswith("A: 2.jpg cannot be decoded")
    assert unpaired.skipped[1] == "B: 1.png is 9×3, expected 4 px a side or more"
    assert [side.names for side in unpaired.sides] == [("0.png", "1.png"), ("0.png",)]


def test_grey_pictures_are_taken_as_rgb_and_counted(folder: Path) -> None:
    write_picture(folder / "A/2.png", np.full((8, 8, 1), 7, np.uint8))
    a, b = Unpaired(folder, crop_px=CROP).sides
    assert str(a) == "A: 3 pictures, 1 of them grey and taken as RGB, 4 to 9 px a side"
    assert str(b) == "B: 1 picture, of which all crops are, 4 to 7 px a side"
    assert a.crop(2, 0, 0, 0).shape == (CROP, CROP, 3)


def test_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"data: no folder at .*nowhere"):
        Unpaired(tmp_path / "nowhere", crop_px=CROP)
    (tmp_path / "A").mkdir()
    with pytest.raises(InvalidInput, match="holds A/; expected A/ and B/ or trainA/ and trainB/"):
        Unpaired(tmp_path, crop_px=CROP)
    (tmp_path / "B").mkdir()
    with pytest.raises(InvalidInput, match=r"data: no pictures in .*A, expected files ending in"):
        Unpaired(tmp_path, crop_px=CROP)
    write_picture(tmp_path / "A/0.png", noise(0, CROP, CROP))
    write_picture(tmp_path / "B/0.png", noise(0, 9, CROP - 1))
    with pytest.raises(InvalidInput, match=r"A has one picture .* 0\.png, and it is no larger than a crop"):
        Unpaired(tmp_path, crop_px=CROP)
    write_picture(tmp_path / "A/1.png", noise(1, CROP, CROP + 1))
    with pytest.raises(InvalidInput, match=r"no picture of .*B can be used: B: 0\.png is 3×9"):
        Unpaired(tmp_path, crop_px=CROP)
    with pytest.raises(InvalidInput, match="load_px: got 3, expected at least crop_px=4, or 0"):
        Unpaired(tmp_path, crop_px=CROP, load_px=3)


def test_whole_pictures_are_read_by_name(folder: Path) -> None:
    a, b = read_sides(folder)
    assert [sorted(side) for side in (a, b)] == [["0", "1"], ["0"]]
    np.testing.assert_array_equal(a["0"].permute(1, 2, 0).numpy(), noise(0, 6, 9))
    write(folder / "set/testA", noise(4, 2, 2))
    write(folder / "set/testB", noise(5, 2, 2))
    assert read_sides(folder / "set")[1]["0"].shape == (3, 2, 2)
    with pytest.raises(InvalidInput, match=r"validate: .* expected A/ and B/ or testA/ and testB/"):
        read_sides(folder / "A")


def test_numbers_beyond_any_range_choose_a_crop(folder: Path) -> None:
    side = Unpaired(folder, crop_px=CROP).sides[0]
    assert side.crop(*(DRAWN_BELOW - 1,) * 4).shape == (CROP, CROP, 3)
