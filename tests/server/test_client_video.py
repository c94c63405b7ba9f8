"""Clips through the client's commands: what is kept of a clip, and what is refused before anything is sent."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from server.client import batch_bar
from tests.server import clips
from tests.server.client_runs import contents, done, make_photos, run
from tests.server.clips import FakeEnlarger, write_clip
from tests.server.conftest import FakeTranslator, Serve, Served, png
from tests.server.test_client import NOT_IN_BASE, without

FRAMES = 12


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    return serve(FakeEnlarger(), FakeTranslator())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", FRAMES)


def refused(served: Served, *arguments: str | Path) -> str:
    """What a command says that must send nothing and write nothing."""
    calls = served.engine("enlarger").items_run
    folder = Path(arguments[1]).parent
    before = contents(folder)
    result = run(served, *arguments)
    assert result.exit_code in (1, 2), result.output
    assert served.engine("enlarger").items_run == calls
    assert contents(folder) == before
    return result.output


def test_a_clip_keeps_its_frames_their_times_and_its_sound(
    served: Served, clip: Path, tmp_path: Path
) -> None:
    before = clip.read_bytes()
    out = tmp_path / "out.mp4"
    result = done(served, "upscale", clip, out)
    assert f"{clip} → {out} 128×96, {FRAMES} frames in" in result.stdout
    frames = list(clips.shown(out))
    assert [(frame.width, frame.height) for _, frame in frames] == [(128, 96)] * FRAMES
    assert frames[0][1].format.name == "yuv420p"
    assert clips.times(out) == clips.times(clip)
    assert clips.sound_of(out) == clips.sound_of(clip)
    assert clips.duration_s(out) == clips.duration_s(clip)
    assert contents(tmp_path) == {"clip.mp4": before, "out.mp4": out.read_bytes()}


def test_frames_that_are_unevenly_spaced_keep_their_times(served: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 140, gaps=(1, 5, 2), sound=None, width=16, height=16)
    for name, unit_s in (("out.mp4", 0), ("out.mkv", 1e-3)):  # Matroska counts in ms
        out = tmp_path / name
        done(served, "upscale", clip, out, "--jobs", "8")
        assert clips.times(out) == pytest.approx(clips.times(clip), abs=unit_s / 2)
        assert clips.duration_s(out) == pytest.approx(clips.duration_s(clip), abs=unit_s)


def test_a_clip_in_a_folder_is_named_as_pictures_are(served: Served, tmp_path: Path) -> None:
    folder = make_photos(tmp_path)
    write_clip(folder / "clip.mp4", 3, sound=None)
    write_clip(folder / "old.avi", 3, sound=None)
    result = done(served, "upscale", folder, folder)
    assert set(contents(folder)) - {"clip.mp4", "old.avi", "a.png", "b.png", "sub/c.png"} == {
        *("a-x2.png", "b-x2.png", "clip-x2.mp4", "old-x2.mkv")
    }
    assert "4 of 4" in result.stdout
    assert "4 already there" in done(served, "upscale", folder, folder, "--skip-existing").stderr


def test_clips_are_translated(served: Served, clip: Path, tmp_path: Path) -> None:
    done(served, "translate", clip, tmp_path / "out.mkv")
    frames = list(clips.shown(tmp_path / "out.mkv"))
    assert [(frame.width, frame.height) for _, frame in frames] == [(64, 48)] * FRAMES


@pytest.mark.parametrize(
    ("look", "matrix"),
    [
        ({}, 6),  # nothing is stated, and of this size that means BT.601
        ({"colorspace": 6, "color_range": 1, "color_primaries": 6, "color_trc": 6}, 6),
        ({"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}, 1),
        ({"colorspace": 1, "color_range": 2}, 1),
    ],
)
def test_colours_stay_as_they_are(served: Served, tmp_path: Path, look: dict[str, int], matrix: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 10, width=96, height=72, sound=None, look=look)
    out = tmp_path / "out.mp4"
    done(served, "upscale", clip, out, "--crf", "1")
    for (_, before), (_, after) in zip(clips.shown(clip), clips.shown(out), strict=True):
        assert np.abs(clips.colours(before, matrix) - clips.colours(after)).max() <= 2
        # What was not stated is stated now, since an answer of another size could be taken for something else.
        assert int(after.colorspace) == matrix
        for name in ("color_range", "color_primaries", "color_trc"):
            if name in look:
                assert int(getattr(after, name)) == look[name]


def test_more_than_eight_bits_stay(served: Served, tmp_path: Path) -> None:
    look = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    clip = write_clip(
        tmp_path / "clip.mp4",
        6,
        width=96,
        height=72,
        sound=None,
        codec="libx265",
        pixel_format="yuv420p10le",
        look=look,
    )
    out = tmp_path / "out.mp4"
    done(served, "upscale", clip, out, "--crf", "1")
    with av.open(str(out)) as made:
        stream = made.streams.video[0]
        assert (stream.codec_context.name, stream.codec_tag) == ("hevc", "hvc1")
    for (_, before), (_, after) in zip(clips.shown(clip), clips.shown(out), strict=True):
        assert after.format.name == "yuv420p10le"
        assert np.abs(clips.colours(before) - clips.colours(after)).max() <= 2
        assert (int(after.color_primaries), int(after.color_trc)) == (9, 16)
    result = done(served, "upscale", clip, tmp_path / "out.webm", "--codec", "vp9")
    assert "its colours are reduced to 8 bits, because vp9 has no more here" in result.stderr


def test_a_clip_that_lies_on_its_side_is_turned_upright(served: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 4, rotation=-90, aspect=Fraction(4, 3), sound=None)
    done(served, "upscale", clip, tmp_path / "out.mp4", "--crf", "1")
    (_, before), *_ = clips.shown(clip)
    (_, after), *_ = clips.shown(tmp_path / "out.mp4")
    assert before.rotation == -90
    assert (after.rotation, after.width, after.height) == (0, 96, 128)
    upright = np.rot90(clips.patches(64, 48, 0), -1)
    shown = after.to_ndarray(format="rgb24", src_colorspace="smpte170m")
    for row, column in ((0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.9, 0.9)):
        wanted = upright[int(64 * row), int(48 * column)].astype(int)
        assert np.abs(shown[int(128 * row), int(96 * column)] - wanted).max() <= 4
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


def test_odd_sides_get_one_line_more(served: Served, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3, width=50, height=34, sound=None)
    done(served, "upscale", clip, tmp_path / "out.mp4", "--outscale", "1.5", "--crf", "0")
    for _, frame in clips.shown(tmp_path / "out.mp4"):
        assert (frame.width, frame.height) == (76, 52)  # of 75 × 51
        luma = frame.to_ndarray(format="gray")
        np.testing.assert_array_equal(luma[:, 75], luma[:, 74])
        np.testing.assert_array_equal(luma[51], luma[50])


@pytest.mark.parametrize(("codec", "name"), [("h265", "hevc"), ("vp9", "vp9"), ("av1", "av1")])
def test_a_codec_can_be_chosen(served: Served, tmp_path: Path, codec: str, name: str) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 3, sound=None)
    done(served, "upscale", clip, tmp_path / "out.mp4", "--codec", codec, "--crf", "40")
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.video[0].codec.canonical_name == name
    assert len(clips.times(tmp_path / "out.mp4")) == 3


def test_what_a_container_cannot_hold_is_refused_before_anything_is_sent(
    served: Served, clip: Path, tmp_path: Path
) -> None:
    assert "cannot hold its audio stream 1 (aac); name a file that ends with .mkv" in refused(
        served, "upscale", clip, tmp_path / "out.webm"
    )
    assert "codec: got h264, and .webm holds one of vp9, av1" in refused(
        served, "upscale", clip, tmp_path / "out.webm", "--codec", "h264"
    )
    assert "crf: got 60, expected 0 to 51 for h264" in refused(
        served, "upscale", clip, tmp_path / "out.mp4", "--crf", "60"
    )
    for out in (tmp_path / "out.jpg", "-"):
        said = refused(served, "upscale", clip, out, "--format", "jpeg")
        assert "clip.mp4 has several frames" in said
    said = refused(served, "upscale", clip, tmp_path / "out.mp4", "--format", "png")
    assert "OUT ends with .mp4, which is not --format png" in said


def test_sources_and_existing_files_are_never_written_over(
    served: Served, clip: Path, tmp_path: Path
) -> None:
    assert "is itself a source" in refused(served, "upscale", clip, clip, "--overwrite")
    (tmp_path / "out.mp4").write_bytes(b"an older answer")
    assert "--overwrite replaces" in refused(served, "upscale", clip, tmp_path / "out.mp4")
    done(served, "upscale", clip, tmp_path / "out.mp4", "--overwrite")
    assert len(clips.times(tmp_path / "out.mp4")) == FRAMES


def test_a_file_that_is_no_clip_is_named_with_the_reason(served: Served, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip at all")
    (tmp_path / "empty.mkv").touch()
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n" + str(clip))
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=clips.SOUND_HZ, layout="mono")
        out.mux(stream.encode(clips.tone(0)))
        out.mux(stream.encode(None))
    for name, reason in {
        "text.mp4": "it cannot be read as a clip: Invalid data",
        "empty.mkv": "it cannot be read as a clip: ",
        "list.mp4": "it cannot be read as a clip: ",  # a playlist could name any file
        "sound.mp4": "it has no video stream",
    }.items():
        said = refused(served, "upscale", tmp_path / name, tmp_path / "out.mp4")
        assert f"{tmp_path / name}: IN: {reason}" in said


def test_without_the_extra_a_clip_is_refused_and_pictures_are_made(served: Served, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    (tmp_path / "photo.png").write_bytes(png(8, 6))
    code = "from server.client.__main__ import main; main()"
    words = ["upscale", str(tmp_path), str(tmp_path / "out"), "--address", served.address]
    ended = without((*NOT_IN_BASE, "av"), code, *words)
    assert ended.returncode == 1
    assert "clip.mp4: IN: clips need the extra 'video'" in ended.stderr
    assert "pip install 'ganforge[video]'" in ended.stderr
    assert list(contents(tmp_path / "out")) == ["photo-x2.png"]


def test_progress_is_lines_without_a_terminal(
    served: Served, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_bar, "LINE_EVERY_S", 0)
    said = done(served, "upscale", clip, tmp_path / "out.mp4").stderr.splitlines()
    assert len(said) == FRAMES
    assert said[5].startswith(f"clip.mp4: 6 of {FRAMES} frames, ")
    assert " a second, ETA 0:00:0" in said[5]
