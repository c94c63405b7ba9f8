"""Tests of Crops: low and high resolution are aligned, also at borders, whatever is cached or shared by processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.data.batches import generator
from export.data.crops import Crops
from export.data.pictures import write_picture
from export.data.resize import resize
from runtime.errors import InvalidInput

SCALE, PATCH = 3, 4
SIZES = ((17, 22), (13, 30), (12, 12))  # two no multiples of the scale, one of a single crop


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, np.ndarray]:
    """Three pictures of noise, so that every crop is another."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = {
        folder / f"{number}.png": random.integers(0, 256, (*size, 3), dtype=np.uint8)
        for number, size in enumerate(SIZES)
    }
    for path, image in made.items():
        write_picture(path, image)
    return made


@pytest.fixture(scope="module")
def crops(pictures: dict[Path, np.ndarray]) -> Crops:
    return Crops(next(iter(pictures)).parent, scale=SCALE, patch_px=PATCH)


def ways(image: np.ndarray) -> list[np.ndarray]:
    """The eight ways a square can be turned."""
    return [np.rot90(side, quarters) for side in (image, image[::-1]) for quarters in range(4)]


@pytest.fixture(scope="module")
def possible(pictures: dict[Path, np.ndarray]) -> dict[bytes, bytes]:
    """Every crop there can be, high → low, from reductions of the whole pictures."""
    labelled: dict[bytes, bytes] = {}
    for image in pictures.values():
        height, width = (length // SCALE for length in image.shape[:2])
        whole = image[: height * SCALE, : width * SCALE]
        low = resize(whole, 1 / SCALE)
        for top in range(height - PATCH + 1):
            for left in range(width - PATCH + 1):
                window = np.s_[top * SCALE : (top + PATCH) * SCALE, left * SCALE : (left + PATCH) * SCALE]
                small = low[top : top + PATCH, left : left + PATCH]
                pairs = zip(ways(whole[window]), ways(small), strict=True)
                labelled |= {turned.tobytes(): turned_low.tobytes() for turned, turned_low in pairs}
    return labelled


def as_bytes(images: torch.Tensor) -> list[bytes]:
    """[N, C, H, W] float32 in [0, 1] → the 8-bit pixels of each, row by row."""
    return [image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes() for image in images]


def test_crops_are_those_of_the_reduced_picture_and_all_come(
    crops: Crops, possible: dict[bytes, bytes]
) -> None:
    low, high = crops.batch(generator(0, 0), 800)
    drawn = dict(zip(as_bytes(high), as_bytes(low), strict=True))
    assert drawn.items() <= possible.items()
    # Each of the 128 is drawn four times or more on average, so all but one in fifty should come.
    assert len(drawn) > 0.95 * len(possible)


def test_a_batch_has_its_shape_range_and_layout(crops: Crops) -> None:
    low, high = crops.batch(generator(0, 1), 5)
    assert (low.shape, high.shape) == ((5, 3, PATCH, PATCH), (5, 3, SCALE * PATCH, SCALE * PATCH))
    for images in (low, high):
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert float(images.min()) >= 0
        assert 0.5 < float(images.max()) <= 1


@given(seed=st.integers(0, 2**64 - 1), count=st.integers(1, 6), cut=st.integers(0, 6))
def test_parts_of_a_batch_make_up_the_whole(crops: Crops, seed: int, count: int, cut: int) -> None:
    def draw(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return crops.batch(generator(seed, 7), count, part=part)

    whole, first, second = draw(slice(None)), draw(slice(cut)), draw(slice(cut, None))
    for side in range(2):
        assert torch.cat((first[side], second[side])).equal(whole[side])


@pytest.mark.parametrize("kept_bytes", [0, 1200, 2000])
def test_crops_of_uncached_pictures_are_the_same(
    crops: Crops, pictures: dict[Path, np.ndarray], kept_bytes: int
) -> None:
    small = Crops(next(iter(pictures)).parent, scale=SCALE, patch_px=PATCH, cache_gib=kept_bytes / 2**30)
    assert sum(image.nbytes for image in small.cache.values()) <= kept_bytes
    assert len(small.cache) < len(pictures)
    for number in range(3):
        for ours, theirs in zip(
            small.batch(generator(0, number), 6), crops.batch(generator(0, number), 6), strict=True
        ):
            assert ours.equal(theirs)


def test_files_that_cannot_be_used_are_named(pictures: dict[Path, np.ndarray], tmp_path: Path) -> None:
    for path, image in pictures.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        write_picture(tmp_path / "in" / path.name, image)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_picture(tmp_path / "small.png", np.zeros((11, 40, 3), np.uint8))
    labelled = Crops(tmp_path, scale=SCALE, patch_px=PATCH)
    assert labelled.names == ("in/0.png", "in/1.png", "in/2.png")
    broken, small = labelled.skipped
    assert broken.startswith("broken.png cannot be decoded: ")
    assert small == "small.png is 40×11, expected 12 px a side or more"
    with pytest.raises(InvalidInput, match=r"no picture of .* can be used: "):
        Crops(tmp_path, scale=SCALE, patch_px=11)
