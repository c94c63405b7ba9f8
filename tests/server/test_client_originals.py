"""What the client's commands never overwrite: sources, and existing files without --overwrite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.server.client_runs import contents, done, make_photos, refused, run, width
from tests.server.conftest import (
    Served,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path)


def test_a_photo_upscaled_into_its_own_folder_is_kept(
    served: Served, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    before = contents(photos)
    done(served, "upscale", "a.png", ".")
    assert contents(photos) == before | {"a-x4.png": (photos / "a-x4.png").read_bytes()}
    assert width(photos / "a-x4.png") == 20


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_source_is_never_written_over(served: Served, photos: Path, options: list[str]) -> None:
    (photos / "soft.png").symlink_to(photos / "a.png")
    (photos / "hard.png").hardlink_to(photos / "a.png")
    (photos / "loop").symlink_to(photos)
    before = contents(photos)
    for target in ("a.png", "sub/../a.png", "soft.png", "hard.png", "loop/a.png"):
        message = refused(served, "upscale", photos / "a.png", photos / target, *options)
        assert "sources are never overwritten" in message
    assert contents(photos) == before


def test_a_picture_that_has_not_been_read_yet_is_never_written_over(served: Served, photos: Path) -> None:
    # b-x4.png in OUT leads to another picture of the same run.
    out = photos.parent / "out"
    out.mkdir()
    (out / "b-x4.png").symlink_to(photos / "a.png")
    before = contents(photos)
    assert "sources are never overwritten" in refused(served, "upscale", photos, out, "--overwrite")
    (out / "b-x4.png").unlink()
    (out / "b-x4.png").hardlink_to(photos / "a.png")
    assert "sources are never overwritten" in refused(served, "upscale", photos, out, "--overwrite")
    assert contents(photos) == before


def test_a_folder_upscaled_into_itself_keeps_its_pictures_and_sends_no_results(
    served: Served, photos: Path
) -> None:
    before = contents(photos)
    done(served, "upscale", photos, photos, "--recursive")
    after = contents(photos)
    assert set(after) - set(before) == {"a-x4.png", "b-x4.png", "sub/c-x4.png"}
    assert {name: after[name] for name in before} == before
    # Once more, in two ways: nothing is enlarged twice, whatever the scale.
    assert (
        "3 already there" in done(served, "upscale", photos, photos, "--recursive", "--skip-existing").output
    )
    assert contents(photos) == after
    done(served, "upscale", photos, photos, "--outscale", "2")
    assert set(contents(photos)) - set(after) == {"a-x2.png", "b-x2.png"}
    for options in ([], ["--overwrite"]):
        message = refused(served, "upscale", photos, photos, *options)
        assert "a-x4.png is in the folder of the pictures, and so is itself a source" in message
        assert "--skip-existing" in message


def test_a_folder_of_results_inside_the_sources_is_not_read(served: Served, photos: Path) -> None:
    out = photos / "out"
    done(served, "upscale", photos, out, "--recursive")
    first = contents(out)
    assert list(first) == ["a-x4.png", "b-x4.png", "sub/c-x4.png"]
    result = done(served, "upscale", photos, out, "--recursive", "--skip-existing")
    assert "Not read, because it is the folder of the results: " in result.output
    assert contents(out) == first


def test_an_existing_file_is_replaced_only_with_overwrite(served: Served, photos: Path) -> None:
    target = photos.parent / "out.png"
    target.write_bytes(b"dear to somebody")
    message = refused(served, "upscale", photos / "a.png", target)
    assert "--skip-existing" in message
    assert "--overwrite" in message
    done(served, "upscale", photos / "a.png", target, "--skip-existing")
    assert target.read_bytes() == b"dear to somebody"
    done(served, "upscale", photos / "a.png", target, "--overwrite")
    assert width(target) == 20
    assert "give only one of" in refused(
        served, "upscale", photos / "a.png", target, "--overwrite", "--skip-existing"
    )


def test_a_target_that_is_not_a_regular_file_is_never_replaced(
    served: Served, photos: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out" / "a-x4.png").mkdir(parents=True)
    common = ("--format", "png", "--overwrite")
    assert "is not a regular file" in refused(served, "upscale", photos / "a.png", tmp_path / "pipe", *common)
    assert "is not a regular file" in refused(served, "upscale", photos, tmp_path / "out", *common)
    assert (tmp_path / "pipe").is_fifo()


def test_overwrite_writes_through_a_symbolic_link(served: Served, photos: Path) -> None:
    elsewhere = photos.parent / "elsewhere" / "old.png"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"old")
    link = photos.parent / "out.png"
    link.symlink_to(elsewhere)
    assert "exists" in refused(served, "upscale", photos / "a.png", link)
    done(served, "upscale", photos / "a.png", link, "--overwrite")
    assert link.is_symlink()
    assert width(elsewhere) == 20


def test_one_existing_answer_stops_a_folder_before_anything_is_sent(
    served: Served, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b-x4.png").write_bytes(b"older")
    message = refused(served, "upscale", photos, out)
    assert "1 of 2 results" in message
    assert contents(out) == {"b-x4.png": b"older"}
    result = done(served, "upscale", photos, out, "--skip-existing")
    assert "1 done, 1 already there" in result.output
    assert (out / "b-x4.png").read_bytes() == b"older"
    assert width(out / "a-x4.png") == 20


def test_samples_are_replaced_only_with_overwrite(served: Served, tmp_path: Path) -> None:
    common = ("--model", "plain", "--count", "2", "--seed", "7")
    done(served, "generate", tmp_path / "samples", *common)
    assert list(contents(tmp_path / "samples")) == ["plain-7-0000.png", "plain-7-0001.png"]
    (tmp_path / "samples" / "plain-7-0001.png").write_bytes(b"mine")
    (tmp_path / "samples" / "plain-7-0000.png").unlink()
    assert "plain-7-0001.png exists" in run(served, "generate", tmp_path / "samples", *common).output
    assert contents(tmp_path / "samples") == {"plain-7-0001.png": b"mine"}
    done(served, "generate", tmp_path / "samples", *common, "--overwrite")
    assert width(tmp_path / "samples" / "plain-7-0001.png") == 8
    grid = tmp_path / "grid.png"
    grid.write_bytes(b"mine")
    assert "grid.png exists" in run(served, "generate", "--grid", grid, *common).output
    assert grid.read_bytes() == b"mine"
    done(served, "generate", "--grid", grid, *common, "--overwrite")
    assert width(grid) == 2 * 8 + 3 * 2
