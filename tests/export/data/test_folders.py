"""Tests of reading labelled pictures from folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.data.labelled import read_labelled
from export.data.pictures import write_picture
from runtime.errors import InvalidInput


def flat(path: Path, value: int, height: int = 8, width: int = 8) -> None:
    """A picture of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, np.full((height, width, 3), value, np.uint8))


def test_subfolders_are_classes_and_damaged_files_are_named(tmp_path: Path) -> None:
    flat(tmp_path / "dog/1.png", 10)
    flat(tmp_path / "cat/deep/2.png", 20)
    flat(tmp_path / "cat/3.png", 30)
    (tmp_path / "cat/0.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    labelled = read_labelled(tmp_path, 8, 3)
    assert labelled.class_names == ("cat", "dog")
    assert labelled.labels is not None
    levels = labelled.images.float().mean(dim=(1, 2, 3)).tolist()
    assert sorted(zip(levels, labelled.labels.tolist(), strict=True)) == [(10, 1), (20, 0), (30, 0)]
    (skipped,) = labelled.skipped
    assert skipped.startswith("cat/0.png: 0.png cannot be decoded")


@pytest.mark.parametrize("channels", [1, 3])
def test_without_subfolders_there_are_no_labels_and_channels_are_as_asked(
    tmp_path: Path, channels: int
) -> None:
    flat(tmp_path / "b.png", 2)
    flat(tmp_path / "a.jpg", 200)
    labelled = read_labelled(tmp_path, 8, channels, split="test")
    assert labelled.images.shape == (2, channels, 8, 8)
    assert labelled.images.is_contiguous()
    assert (labelled.labels, labelled.class_names, labelled.skipped) == (None, (), ())
    assert labelled.images[:, :, 4, 4].tolist() == [[200] * channels, [2] * channels]


def test_pictures_are_reduced_cropped_or_centred_to_the_size(tmp_path: Path) -> None:
    """Larger: reduced until the shorter side fits, cut in the middle. Smaller: in the middle of black."""
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 255
    write_picture(tmp_path / "1-wide.png", wide)
    flat(tmp_path / "2-small.png", 100, 3, 4)
    flat(tmp_path / "3-flat.png", 100, 4, 20)
    wide_as, small, flat_as = read_labelled(tmp_path, 8, 3).images[:, 0].numpy()
    assert wide_as[:, 1:7].min() > 240  # the edges of the white third are a little soft
    expected = np.zeros((8, 8), np.uint8)
    expected[2:5, 2:6] = 100
    np.testing.assert_array_equal(small, expected)
    expected = np.zeros((8, 8), np.uint8)
    expected[2:6] = 100
    np.testing.assert_array_equal(flat_as, expected)


def test_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no pictures in"):
        read_labelled(tmp_path, 8, 3)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/broken.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match=r"no picture of .* can be decoded, .*broken\.png"):
        read_labelled(tmp_path, 8, 3)
    flat(tmp_path / "loose.png", 1)
    with pytest.raises(InvalidInput, match=r"holds loose\.png beside subfolders"):
        read_labelled(tmp_path, 8, 3)


def test_an_unknown_format_is_refused_with_a_list_of_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"nothing at .*nowhere, expected an \.npz archive .*; .*MNIST.*; .*CIFAR"
    ):
        read_labelled(tmp_path / "nowhere", 8, 3)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInput, match=r"notes\.txt is of another kind, expected"):
        read_labelled(tmp_path / "notes.txt", 8, 3)
