"""The client's command line: samples, models, health, and errors that are one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from runtime import pixels
from server.client.__main__ import main
from tests.server.conftest import Served, decoded, png


def run(served: Served, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--address", served.address])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["upscale", "nowhere.png", "out.png"], 2, "does not exist"),
        (["upscale", "in.png", "out.xyz"], 2, "OUT ends with .xyz"),
        (["upscale", "in.png", "out.jpg", "--format", "png"], 2, "which is not --format png"),
        (["upscale", "in.png", "out.png", "--model", "nope"], 1, "'nope' is not served here"),
        (["upscale", "in.png", "folder", "--model", "nope"], 1, "'nope' is not served here"),
        (["upscale", "in.png", "folder", "--model", "plain"], 1, "the server has upscaler to upscale"),
        (["upscale", "in.png", "out.png", "--outscale", "-1"], 1, "outscale: got -1.0"),
        (["generate", "out", "--model", "plain", "--label", "1"], 1, "no classes"),
        (
            ["generate", "out", "--model", "generator", "--label", "cat"],
            1,
            "got 'cat', expected one of class0",
        ),
        (["generate", "out", "--model", "plain", "--count", "100000"], 1, "--max-count"),
        (["generate", "out", "--model", "plain", "--count", "99999999999"], 1, "count: got 99999999999"),
        (
            ["generate", "out", "--model", "generator", "--label", "99999999999"],
            1,
            "labels: got [99999999999]",
        ),
        (["upscale", "in.png", "out.png", "--model", "\udcff"], 1, "model: got '\\udcff'"),
        (["generate", "-"], 2, "give --grid"),
        (["generate", "-", "--grid"], 2, "or give --format"),
        (["generate", "grid.xyz", "--grid"], 2, "OUT is grid.xyz; for a grid, expected"),
        (["generate", "out.png"], 2, "give --grid"),
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
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "in.png"]


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png(4, 4))
    arguments = ["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--address", "127.0.0.1:1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output
    assert CliRunner().invoke(main, ["health", "--address", "127.0.0.1:1"]).exit_code == 1


@pytest.mark.parametrize(
    ("columns", "options"), [(5, ["--columns", "5"]), (5, ["--columns", "1000000000"]), (3, [])]
)
def test_samples_into_a_folder_and_a_grid(
    served: Served, tmp_path: Path, columns: int, options: list[str]
) -> None:
    common = ("--model", "generator", "--count", "5", "--seed", "7", "--label", "class1")
    assert run(served, "generate", tmp_path / "samples", *common).exit_code == 0
    files = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in files][:2] == ["generator-7-0000.png", "generator-7-0001.png"]
    result = run(served, "generate", "--grid", tmp_path / "grid.png", *common, *options)
    assert result.exit_code == 0, result.output
    assert "seed 7" in result.output
    sheet = pixels.grid([decoded(path.read_bytes()) for path in files], columns)
    np.testing.assert_array_equal(decoded((tmp_path / "grid.png").read_bytes()), sheet)
    piped = run(served, "generate", "--grid", "-", "--format", "png", *common, *options)
    assert piped.stdout_bytes == (tmp_path / "grid.png").read_bytes()
    assert "seed 7" in piped.stderr


def test_models_and_health(served: Served) -> None:
    listed = run(served, "models").output
    for word in ("upscaler", "generator", "×4", "8×8", "class0, class1, class2", "float32"):
        assert word in listed
    assert run(served, "health").exit_code == 0
