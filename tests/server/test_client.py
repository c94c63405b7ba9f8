"""The Python client: its calls, its errors, and what it needs to be imported."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from protos import ganforge_pb2 as pb
from runtime import errors
from runtime.errors import GanforgeError
from server.client import STREAM_FROM_BYTES, Client
from server.statuses import CODES
from tests.server.conftest import (
    SCALE,
    FakeUpscaler,
    Served,
    decoded,
    expected,
    held,
    levels_apart,
    picture,
    png,
)

ROOT = Path(__file__).resolve().parents[2]
# What the base installation does not bring, and what must not slow the start of a client.
NOT_IN_BASE = ("numpy", "pyvips", "openvino", "onnxruntime", "structlog", "torch", "onnx", "export")


def test_a_large_image_goes_through_the_stream_and_is_the_same(served: Served) -> None:
    image = png(170, 170)
    assert len(image) > STREAM_FROM_BYTES
    reports: list[tuple[int, int]] = []
    answer = served.client.upscale(image, on_progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (49, 49)  # 7 × 7 windows
    assert answer.image == served.client.upscale(image).image
    assert levels_apart(decoded(answer.image), expected(picture(170, 170))) <= 1
    assert "UpscaleStream" in {line["method"] for line in served.lines[-2:]}


def test_the_client_raises_the_servers_errors(served: Served) -> None:
    with pytest.raises(errors.InvalidInput) as invalid:
        served.client.upscale(b"text")
    assert invalid.value.field == "image"
    with pytest.raises(errors.ModelNotFound, match="'nope'"):
        served.client.generate(1, model="nope")
    with pytest.raises(errors.InvalidInput, match="format"):
        served.client.upscale(png(2, 2), format="bmp")
    with Client("127.0.0.1:1", retry=False) as nobody, pytest.raises(errors.NotReady):
        nobody.models()


def test_every_call_has_the_clients_timeout(upscaler: tuple[Served, FakeUpscaler]) -> None:
    served, engine = upscaler
    with held(engine), Client(served.address, timeout_s=0.3, retry=False) as client:
        for on_progress in (None, lambda done, total: None):
            with pytest.raises(errors.DeadlineExceeded):
                client.upscale(png(4, 4), on_progress=on_progress)
        with pytest.raises(errors.DeadlineExceeded):
            client.upscale(png(4, 4), timeout_s=0.1)


def test_every_error_of_ours_has_a_status() -> None:
    assert set(CODES) == set(GanforgeError.__subclasses__())


def test_a_model_is_chosen_by_its_task_and_name(served: Served) -> None:
    assert served.client.model(pb.TASK_UPSCALE).name == "upscaler"
    assert served.client.model(pb.TASK_GENERATE, "plain").name == "plain"
    with pytest.raises(errors.ModelNotFound, match=r"^the server has no model to translate$"):
        served.client.model(pb.TASK_TRANSLATE)
    with pytest.raises(
        errors.ModelNotFound, match="'plain' can generate, not upscale; the server has upscaler"
    ):
        served.client.model(pb.TASK_UPSCALE, "plain")
    with pytest.raises(errors.ModelNotFound, match="'other' is not served here; the server has upscaler"):
        served.client.model(pb.TASK_UPSCALE, "other")


@pytest.mark.parametrize("large", [False, True])
def test_a_path_is_read_and_an_open_file_is_written(served: Served, tmp_path: Path, large: bool) -> None:
    side = 170 if large else 20
    source = tmp_path / "in.png"
    source.write_bytes(png(side, side))
    assert (source.stat().st_size > STREAM_FROM_BYTES) == large
    whole = served.client.upscale(source.read_bytes())
    assert served.client.upscale(source).image == whole.image
    with (tmp_path / "out.png").open("wb") as file:
        file.write(b"before ")
        answer = served.client.upscale(source, into=file)
    assert answer.image == b""
    assert (answer.width, answer.format) == (side * SCALE, "png")
    assert (tmp_path / "out.png").read_bytes() == b"before " + whole.image
    memory = io.BytesIO()
    served.client.upscale(source.read_bytes(), into=memory)
    assert memory.getvalue() == whole.image


def test_a_path_that_leads_to_no_image_is_an_error_that_says_so(served: Served, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        served.client.upscale(tmp_path / "nowhere.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(errors.InvalidInput, match="0 bytes"):
        served.client.upscale(tmp_path / "empty.png", into=io.BytesIO())


def without(modules: tuple[str, ...], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process where those modules cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); sys.path.insert(0, {str(ROOT)!r})"
    command = [sys.executable, "-P", "-c", f"{block}\n{code}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_the_client_calls_a_server_without_numpy_or_any_engine(served: Served, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png(9, 8))
    code = """
import sys
from pathlib import Path
from server.client import Client
with Client(sys.argv[1]) as client:
    print(client.upscale(Path(sys.argv[2])).width, len(client.generate(2, model="plain").images))
"""
    done = without(NOT_IN_BASE, code, served.address, str(tmp_path / "in.png"))
    assert done.stdout.split() == ["36", "2"], done.stderr


@pytest.mark.parametrize("module", ["server.client.__main__", "server.cli"])
def test_the_clients_commands_run_without_numpy_or_any_engine(
    served: Served, tmp_path: Path, module: str
) -> None:
    code = f"from {module} import main; main()"
    (tmp_path / "in.png").write_bytes(png(9, 8))
    for words in (
        ["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png")],
        ["generate", "--model", "plain", "--count", "4", "--grid", str(tmp_path / "grid.png")],
        ["models"],
        ["health"],
    ):
        done = without(NOT_IN_BASE, code, *words, "--address", served.address)
        assert done.returncode == 0, done.stderr
    assert decoded((tmp_path / "out.png").read_bytes()).shape == (32, 36, 3)
