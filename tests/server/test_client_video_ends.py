"""Clips whose upscaling ends early: damaged files, failing frames, Ctrl-C, a killed run. And what is held meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import EngineError, InvalidInput
from server.client.moving import clip_sink
from server.client.moving.clip_sink import SEGMENT_FRAMES
from server.client.moving.window import in_order
from tests.server import clips
from tests.server.client_runs import contents, done, run
from tests.server.clips import FakeEnlarger, write_clip
from tests.server.conftest import Serve, Served, held, until
from tests.server.test_client_interrupted import client_process

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 40


@pytest.fixture
def enlarging(serve: Serve) -> Iterator[tuple[Served, FakeEnlarger]]:
    """A server of the test's own, whose engine the test may hold or break."""
    engine = FakeEnlarger()
    yield serve(engine), engine
    engine.gate.set()


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    return serve(FakeEnlarger())


def parts(folder: Path) -> list[str]:
    """The finished segments of out.mp4."""
    return [Path(name).stem for name in contents(folder) if ".packets." in name]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_a_clip_that_is_cut_off_the_frames_before_are_delivered(
    served: Served, tmp_path: Path, suffix: str
) -> None:
    clip = write_clip(tmp_path / f"clip{suffix}", 80, faststart=True)
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 2 // 3])
    out = tmp_path / f"out{suffix}"
    result = run(served, "upscale", clip, out)
    assert result.exit_code == 1
    made = clips.times(out)
    assert 20 < len(made) < 70
    where = f"frame {len(made) + 1} ({float(made[-1]) + 1 / clips.RATE:.2f} s)"
    assert f"{clip}: it is damaged at {where}: " in result.stderr
    assert f"the {len(made)} frames that could be read are in {out}" in result.stderr
    assert clips.sound_of(out)
    assert set(contents(tmp_path)) == {clip.name, out.name}


def test_a_clip_without_its_index_is_named_and_nothing_is_written(served: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", FRAMES)
    clip.write_bytes(clip.read_bytes()[:-3000])
    reason = "it cannot be read as a clip: Invalid data found when processing input (moov atom not found)"
    for _ in range(2):
        result = run(served, "upscale", clip, tmp_path / "out.mp4")
        assert result.exit_code == 1
        assert reason in result.stderr
    assert list(contents(tmp_path)) == ["clip.mp4"]


def test_after_damage_inside_a_clip_the_rest_is_delivered(served: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", FRAMES, faststart=True, sound=None, width=160, height=120)
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 400] = bytes(400)
    clip.write_bytes(data)
    result = run(served, "upscale", clip, tmp_path / "out.mp4")
    assert result.exit_code == 1, result.output
    assert f"{clip}: it is damaged at frame " in result.stderr
    made = clips.times(tmp_path / "out.mp4")
    assert FRAMES // 2 < len(made) < FRAMES
    assert made[-1] > FRAMES * 0.9 / clips.RATE  # those after the damage keep their times


def test_a_frame_that_fails_is_named_and_the_same_command_goes_on_after_the_others(
    enlarging: tuple[Served, FakeEnlarger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, engine = enlarging
    clip, out = write_clip(tmp_path / "clip.mp4", FRAMES), tmp_path / "out.mp4"
    run_engine = FakeEnlarger.run

    def fails_at_26(self: FakeEnlarger, inputs: object) -> object:
        self.failure = EngineError("out of memory") if self.items_run == 25 else None
        return run_engine(self, inputs)

    monkeypatch.setattr(FakeEnlarger, "run", fails_at_26)
    result = run(served, "upscale", clip, out, "--jobs", "1")
    assert result.exit_code == 1
    kept = tmp_path / ".out.mp4.frames"
    assert f"{clip}: frame 26 (1.00 s): " in result.stderr
    assert (
        f"the 25 frames before it are kept in {kept}, and the same command goes on after them"
        in result.stderr
    )
    assert parts(tmp_path) == ["00000001-00000025-128x96.packets"]
    monkeypatch.undo()
    engine.failure = None
    result = done(served, "upscale", clip, out)
    assert "25 frames are done already; going on after them" in result.stderr
    assert engine.items_run == FRAMES
    assert clips.times(out) == clips.times(clip)
    assert clips.sound_of(out) == clips.sound_of(clip)
    assert set(contents(tmp_path)) == {"clip.mp4", "out.mp4"}


def test_damaged_segments_are_made_again(
    enlarging: tuple[Served, FakeEnlarger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure may leave a file that is empty, cut short or garbage: the answer must not lack its frames."""
    served, engine = enlarging
    monkeypatch.setattr(clip_sink, "SEGMENT_FRAMES", 8)
    clip, out = write_clip(tmp_path / "clip.mp4", FRAMES), tmp_path / "out.mp4"
    whole = tmp_path / "whole.mp4"
    done(served, "upscale", clip, whole)
    run_engine, damages = (
        FakeEnlarger.run,
        [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[::-1]],
    )

    def fails_at_20(self: FakeEnlarger, inputs: object) -> object:
        self.failure = EngineError("out of memory") if self.items_run >= before + 20 else None
        return run_engine(self, inputs)

    for damage in damages:
        before = engine.items_run
        monkeypatch.setattr(FakeEnlarger, "run", fails_at_20)
        assert run(served, "upscale", clip, out, "--jobs", "1").exit_code == 1
        monkeypatch.setattr(FakeEnlarger, "run", run_engine)
        engine.failure = None
        second = next((tmp_path / ".out.mp4.frames").glob("00000009-*"))
        second.write_bytes(damage(second.read_bytes()))
        result = done(served, "upscale", clip, out)
        assert "8 frames are done already; going on after them" in result.stderr
        assert clips.times(out) == clips.times(whole) == clips.times(clip)
        out.unlink()


def test_a_folder_of_others_in_the_place_of_the_parts_is_left_alone(served: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3)
    mine = tmp_path / ".out.mp4.frames" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("my own")
    result = run(served, "upscale", clip, tmp_path / "out.mp4")
    assert result.exit_code == 1
    assert "is not what an interrupted run left" in result.stderr
    assert mine.read_text() == "my own"
    mine.unlink()
    (mine.parent / "made-of.json").write_bytes(b"\x97 no UTF-8")
    done(served, "upscale", clip, tmp_path / "out.mp4")
    assert set(contents(tmp_path)) == {"clip.mp4", "out.mp4"}


def test_a_refused_first_frame_leaves_nothing(enlarging: tuple[Served, FakeEnlarger], tmp_path: Path) -> None:
    served, engine = enlarging
    clip = write_clip(tmp_path / "clip.mp4", 3)
    engine.failure = EngineError("broken")
    result = run(served, "upscale", clip, tmp_path / "out.mp4")
    assert result.exit_code == 1
    assert "frame 1 (0.00 s): " in result.stderr
    assert list(contents(tmp_path)) == ["clip.mp4"]


def interrupted_at(
    served: Served, engine: FakeEnlarger, count: int, *arguments: str | Path, kill: bool = False
) -> tuple[int, str]:
    """Run a command in a process until the engine has begun with so many frames, and end it. Its exit code and stderr."""
    run_engine = engine.run

    def run_some(inputs: object) -> object:
        if engine.items_run >= count:
            engine.gate.clear()
        return run_engine(inputs)

    with held(engine):
        engine.gate.set()
        engine.run = run_some  # type: ignore[method-assign,assignment]
        process = client_process("upscale", *arguments, "--jobs", "2", "--address", served.address)
        until(lambda: not engine.gate.is_set() or process.poll() is not None, within_s=100)
        process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        engine.run = run_engine  # type: ignore[method-assign]
    return process.returncode, stderr


def assert_ran(engine: FakeEnlarger, before: int, frames: int) -> None:
    """So many frames ran since, beside the two at most that the interrupted run had sent."""
    assert frames <= engine.items_run - before <= frames + 2


def test_ctrl_c_and_again(enlarging: tuple[Served, FakeEnlarger], tmp_path: Path) -> None:
    served, engine = enlarging
    clip, out = write_clip(tmp_path / "clip.mp4", FRAMES), tmp_path / "out.mp4"
    code, stderr = interrupted_at(served, engine, 20, clip, out)
    assert code == 130, stderr
    assert "Traceback" not in stderr
    assert f"frames before it are kept in {tmp_path}/.out.mp4.frames" in stderr
    assert "Interrupted: 0 of 1 are done" in stderr
    (segment,) = parts(tmp_path)
    kept = int(segment[9:17])
    assert 10 <= kept <= 22
    assert not out.exists()
    before = engine.items_run
    result = done(served, "upscale", clip, out, "--skip-existing")
    assert f"{kept} frames are done already; going on after them" in result.stderr
    assert_ran(engine, before, FRAMES - kept)
    assert clips.times(out) == clips.times(clip)
    assert clips.sound_of(out) == clips.sound_of(clip)
    assert set(contents(tmp_path)) == {"clip.mp4", "out.mp4"}


def test_a_killed_run_loses_no_finished_segment(
    enlarging: tuple[Served, FakeEnlarger], tmp_path: Path
) -> None:
    served, engine = enlarging
    clip = write_clip(tmp_path / "clip.mp4", SEGMENT_FRAMES + 30, width=16, height=16)
    out = tmp_path / "out.mp4"
    code, _ = interrupted_at(served, engine, SEGMENT_FRAMES + 10, clip, out, kill=True)
    assert code == -signal.SIGKILL
    assert parts(tmp_path) == [f"00000001-{SEGMENT_FRAMES:08}-32x32.packets"]
    before = engine.items_run
    done(served, "upscale", clip, out)
    assert_ran(engine, before, 30)
    assert clips.times(out) == clips.times(clip)
    assert set(contents(tmp_path)) == {"clip.mp4", "out.mp4"}


def test_frames_made_with_other_options_are_not_used(
    enlarging: tuple[Served, FakeEnlarger], tmp_path: Path
) -> None:
    served, engine = enlarging
    clip, out = write_clip(tmp_path / "clip.mp4", FRAMES, sound=None), tmp_path / "out.mp4"
    interrupted_at(served, engine, 20, clip, out)
    assert parts(tmp_path)
    before = engine.items_run
    done(served, "upscale", clip, out, "--outscale", "1")
    assert_ran(engine, before, FRAMES)
    assert {frame.width for _, frame in clips.shown(out)} == {64}


def test_no_more_items_are_taken_than_the_window_holds() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            taken.append(number)
            yield number

    given = 0
    for result in in_order(items(), lambda item: -item, size=5, abort=lambda: None):
        assert result == -given
        given += 1
        assert len(taken) <= given + 4
    assert given == 30


def test_the_first_error_in_the_order_of_the_items_ends_the_window() -> None:
    def work(item: int) -> int:
        if item >= 7:
            raise InvalidInput("item", str(item))
        return item

    results: list[int] = []
    with pytest.raises(InvalidInput, match="item: 7"):
        results.extend(in_order(range(30), work, size=4, abort=lambda: None))
    assert results == list(range(7))


PROGRAM = """
import sys
from pathlib import Path
from server.client.__main__ import main
try:
    main(sys.argv[1:], standalone_mode=False)
finally:  # getrusage would count this test's own process, from which it was forked
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(line.split()[1]) * 1024, file=sys.stderr)
"""


def largest_bytes(served: Served, *arguments: str | Path) -> int:
    """The most memory that the command held."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--address", served.address]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stderr.split()[-1])


@pytest.mark.slow
def test_a_long_clip_takes_no_more_memory_than_a_short_one(served: Served, tmp_path: Path) -> None:
    frames, few = 480, 160  # with both, the encoder is opened anew at least once
    long = write_clip(tmp_path / "long.mp4", frames, width=320, height=180)
    short = write_clip(tmp_path / "short.mp4", few, width=320, height=180)
    out = tmp_path / "long-x2.mp4"
    least = largest_bytes(served, "upscale", short, tmp_path / "short-x2.mp4")
    most = largest_bytes(served, "upscale", long, out)
    window_bytes = 4 * 640 * 360 * (3 + 3 + 1.5)  # frames as they come, as RGB and as the encoder takes them
    # Both have the same window and the same encoder. The rest is what the allocator keeps from one encoder to the next.
    assert most - least < window_bytes + 16e6 < (frames - few) * 640 * 360 * 3 / 8
    assert clips.times(out) == clips.times(long)
    assert len(clips.times(out)) == frames
    assert clips.sound_of(out) == clips.sound_of(long)
    assert clips.duration_s(out) == clips.duration_s(long)
