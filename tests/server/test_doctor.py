"""`ganforge doctor`: what it finds on a good machine, and which troubles it reports with exit code 1."""

from __future__ import annotations

import json
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from runtime import backends
from runtime.signing import keygen
from server.doctor import command, limits, machine, models, self_test
from server.doctor.finding import GIB, Finding
from server.limits import Limits
from server.machine import resources
from tests.server.bundles import write_generator, write_upscaler
from tests.server.test_cli import NUMPY_AND_ENGINES, ganforge

LARGE = limits.Machine(memory_bytes=64 * GIB, temporary_bytes=64 * GIB, files=65536)


def doctor(*flags: str, code: int) -> list[dict[str, Any]]:
    done = CliRunner().invoke(command.main, ["--json", *flags])
    assert done.exit_code == code, done.output
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return findings


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    write_upscaler(tmp_path)
    write_generator(tmp_path)
    return tmp_path


def test_a_machine_that_can_serve(bundles: Path) -> None:
    findings = doctor("--bundles", str(bundles), "--backend", "onnxruntime", code=0)
    by_name = {(finding["section"], finding["name"]): finding for finding in findings}
    assert {section for section, _ in by_name} == {
        "machine", "software", "backends", "security", "bundles", "limits",
    }  # fmt: skip
    assert by_name["security", "connections"]["text"] == "127.0.0.1: not encrypted"
    assert "not signed" in by_name["bundles", "upscaler"]["text"]
    assert "upscaler runs on onnxruntime (CPU) in float32" in by_name["bundles", "upscaler"]["text"]
    assert "the self-test differs by" in by_name["backends", "onnxruntime"]["text"]
    assert "error" not in {finding["status"] for finding in findings}


def test_people_get_a_table_and_a_verdict() -> None:
    done = CliRunner().invoke(command.main, [])
    assert done.exit_code == 0, done.output
    assert "A server would work here. Errors: 0" in done.stdout
    assert "no folder was named; --bundles DIR checks one" in done.stdout


def test_an_altered_bundle_is_an_error(bundles: Path) -> None:
    graph = bundles / "upscaler" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    found = doctor("--bundles", str(bundles), code=1)
    errors = {finding["name"]: finding["text"] for finding in found if finding["status"] == "error"}
    assert list(errors) == ["upscaler"]
    assert "model.onnx was altered" in errors["upscaler"]


@pytest.mark.parametrize(
    ("flags", "text"), [(("--bundles", "nowhere"), "No such file"), (("--bundles", "."), "no bundle")]
)
def test_a_folder_without_bundles_is_an_error(
    flags: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert text in next(finding for finding in doctor(*flags, code=1) if finding["status"] == "error")["text"]


def test_what_would_keep_the_server_from_starting_safely_is_an_error(bundles: Path, tmp_path: Path) -> None:
    key = keygen(tmp_path / "key")
    flags = ["--bundles", str(bundles), "--host", "0.0.0.0", "--tokens", "nowhere", "--trust", str(key)]
    found = doctor(*flags, "--backend", "onnxruntime", code=1)
    errors = {finding["name"]: finding["text"] for finding in found if finding["status"] == "error"}
    assert set(errors) == {"connections", "callers", "upscaler", "generator"}
    assert "--insecure" in errors["connections"]
    assert "nowhere" in errors["callers"]


def test_a_wrong_flag_is_refused_as_serve_does() -> None:
    done = CliRunner().invoke(command.main, ["--max-pixels", "many"])
    assert done.exit_code == 2
    assert "Invalid value for '--max-pixels'" in done.stderr


def test_without_the_serve_extra_it_says_what_is_missing(tmp_path: Path) -> None:
    done = ganforge("doctor", without=NUMPY_AND_ENGINES, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "pip install 'ganforge[serve]'" in done.stdout
    assert "A server cannot work here." in done.stdout


def test_a_backend_that_computes_something_else_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "expected", lambda: np.zeros((1, 3, 32, 32), np.float32))
    findings = list(models.check_backends())
    assert {finding.status for finding in findings if finding.name == "onnxruntime"} == {"error"}
    assert findings[-1].text.startswith("no backend runs the self-test here")


def test_no_backend_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in backends.NAMES:
        monkeypatch.setattr(backends.load(name), "unavailable", lambda bundle, device: "it was taken out")
    *each, last = models.check_backends()
    assert {finding.text for finding in each} == {"no: it was taken out"}
    assert last.status == "error"


def problems(limits_: Limits, machine_: limits.Machine = LARGE) -> list[tuple[str, str]]:
    return [(finding.name, finding.status) for finding in limits.check(limits_, machine_)]


def test_default_limits_fit_a_usual_machine() -> None:
    assert problems(Limits()) == [("all", "ok")]


def test_limits_that_do_not_fit_are_found() -> None:
    default = Limits()
    assert problems(default, replace(LARGE, memory_bytes=GIB // 4)) == [("max_active_bytes", "error")]
    assert problems(default, replace(LARGE, memory_bytes=GIB)) == [("max_active_bytes", "warning")]
    assert problems(default, replace(LARGE, files=256)) == [("max_calls", "warning")]
    assert problems(default, replace(LARGE, temporary_bytes=1)) == [("max_disk_bytes", "warning")]
    assert problems(replace(default, max_uploads_bytes=1)) == [("max_upload_bytes", "error")]
    assert problems(replace(default, max_message_bytes=2**29)) == [("max_upload_bytes", "warning")]
    assert ("max_message_bytes", "warning") in problems(replace(default, max_message_bytes=2**31))


def test_the_cgroups_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    assert resources.memory_bytes() == GIB
    assert resources.usable_cpus() == 0.5
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.memory_bytes() > GIB


def test_few_open_files_and_no_temporary_folder_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> Finding:
        return next(finding for finding in machine.check() if finding.name == name)

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 2**20))
    assert found("open files").status == "warning"
    assert "LimitNOFILE" in found("open files").text
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    assert found("temporary files").status == "error"


def test_the_self_tests_graph_is_what_its_docstring_says() -> None:
    weights = np.zeros((3, 3, 3, 3), np.float32)
    weights[range(3), range(3)] = 1 / 9
    scales = np.array([1, 1, self_test.SCALE, self_test.SCALE], np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["mean"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["mean", "", "scales"], ["upscaled"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny_upscaler",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("upscaled", TensorProto.FLOAT, ["N", 3, "SH", "SW"])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(scales, "scales")],
    )
    assert onnx.load(self_test.GRAPH_FILE).graph == graph
