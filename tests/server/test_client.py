"""The command-line client, in its own process's clothes, and the errors of the Python client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from runtime import errors, pixels
from runtime.errors import GanforgeError
from server.client import STREAM_FROM_BYTES, Client
from server.client.__main__ import main
from server.statuses import CODES
from tests.server.conftest import Served, decoded, expected, levels_apart, picture, png


def run(served: Served, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--address", served.address])


def test_a_file_into_a_file(served: Served, tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "new" / "out.png"
    source.write_bytes(png(50, 40))
    result = run(served, "upscale", source, target)
    assert result.exit_code == 0, result.output
    assert "200×160" in result.output
    assert levels_apart(decoded(target.read_bytes()), expected(picture(50, 40))) <= 1


def test_the_ending_of_the_target_chooses_the_format(served: Served, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(png(20, 20))
    for ending, format in ((".jpg", "jpeg"), (".webp", "webp"), (".tif", "tiff"), (".PNG", "png")):
        target = tmp_path / f"out{ending}"
        assert run(served, "upscale", source, target, "--outscale", "2", "--quality", "90").exit_code == 0
        header = pixels.probe(target.read_bytes(), max_pixels=10**6)
        assert (header.format, header.width) == (format, 40)


def test_a_folder_into_a_folder(served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "notes.txt").write_text("no picture")
    (folder / "same.png").write_bytes(png(9, 8))
    (folder / "same.jpg").write_bytes(pixels.encode(picture(7, 6), "jpeg"))
    (folder / "other.png").write_bytes(png(5, 4))
    result = run(served, "upscale", folder, tmp_path / "out")
    assert result.exit_code == 0, result.output
    sizes = {
        path.name: pixels.probe(path.read_bytes(), max_pixels=10**6).width
        for path in (tmp_path / "out").iterdir()
    }
    assert sizes == {"same-png.png": 36, "same-jpg.jpg": 28, "other.png": 20}


def test_a_bad_picture_of_a_folder_is_told_and_the_others_are_made(served: Served, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    (tmp_path / "good.png").write_bytes(png(5, 4))
    result = run(served, "upscale", tmp_path, tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png: image: got 17 bytes that are no image" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["upscale", "nowhere.png", "out.png"], 2, "does not exist"),
        (["upscale", "in.png", "out.xyz"], 2, "OUT ends with .xyz"),
        (["upscale", "in.png", "out.png", "--model", "nope"], 1, "'nope' is not served here"),
        (["upscale", "in.png", "out.png", "--outscale", "-1"], 1, "outscale: got -1.0"),
        (["generate", "out", "--model", "plain", "--label", "1"], 1, "no classes"),
        (
            ["generate", "out", "--model", "generator", "--label", "cat"],
            1,
            "got 'cat', expected one of class0",
        ),
        (["generate", "out", "--model", "plain", "--count", "100000"], 1, "--max-count"),
        (["generate", "grid.xyz", "--grid"], 2, "OUT of a grid"),
        (["upscale", "empty", "out"], 1, "holds no picture"),
        (["dance"], 2, "No such command"),
    ],
)
def test_errors_are_one_sentence(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.png").write_bytes(png(4, 4))
    Path("empty").mkdir()
    result = run(served, *arguments)
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png(4, 4))
    arguments = ["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--address", "127.0.0.1:1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output
    assert CliRunner().invoke(main, ["health", "--address", "127.0.0.1:1"]).exit_code == 1


def test_samples_into_a_folder_and_a_grid(served: Served, tmp_path: Path) -> None:
    common = ("--model", "generator", "--count", "5", "--seed", "7", "--label", "class1")
    assert run(served, "generate", tmp_path / "samples", *common).exit_code == 0
    files = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in files][:2] == ["generator-7-0000.png", "generator-7-0001.png"]
    result = run(served, "generate", "--grid", tmp_path / "grid.png", *common, "--columns", "5")
    assert result.exit_code == 0, result.output
    assert "seed 7" in result.output
    sheet = pixels.grid([decoded(path.read_bytes()) for path in files], 5)
    np.testing.assert_array_equal(decoded((tmp_path / "grid.png").read_bytes()), sheet)


def test_models_and_health(served: Served) -> None:
    listed = run(served, "models").output
    for word in ("upscaler", "generator", "×4", "8×8", "class0, class1, class2", "float32"):
        assert word in listed
    assert run(served, "health").exit_code == 0


def test_a_large_image_goes_through_the_stream_and_is_the_same(served: Served) -> None:
    image = png(170, 170)
    assert len(image) > STREAM_FROM_BYTES
    heard: list[tuple[int, int]] = []
    answer = served.client.upscale(image, on_progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (49, 49)  # 7 × 7 windows
    assert answer.image == served.client.upscale(image).image
    assert levels_apart(decoded(answer.image), expected(picture(170, 170))) <= 1
    assert "UpscaleStream" in {line["method"] for line in served.lines[-2:]}


def test_errors_cross_the_wire_as_themselves(served: Served) -> None:
    with pytest.raises(errors.InvalidInput) as invalid:
        served.client.upscale(b"text")
    assert invalid.value.field == "image"
    with pytest.raises(errors.ModelNotFound, match="'nope'"):
        served.client.generate(1, model="nope")
    with pytest.raises(errors.InvalidInput, match="format"):
        served.client.upscale(png(2, 2), format="bmp")
    with Client("127.0.0.1:1", retry=False) as nobody, pytest.raises(errors.NotReady):
        nobody.models()


def test_every_error_of_ours_has_a_status() -> None:
    assert set(CODES) == set(GanforgeError.__subclasses__())
