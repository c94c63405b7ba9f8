"""Tests of reading CIFAR from folders and archives. Code that a pickle names must not run."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.data.labelled import read_labelled
from runtime.errors import InvalidInput

ROWS = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)


def text(value: str) -> bytes:
    """Text as Python 2 pickled it."""
    return b"U" + bytes((len(value),)) + value.encode()


def by_python_2(rows: np.ndarray, labels: list[int]) -> bytes:
    """{"data": rows, "labels": labels} as Python 2 and the NumPy of 2009 pickled it (protocol 2), to the byte."""
    length = np.array(rows.shape, "<i4")
    raw = rows.tobytes()
    return (
        b"\x80\x02}(" + text("data") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b")
        + b"\x87R(K\x01J" + length[0].tobytes() + b"J" + length[1].tobytes() + b"\x86cnumpy\ndtype\n" + text("u1")
        + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + np.array(len(raw), "<i4").tobytes() + raw + b"tb" + text("labels") + b"]("
        + b"".join(b"K" + bytes((label,)) for label in labels) + b"eu."
    )  # fmt: skip


def write(folder: Path, files: Mapping[str, Any], protocol: int = 2) -> Path:
    folder.mkdir()
    for name, value in files.items():
        content = value if isinstance(value, bytes) else pickle.dumps(value, protocol)
        (folder / name).write_bytes(content)
    return folder


def cifar10(**replaced: Any) -> dict[str, Any]:
    batches = {f"data_batch_{number}": {b"data": ROWS, b"labels": [number, 0]} for number in range(1, 6)}
    meta = {"label_names": [f"class {number}" for number in range(10)]}
    return {"batches.meta": meta, "test_batch": {b"data": ROWS[::-1], b"labels": [9, 8]}} | batches | replaced


CIFAR100 = {
    "meta": {b"fine_label_names": [b"apple", b"bear"], b"coarse_label_names": [b"thing"]},
    "train": {b"data": ROWS, b"fine_labels": [1, 0], b"coarse_labels": [0, 0]},
    "test": {b"data": ROWS[::-1], b"fine_labels": [0, 1], b"coarse_labels": [0, 0]},
}


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname="cifar-batches-py")
    return path


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("as_archive", [False, True])
def test_cifar_10_is_read_from_a_folder_and_from_an_archive(
    tmp_path: Path, protocol: int, as_archive: bool
) -> None:
    path = write(tmp_path / "cifar", cifar10(), protocol)
    path = packed(path) if as_archive else path
    train, test = read_labelled(path, 32, 3), read_labelled(path, 32, 3, split="test")
    np.testing.assert_array_equal(train.images.reshape(10, -1), np.tile(ROWS, (5, 1)))
    np.testing.assert_array_equal(test.images.reshape(2, -1), ROWS[::-1])
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert train.class_names[:2] == ("class 0", "class 1")


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    pictures = read_labelled(write(tmp_path / "cifar", CIFAR100), 40, 3, split="test")
    assert pictures.images.shape == (2, 3, 40, 40)
    np.testing.assert_array_equal(pictures.images[:, :, 4:36, 4:36].reshape(2, -1), ROWS[::-1])
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [0, 1]
    assert pictures.class_names == ("apple", "bear")


def test_the_bytes_that_python_2_wrote_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path / "cifar", cifar10(test_batch=by_python_2(ROWS, [3, 4])))
    pictures = read_labelled(path, 32, 3, split="test")
    np.testing.assert_array_equal(pictures.images.reshape(2, -1), ROWS)
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [3, 4]


class Command:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("where", ["batches.meta", "test_batch"])
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(tmp_path: Path, where: str) -> None:
    made = tmp_path / "made"
    path = write(tmp_path / "cifar", cifar10(**{where: {"data": Command(made)}}))
    with pytest.raises(
        InvalidInput, match=rf"{where} is a pickle that names \w+\.mkdir, expected only plain"
    ):
        read_labelled(path, 32, 3, split="test")
    assert not made.exists()


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in cifar10().items() if key != name}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (without("data_batch_3"), "lacks data_batch_3, expected all of CIFAR-10"),
        (cifar10(data_batch_2=b""), "data_batch_2 is damaged or cut short"),
        (cifar10(data_batch_2=pickle.dumps({"data": ROWS}, 2)[:-9]), "data_batch_2 is damaged or cut short"),
        (
            cifar10(data_batch_2=by_python_2(ROWS, [0, 1]).replace(b"U\x02u1", b"U\x02O8")),
            "an array of O8, expected u1",
        ),
        (
            cifar10(data_batch_2=by_python_2(ROWS, [0, 1]).replace(b"J\x02\0\0\0", b"J\x03\0\0\0")),
            "expected 9216",
        ),
        (cifar10(data_batch_2=[1]), "data_batch_2 holds a list, expected a dictionary"),
        (cifar10(data_batch_2={"labels": [1, 2]}), r"`data` is a NoneType, expected \[N, 3072\] uint8"),
        (cifar10(data_batch_2={"data": ROWS[:, 1:], "labels": [1, 2]}), r"`data` is \(2, 3071\), expected"),
        (cifar10(data_batch_2={"data": ROWS}), "data_batch_2 holds data; expected `labels`, a list of int"),
        (cifar10(data_batch_2={"data": ROWS, "labels": [1]}), "data_batch_2 has 1 labels, expected 2"),
        (cifar10(data_batch_2={"data": ROWS, "labels": [1, 10]}), "labels run from 1 to 10, expected 0 to 9"),
        (
            cifar10(**{"batches.meta": {"names": []}}),
            "batches.meta holds names; expected `label_names`, a list",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_named(tmp_path: Path, files: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_labelled(write(tmp_path / "cifar", files), 32, 3)


def test_colour_pictures_are_refused_for_a_grey_generator(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"with 3 channels, expected .* 1 channels .*--set channels="):
        read_labelled(write(tmp_path / "cifar", CIFAR100), 32, 1)


def test_an_archive_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path = packed(write(tmp_path / "cifar", cifar10()))
    whole = path.read_bytes()
    for kept in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:kept])
        with pytest.raises(InvalidInput, match=r"cifar\.tar\.gz is damaged or cut short"):
            read_labelled(path, 32, 3)
    other = packed(write(tmp_path / "other", {"notes.txt": b"hello"}))
    with pytest.raises(
        InvalidInput, match=r"other\.tar\.gz lacks a file of class names, expected CIFAR-10's"
    ):
        read_labelled(other, 32, 3)
