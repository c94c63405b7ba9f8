"""Tests of pairs to train on: both layouts, crops at the same place, and every bad pair named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export import data
from export.data import Paired, read_paired, write_picture
from runtime.errors import InvalidInput

Random = np.random.Generator


@pytest.fixture
def random() -> Random:
    return np.random.default_rng(0)


def picture(random: Random, height: int = 24, width: int = 32) -> np.ndarray:
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, image)


def two_folders(folder: Path, random: Random) -> Path:
    """B is the negative of A."""
    for name in ("one", "two", "sub/three"):
        image = picture(random)
        write(folder / "A" / f"{name}.png", image)
        write(folder / "B" / f"{name}.png", 255 - image)
    return folder


def combined(folder: Path, random: Random) -> Path:
    for name in ("one", "two", "three"):
        image = picture(random)
        write(folder / f"{name}.png", np.concatenate((image, 255 - image), axis=1))
    return folder


@pytest.mark.parametrize("layout", [two_folders, combined])
def test_crops_are_of_the_same_place_and_mirrored_alike(
    layout: Callable[[Path, Random], Path], tmp_path: Path, random: Random
) -> None:
    pairs = Paired(layout(tmp_path, random), crop_px=12)
    assert len(pairs.names) == 3
    assert pairs.skipped == ()
    a, b = pairs.batch(data.generator(5, 0), 8)
    assert a.shape == b.shape == (8, 3, 12, 12)
    assert a.dtype == torch.float32
    torch.testing.assert_close(a + b, torch.ones_like(a), rtol=0, atol=1e-6)
    assert len({crop.sum().item() for crop in a}) > 6


@pytest.mark.parametrize("layout", [two_folders, combined])
def test_a_batch_depends_on_its_number_and_can_be_shared(
    layout: Callable[[Path, Random], Path], tmp_path: Path, random: Random
) -> None:
    folder = layout(tmp_path, random)
    cached, uncached = (Paired(folder, crop_px=8, cache_gib=gib) for gib in (8.0, 0.0))
    whole = cached.batch(data.generator(1, 2), 4)
    parts = [uncached.batch(data.generator(1, 2), 4, part=part) for part in (slice(0, 2), slice(2, 4))]
    for side in (0, 1):
        assert torch.equal(whole[side], torch.cat([part[side] for part in parts]))
    assert not torch.equal(whole[0], cached.batch(data.generator(1, 3), 4)[0])


def test_both_pictures_of_a_pair_are_reduced_alike(tmp_path: Path) -> None:
    across = np.linspace(0, 255, 64).round().astype(np.uint8)
    image = np.broadcast_to(across[None, :, None], (48, 64, 3))
    write(tmp_path / "A" / "ramp.png", image)
    write(tmp_path / "B" / "ramp.png", image)
    pairs = Paired(tmp_path, crop_px=24, load_px=24)
    a, b = pairs.batch(data.generator(0, 0), 2)
    assert torch.equal(a, b)
    assert a.std() > 0.1
    assert "24 to 32 px a side" in pairs.about


def test_what_there_is_is_said_in_words(tmp_path: Path, random: Random) -> None:
    folder = two_folders(tmp_path / "folders", random)
    grey = np.repeat(picture(random)[:, :, :1], 3, axis=2)
    write(folder / "A" / "grey.png", grey)
    write(folder / "B" / "grey.png", picture(random))
    assert Paired(folder, crop_px=8).about == (
        "4 pairs in A and B, 24 to 32 px a side, 1 grey pictures in A taken as RGB"
    )
    assert (
        Paired(combined(tmp_path / "combined", random), crop_px=8).about
        == "3 pairs side by side, 24 to 32 px a side"
    )


def lonely(folder: Path, random: Random) -> None:
    write(folder / "A" / "lonely.png", picture(random))


def lonely_in_b(folder: Path, random: Random) -> None:
    write(folder / "B" / "lonely.png", picture(random))


def other_size(folder: Path, random: Random) -> None:
    write(folder / "A" / "odd.png", picture(random))
    write(folder / "B" / "odd.png", picture(random, 24, 33))


def too_small(folder: Path, random: Random) -> None:
    for side in "AB":
        write(folder / side / "small.png", picture(random, 9, 40))


def corrupt(folder: Path, random: Random) -> None:
    write(folder / "A" / "bad.png", picture(random))
    (folder / "B" / "bad.png").write_bytes((folder / "A" / "bad.png").read_bytes()[:400])


def twice(folder: Path, random: Random) -> None:
    write(folder / "A" / "one.webp", picture(random))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lonely, "A/lonely has no partner in B/"),
        (lonely_in_b, "B/lonely has no partner in A/"),
        (other_size, "odd: A is 32×24, B is 33×24; expected the same size"),
        (too_small, "small is 40×9, expected 12 px a side or more"),
        (corrupt, "bad.png cannot be decoded"),
        (twice, "A/one.webp: another picture there has the same name"),
    ],
)
def test_a_bad_pair_is_named_and_the_others_are_used(
    spoil: Callable[[Path, Random], None], said: str, tmp_path: Path, random: Random
) -> None:
    folder = two_folders(tmp_path, random)
    spoil(folder, random)
    pairs = Paired(folder, crop_px=12)
    assert len(pairs.names) == 3
    (problem,) = pairs.skipped
    assert problem.startswith(said)


def test_a_picture_of_both_has_an_even_width(tmp_path: Path, random: Random) -> None:
    folder = combined(tmp_path, random)
    write(folder / "odd.png", picture(random, 24, 63))
    (problem,) = Paired(folder, crop_px=12).skipped
    assert problem == "odd.png is 63×24, expected an even width: A and B side by side"


def nothing(folder: Path, random: Random) -> None:
    folder.mkdir()


def no_folder(folder: Path, random: Random) -> None:
    pass


def no_b(folder: Path, random: Random) -> None:
    write(folder / "A" / "one.png", picture(random))


def empty_b(folder: Path, random: Random) -> None:
    no_b(folder, random)
    (folder / "B").mkdir()


def other_names(folder: Path, random: Random) -> None:
    no_b(folder, random)
    write(folder / "B" / "two.png", picture(random))


def only_small(folder: Path, random: Random) -> None:
    too_small(folder, random)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "no pictures in"),
        (no_folder, "no folder at"),
        (no_b, "holds A/ and no B/, expected both, or neither"),
        (empty_b, "no pictures in .*B"),
        (other_names, "no picture of .* has the name of one in B: A/one has no partner"),
        (only_small, "no pair in .* can be used: small is 40×9"),
    ],
)
def test_a_folder_without_a_pair_is_refused(
    make: Callable[[Path, Random], None], said: str, tmp_path: Path, random: Random
) -> None:
    make(tmp_path / "pairs", random)
    with pytest.raises(InvalidInput, match=said) as refused:
        Paired(tmp_path / "pairs", crop_px=12)
    assert refused.value.field == "data"


def test_a_crop_larger_than_the_pictures_are_loaded_is_refused(tmp_path: Path, random: Random) -> None:
    with pytest.raises(InvalidInput, match="load_px: got 8, expected at least crop_px=12, or 0"):
        Paired(two_folders(tmp_path, random), crop_px=12, load_px=8)


def test_pairs_to_measure_on_are_whole_and_every_bad_one_is_refused(tmp_path: Path, random: Random) -> None:
    folder = two_folders(tmp_path, random)
    pairs = read_paired(folder)
    assert pairs.keys() == {"one", "two", "sub/three"}
    assert all(torch.equal(a, 255 - b) and a.shape == (3, 24, 32) for a, b in pairs.values())
    lonely(folder, random)
    with pytest.raises(InvalidInput, match="A/lonely has no partner") as refused:
        read_paired(folder)
    assert refused.value.field == "validate"
