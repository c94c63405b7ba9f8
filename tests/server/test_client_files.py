"""The names of the client's results: in folders, for every format, and with standard input and output."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from runtime import pixels
from runtime.pictures.reading import open_picture
from tests.server.client_runs import contents, done, make_photos, refused, run, width
from tests.server.conftest import (
    SCALE,
    Served,
    decoded,
    expected,
    levels_apart,
    picture,
    png,
)
from tests.server.kinds import levels, saved, transparent_bmp, vips, waves


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path)


def test_a_file_into_a_file(served: Served, tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "new" / "out.png"
    source.write_bytes(png(50, 40))
    assert "200×160" in done(served, "upscale", source, target).output
    assert levels_apart(decoded(target.read_bytes()), expected(picture(50, 40))) <= 1


def test_the_ending_of_the_target_chooses_the_format(served: Served, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(png(20, 20))
    for ending, format in ((".jpg", "jpeg"), (".webp", "webp"), (".tif", "tiff"), (".PNG", "png")):
        target = tmp_path / f"out{ending}"
        done(served, "upscale", source, target, "--outscale", "2", "--quality", "90")
        header = open_picture(target.read_bytes(), max_pixels=10**6).header
        assert (header.format, header.width) == (format, 40)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "in-x4.png"),
        (["--outscale", "2"], "in-x2.png"),
        (["--outscale", "1.5"], "in-x1.5.png"),
        (["--outscale", "1.5", "--format", "jpeg"], "in-x1.5.jpg"),
    ],
)
def test_an_answer_in_a_folder_is_named_for_its_scale(
    served: Served, tmp_path: Path, options: list[str], name: str
) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(png(8, 8))
    done(served, "upscale", source, tmp_path / "out", *options)
    assert list(contents(tmp_path / "out")) == [name]


def test_a_folder_into_a_folder(served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"not for us")
    (folder / "same.png").write_bytes(png(9, 8))
    (folder / "same.jpg").write_bytes(pixels.encode(picture(7, 6), "jpeg"))
    (folder / "other.png").write_bytes(png(5, 4))
    result = done(served, "upscale", folder, tmp_path / "out")
    sizes = {path.name: width(path) for path in (tmp_path / "out").iterdir()}
    assert sizes == {"same-x4.png": 36, "same-x4.jpg": 28, "other-x4.png": 20}
    assert "3 of 3: " in result.output


def test_several_pictures_and_folders_into_a_folder(served: Served, photos: Path, tmp_path: Path) -> None:
    single = tmp_path / "single.png"
    single.write_bytes(png(3, 3))
    done(served, "upscale", photos / "a.png", single, photos, tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["a-x4.png", "b-x4.png", "single-x4.png"]


def test_recursive_mirrors_the_folders(served: Served, photos: Path, tmp_path: Path) -> None:
    done(served, "upscale", photos, tmp_path / "out", "--recursive")
    assert list(contents(tmp_path / "out")) == ["a-x4.png", "b-x4.png", "sub/c-x4.png"]
    assert width(tmp_path / "out" / "sub" / "c-x4.png") == 28


def test_names_that_differ_only_by_suffix_get_different_results(served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = Image.fromarray(levels(3))
    # The third has the name that the first would get to tell it from the second.
    for name, format in {"same.png": "PNG", "same.bmp": "BMP", "same-png.gif": "GIF"}.items():
        (folder / name).write_bytes(saved(image, format))
    done(served, "upscale", folder, tmp_path / "out")
    names = ["same-bmp-x4.png", "same-png-gif-x4.png", "same-png-x4.png"]
    assert list(contents(tmp_path / "out")) == names


def test_two_sources_never_share_a_target(served: Served, photos: Path, tmp_path: Path) -> None:
    (photos / "sub" / "a.png").write_bytes(png(3, 3))
    message = refused(served, "upscale", photos / "a.png", photos / "sub" / "a.png", tmp_path / "out")
    assert "would both become" in message
    assert not (tmp_path / "out").exists()


def test_each_kind_of_picture_in_a_folder_gets_its_ending(served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = Image.fromarray(levels(3))
    for name, format in (
        ("a.png", "PNG"),
        ("b.JPG", "JPEG"),
        ("c.webp", "WEBP"),
        ("d.tiff", "TIFF"),
        ("e.gif", "GIF"),
        ("f.avif", "AVIF"),
        ("g.bmp", "BMP"),
        ("j.png", "JPEG"),  # the bytes say what it is, not its name
    ):
        (folder / name).write_bytes(saved(image, format))
    (folder / "h.bmp").write_bytes(transparent_bmp().file)
    (folder / "i.tif").write_bytes(vips(waves(3), "scrgb").tiffsave_buffer())
    done(served, "upscale", folder, tmp_path / "out")
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert sorted(files) == [
        "a-x4.png", "b-x4.jpg", "c-x4.webp", "d-x4.tiff", "e-x4.png", "f-x4.png", "g-x4.png", "h-x4.png",
        "i-x4.tiff", "j-x4.jpg",
    ]  # fmt: skip
    for path in files.values():
        header = open_picture(path.read_bytes(), max_pixels=10**6).header
        assert (header.width, header.height) == (image.width * SCALE, image.height * SCALE)
    assert open_picture(files["h-x4.png"].read_bytes(), max_pixels=10**6).header.pixel_format.alpha
    assert open_picture(files["i-x4.tiff"].read_bytes(), max_pixels=10**6).header.pixel_format.bits == 32


def test_lossless_and_compression_are_flags(served: Served, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(png(30, 30))
    done(served, "upscale", source, tmp_path / "out.webp", "--lossless")
    assert levels_apart(decoded((tmp_path / "out.webp").read_bytes()), expected(picture(30, 30))) <= 1
    sizes = []
    for compression in ("0", "9"):
        target = tmp_path / f"{compression}.png"
        done(served, "upscale", source, target, "--compression", compression)
        sizes.append(target.stat().st_size)
    assert sizes[0] > sizes[1]
    wrong = run(served, "upscale", source, tmp_path / "out.jpg", "--lossless")
    assert wrong.exit_code == 1
    assert "lossless" in wrong.output
    assert run(served, "upscale", source, tmp_path / "out.png", "--compression", "10").exit_code == 2


def test_standard_input_and_output(served: Served, tmp_path: Path) -> None:
    image = png(9, 8)
    result = run(served, "upscale", "-", "-", "--format", "png", stdin=image)
    assert result.exit_code == 0, result.stderr
    assert levels_apart(decoded(result.stdout_bytes), expected(picture(9, 8))) <= 1
    assert "36×32" in result.stderr
    assert run(served, "upscale", "-", tmp_path / "out.png", stdin=image).exit_code == 0
    assert width(tmp_path / "out.png") == 36
    assert run(served, "upscale", "-", tmp_path / "folder", stdin=image).exit_code == 0
    assert list(contents(tmp_path / "folder")) == ["stdin-x4.png"]
    missing = run(served, "upscale", "-", "-", stdin=image)
    assert missing.exit_code == 2
    assert "give --format" in missing.stderr
    failed = run(served, "upscale", "-", "-", "--format", "png", stdin=b"no picture")
    assert (failed.exit_code, failed.stdout_bytes) == (1, b"")
    assert "name a folder" in refused(served, "upscale", "-", tmp_path / "out.png", "-", "--format", "png")


def test_a_pipe_is_opened_once(served: Served, tmp_path: Path) -> None:
    pipe, image = tmp_path / "pipe.png", png(9, 8)
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[image], daemon=True)
    writer.start()
    done(served, "upscale", pipe, tmp_path / "folder")
    writer.join()
    assert width(tmp_path / "folder" / "pipe-x4.png") == 36


def test_a_name_that_is_no_text_goes_through(served: Served, tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.png")
    source.write_bytes(png(9, 8))
    result = done(served, "upscale", source, tmp_path / "folder")
    assert "caf" in result.output
    assert width(tmp_path / "folder" / os.fsdecode(b"caf\xe9-x4.png")) == 36
