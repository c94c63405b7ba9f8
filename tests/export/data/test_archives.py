"""Tests of reading .npz and IDX archives."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.data.labelled import read_labelled
from runtime.errors import InvalidInput

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)  # [N, H, W]
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim))
    return header + b"".join(length.to_bytes(4, "big") for length in array.shape) + array.tobytes()


def mnist(folder: Path, prefix: str, images: np.ndarray = PICTURES, *, packed: bool = False) -> Path:
    """Writes both files; the path of the images."""
    for name, array in (("images-idx3", images), ("labels-idx1", LABELS)):
        content = gzip.compress(idx(array)) if packed else idx(array)
        (folder / f"{prefix}-{name}-ubyte{'.gz' * packed}").write_bytes(content)
    return folder / f"{prefix}-images-idx3-ubyte{'.gz' * packed}"


def test_an_npz_is_read_by_split_and_set_in_the_middle_of_black(tmp_path: Path) -> None:
    path = npz(
        tmp_path,
        train_images=PICTURES,
        train_labels=LABELS,
        test_images=PICTURES[::-1],
        classes=["a", "b", "c"],
    )
    labelled = read_labelled(path, 8, 1)
    assert labelled.images.shape == (6, 1, 8, 8)
    np.testing.assert_array_equal(labelled.images[:, 0, 1:6, 2:6], PICTURES)
    assert int(labelled.images.sum()) == int(PICTURES.sum())
    assert labelled.labels is not None
    assert labelled.labels.tolist() == LABELS.tolist()
    assert labelled.class_names == ("a", "b", "c")
    other = read_labelled(path, 8, 1, split="test")
    np.testing.assert_array_equal(other.images[:, 0, 1:6, 2:6], PICTURES[::-1])
    assert other.labels is None


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_npz_without_splits_is_read_whole(tmp_path: Path, split: Any) -> None:
    colours = np.repeat(PICTURES[..., None], 3, axis=3)
    assert len(read_labelled(npz(tmp_path, images=colours), 8, 3, split).images) == 6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": PICTURES}, r"a\.npz holds pictures; expected `images` or `train_images`"),
        ({"images": PICTURES[:0]}, "one or more"),
        ({"images": PICTURES.astype(np.float32)}, r"float32, expected \[N, H, W\(, C\)\] uint8"),
        (
            {"images": PICTURES.repeat(2, axis=1)},
            "4×10 px with 1 channels, expected at most 8 px and 1 channels",
        ),
        (
            {"images": PICTURES[..., None].repeat(3, axis=3)},
            "with 3 channels, .* 1 channels .*--set channels=",
        ),
        ({"images": PICTURES, "labels": LABELS[1:]}, r"labels are \(5,\), expected \(6,\): one a picture"),
        ({"images": PICTURES, "labels": LABELS / 2}, "labels are float64, expected integers"),
        ({"images": PICTURES, "labels": np.array([object()] * 6)}, r"a\.npz is damaged .*allow_pickle"),
    ],
)
def test_an_npz_that_does_not_fit_is_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_labelled(npz(tmp_path, **arrays), 8, 1)


@pytest.mark.parametrize("kept", [0, 10, 300])
def test_an_npz_cut_short_is_named(tmp_path: Path, kept: int) -> None:
    path = npz(tmp_path, images=PICTURES)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InvalidInput, match=r"a\.npz is damaged or cut short"):
        read_labelled(path, 8, 1)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files_is_read_by_split(tmp_path: Path, packed: bool) -> None:
    mnist(tmp_path, "train", packed=packed)
    test_images = mnist(tmp_path, "t10k", PICTURES[::-1], packed=packed)
    train, test, alone = (
        read_labelled(tmp_path, 5, 1),
        read_labelled(tmp_path, 5, 1, split="test"),
        read_labelled(test_images, 5, 1),
    )
    np.testing.assert_array_equal(train.images[:, 0, :, :4], PICTURES)
    np.testing.assert_array_equal(test.images[:, 0, :, :4], PICTURES[::-1])
    assert alone.images.equal(test.images)
    for labelled in (train, test, alone):
        assert labelled.labels is not None
        assert labelled.labels.tolist() == LABELS.tolist()
        assert labelled.class_names == ()


def test_idx_files_may_lack_labels_but_not_the_split(tmp_path: Path) -> None:
    path = mnist(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert read_labelled(path, 8, 1).labels is None
    with pytest.raises(InvalidInput, match="not the test split; expected t10k-images-idx3-ubyte"):
        read_labelled(tmp_path, 8, 1, split="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with 0x, expected 0x00000803"),
        (idx(LABELS), "starts with 0x00000801, expected 0x00000803"),
        (idx(PICTURES)[:9], "one or more"),
        (idx(PICTURES)[:-1], "holds 119 values, expected 6 × 5 × 4 by its header"),
        (idx(PICTURES) + b"x", "holds 121 values, expected 6 × 5 × 4 by its header"),
        (idx(PICTURES[:0]), "one or more"),
        (idx(PICTURES[1:]), r"labels are \(6,\), expected \(5,\)"),
    ],
)
def test_an_idx_file_that_is_not_whole_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = mnist(tmp_path, "train")
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"train-images-idx3-ubyte.*({message})"):
        read_labelled(path, 8, 1)


@pytest.mark.parametrize(
    "spoil", [lambda packed: packed[:-9], lambda _: b"no gzip", lambda packed: packed[:20]]
)
def test_a_damaged_gzip_is_named(tmp_path: Path, spoil: Any) -> None:
    path = mnist(tmp_path, "train", packed=True)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidInput, match=r"train-images-idx3-ubyte\.gz is damaged or cut short"):
        read_labelled(path, 8, 1)
