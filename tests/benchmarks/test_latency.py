"""Tests of the benchmark commands on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import encoding, figures, latency, served
from benchmarks.figures import Figure

pytestmark = pytest.mark.slow


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _small_posters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "POSTER_HW", (70, 100))
    monkeypatch.setattr(encoding, "SIDE_PX", 128)


def test_a_quick_run_measures_everything_in_turns(tiny_bundles: Path, tmp_path: Path) -> None:
    common = ("--bundles", tiny_bundles, "--output", tmp_path, "--quick", "--duration-s", 0.1)
    result = run(latency.main, *common)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "latency.json").read_text())["bundles"]
    assert (tmp_path / "latency.png").stat().st_size > 0
    assert report["memory"]["warm_mib"] > 0
    assert len(report["overhead"]["raw_per_s"]) == len(report["overhead"]["served_per_s"]) == 2
    assert len(report["useful_work"]["whole_s"]) == len(report["useful_work"]["served_per_s"]) + 1
    (pictures,) = report["pictures"]
    assert [row["callers"] for row in pictures["rows"]] == [1, 4]
    assert {model["model"] for model in report["samples"]} == {"dcgan", "acgan"}
    for model in report["samples"]:
        assert model["mean_batch"] >= 1
        assert [(row["count"], row["callers"]) for row in model["rows"]] == [(1, 1), (1, 4), (16, 1), (16, 4)]
    for row in (*pictures["rows"], *report["samples"][0]["rows"]):
        assert row["of_raw"] == pytest.approx(row["per_s"] / row["raw_per_s"], rel=0.02)
        assert (row["p99_ms"] is None) == (row["calls"] < 100)
    assert 0 <= report["fairness"]["smaller_first_share"] <= 1
    areas = [
        int(width) * int(height)
        for width, height in (entry["size"].split("×") for entry in report["fairness"]["crowd"])
    ]
    assert areas == sorted(areas)
    assert len(areas) == 16


def test_the_stated_figures_are_measured_beside_their_bounds(tiny_bundles: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    result = run(figures.main, "--bundles", tiny_bundles, "--duration-s", 0.1, "--json", target)
    measured = [Figure(**figure) for figure in json.loads(target.read_text())["figures"]]
    assert [figure.unit for figure in measured] == ["", "MiB"]
    assert result.exit_code == int(not all(figure.holds for figure in measured)), result.output
    assert "PSNR was left out; --set5 FOLDER measures it" in result.output


@pytest.mark.parametrize(
    ("value", "least", "holds"), [(2.0, True, True), (0.5, True, False), (0.5, False, True)]
)
def test_a_figure_holds_on_the_right_side_of_its_bound(value: float, least: bool, holds: bool) -> None:
    assert Figure("a", value, bound=1.0, unit="", least=least).holds is holds


def test_codecs_are_measured_beside_the_model(tiny_bundles: Path, tmp_path: Path) -> None:
    result = run(encoding.main, "--bundles", tiny_bundles, "--output", tmp_path, "--rounds", 1)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "encoding.json").read_text())["rows"]
    assert {"png", "jpeg", "webp", "tiff", "png, level 9"} <= {row["name"] for row in rows}
    assert min(row["mpx_per_s"] for row in rows) > 0


def test_a_folder_without_tiled_models_is_refused(tmp_path: Path) -> None:
    for command in (latency.main, figures.main):
        result = run(command, "--bundles", tmp_path)
        assert result.exit_code == 1
        assert "bundle" in result.output
