"""Client runs that fail, are interrupted or killed: no incomplete results, and the next run continues. And the bar."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner

from runtime.errors import Cancelled, GanforgeError, NotReady, PermissionDenied, Unauthenticated
from server.client import ImageResult
from server.client.__main__ import main
from server.client.answer_file import AnswerFile
from server.client.sending import send_all
from server.client.transfers import Transfer
from tests.server.client_runs import contents, done, make_photos, refused, run
from tests.server.conftest import (
    FakeUpscaler,
    Served,
    held,
    png,
    until,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path)


def test_a_bad_picture_is_named_and_the_others_are_made(served: Served, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    (tmp_path / "good.png").write_bytes(png(5, 4))
    result = run(served, "upscale", tmp_path, tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png: image: got 17 bytes that are not an image" in result.output
    assert "1 done, 1 failed" in result.output
    assert list(contents(tmp_path / "out")) == ["good-x4.png"]


def test_a_call_that_fails_leaves_no_file_and_spoils_none(served: Served, tmp_path: Path) -> None:
    damaged = tmp_path / "in.png"
    damaged.write_bytes(png(40, 40)[:-2000])
    target = tmp_path / "out" / "out.png"
    assert run(served, "upscale", damaged, target).exit_code == 1
    assert contents(tmp_path / "out") == {}
    target.write_bytes(b"an older answer")
    assert run(served, "upscale", damaged, target, "--overwrite").exit_code == 1
    assert contents(tmp_path / "out") == {"out.png": b"an older answer"}


def test_an_answer_that_breaks_off_leaves_no_half_of_it(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    with pytest.raises(GanforgeError), AnswerFile(target) as answer:  # noqa: PT012 - the file is looked at in between
        answer.file.write(b"half")
        answer.file.flush()
        assert not target.exists()
        raise GanforgeError("the line went dead")
    assert contents(tmp_path) == {}


def test_a_killed_runs_temporary_file_is_reused_and_two_runs_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    (tmp_path / ".out.png.part").write_bytes(b"left by a killed run, and longer than the answer")
    with AnswerFile(target) as answer:
        with pytest.raises(BlockingIOError, match="another run is writing"):
            AnswerFile(target)
        answer.file.write(b"answer")
        answer.save(target, overwrite=False)
    assert contents(tmp_path) == {"out.png": b"answer"}


def test_a_run_killed_between_naming_its_answer_and_ending_costs_no_file(tmp_path: Path) -> None:
    """The hidden name is then a second name of the answer, which may have been renamed and become a source since."""
    (tmp_path / "kept.png").write_bytes(b"an answer, and now a source")
    (tmp_path / ".out.png.part").hardlink_to(tmp_path / "kept.png")
    target = tmp_path / "out.png"
    with AnswerFile(target) as answer:
        answer.file.write(b"answer")
        answer.save(target, overwrite=False)
    assert contents(tmp_path) == {"kept.png": b"an answer, and now a source", "out.png": b"answer"}


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    with AnswerFile(target) as answer:
        answer.file.write(b"answer")
        target.write_bytes(b"mine")
        with pytest.raises(GanforgeError, match="exists"):
            answer.save(target, overwrite=False)
    assert contents(tmp_path) == {"out.png": b"mine"}


def test_an_unwritable_folder_is_refused_before_anything_is_sent(
    served: Served, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    assert "is a file" in refused(served, "upscale", photos, tmp_path / "file")
    assert "Not a directory" in refused(served, "upscale", photos, tmp_path / "file" / "out")
    message = refused(served, "upscale", photos, "/proc/out")  # nobody may write there, not even root
    assert len(message.splitlines()) == 1
    assert "/proc/out" in message
    assert "named like a picture" in refused(served, "upscale", photos, tmp_path / "out.png")


def client_process(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "server.client", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_after_ctrl_c_skip_existing_continues(
    upscaler: tuple[Served, FakeUpscaler], photos: Path, tmp_path: Path
) -> None:
    served, engine = upscaler
    (photos / "c.png").write_bytes(png(7, 4))
    out = tmp_path / "out"
    command = ("upscale", photos, out, "--jobs", "1", "--address", served.address)
    done(served, "upscale", photos / "a.png", out)
    with held(engine):
        process = client_process(*command, "--skip-existing")
        until(engine.entered.is_set, within_s=100)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Interrupted: 1 of 3 are done; the same command with --skip-existing continues" in stderr
    assert "Traceback" not in stderr
    assert list(contents(out)) == ["a-x4.png"]
    result = done(served, *command[:3], "--skip-existing")
    assert "3 of 3: " in result.output
    assert list(contents(out)) == ["a-x4.png", "b-x4.png", "c-x4.png"]


def test_a_killed_run_leaves_no_half_of_an_answer(
    upscaler: tuple[Served, FakeUpscaler], photos: Path, tmp_path: Path
) -> None:
    served, engine = upscaler
    out = tmp_path / "out"
    with held(engine):
        process = client_process("upscale", photos, out, "--address", served.address)
        until(engine.entered.is_set, within_s=100)
        process.kill()
        process.communicate(timeout=60)
    assert {Path(name).suffix for name in contents(out)} == {".part"}
    done(served, "upscale", photos, out)
    assert list(contents(out)) == ["a-x4.png", "b-x4.png"]


@pytest.mark.parametrize(
    "error",
    [
        NotReady("nobody answers"),
        Unauthenticated("no token"),
        PermissionDenied("not this model"),
        OSError(errno.ENOSPC, "No space left"),
    ],
)
def test_an_error_that_every_picture_would_have_stops_the_batch(tmp_path: Path, error: Exception) -> None:
    transfers = [Transfer(tmp_path / f"{n}.png", tmp_path / f"{n}-x4.png", named=False) for n in range(9)]
    aborted = threading.Event()
    calls: list[bytes | Path] = []

    def call(image: bytes | Path, *, into: BinaryIO, on_progress: object) -> ImageResult:
        calls.append(image)
        if len(calls) == 1:
            raise error
        assert aborted.wait(60)
        raise Cancelled("the call was ended")

    outcome = send_all(transfers, call, abort=aborted.set, overwrite=False, originals=(), total=9)
    assert (outcome.written, outcome.failed, outcome.interrupted) == (0, 1, False)
    assert outcome.stopped is not None
    assert len(calls) <= 2  # the failure, and the one that had begun meanwhile
    assert contents(tmp_path) == {}


def test_a_server_that_cannot_be_reached_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    arguments = ["upscale", *map(str, (photos, tmp_path / "out")), "--address", "127.0.0.1:1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stdout_is_terminal", [False, True])
def test_a_terminal_shows_one_overall_bar(
    served: Served, photos: Path, tmp_path: Path, stdout_is_terminal: bool
) -> None:
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "server.client", "upscale", str(photos), str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--recursive", "--address", served.address],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=terminal if stdout_is_terminal else subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 1 << 16)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(controller)
    piped = b"" if stdout_is_terminal else process.communicate(timeout=60)[0]
    assert process.wait(60) == 0, shown
    assert b"3 of 3" in shown
    assert b"ETA" in shown
    assert "b-x4.png 24×16" in (shown if stdout_is_terminal else piped).decode()
    if not stdout_is_terminal:
        assert len(piped.splitlines()) == 3
