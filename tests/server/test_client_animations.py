"""Animated GIF, WebP and PNG through the client's commands: every frame, as it is shown, as long as it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from runtime.tensors import Array
from server.client.moving.kinds import Kind, kind_of
from tests.server import clips
from tests.server.client_runs import contents, done, run
from tests.server.clips import FakeEnlarger, animation, write_clip
from tests.server.conftest import Serve, Served

DURATIONS_MS = [100, 40, 250, 70, 1000]
COLOURS = ["red", "lime", "blue", "white", "black"]


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    return serve(FakeEnlarger())


def pictures(mode: str = "RGB") -> list[Image.Image]:
    """Frames of 30×20: a band of its colour on grey, at another place each time. RGBA: with a hole, and on nothing."""
    frames = []
    for number, colour in enumerate(COLOURS):
        frame = Image.new(mode, (30, 20), (0, 0, 0, 0) if mode == "RGBA" else (128, 128, 128))
        frame.paste(Image.new(mode, (6, 20), colour), (6 * number, 0))
        if mode == "RGBA":
            frame.paste((0, 0, 0, 0), (6 * number + 2, 8, 6 * number + 4, 12))
        frames.append(frame)
    return frames


def frames_of(path: Path) -> Iterator[tuple[float, Array]]:
    """The duration in ms and the pixels, RGBA, of each frame as it is shown."""
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            rgba = np.asarray(frame.convert("RGBA")).astype(int)
            yield frame.info["duration"], rgba


def enlarged(picture: Image.Image) -> Array:
    return np.asarray(picture.convert("RGBA")).repeat(2, 0).repeat(2, 1).astype(int)


def loop_of(path: Path) -> int | None:
    with Image.open(path) as image:
        return image.info.get("loop")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    ("before", "after", "repeats"),
    [
        ("gif", "gif", None),
        ("gif", "gif", 3),
        ("gif", "webp", None),
        ("gif", "webp", 0),
        ("gif", "png", 3),
        ("webp", "webp", 0),
        ("webp", "webp", 3),
        ("webp", "gif", 1),
        ("webp", "png", None),
        ("png", "png", 0),
        ("png", "gif", 3),
        ("png", "webp", 1),
    ],
)
def test_every_frame_stays_with_its_duration_and_the_number_of_loops(
    served: Served, tmp_path: Path, before: str, after: str, repeats: int | None, mode: str
) -> None:
    options = {} if repeats is None else {"loop": repeats}
    if before == "gif" and mode == "RGBA":
        options["disposal"] = 2
    source, target = tmp_path / f"in.{before}", tmp_path / f"out.{after}"
    source.write_bytes(
        animation(before.upper(), pictures(mode), duration=DURATIONS_MS, lossless=True, **options)
    )
    once = repeats is None and before == "gif"
    done(served, "upscale", source, target, "--lossless")
    made = list(frames_of(target))
    assert [duration for duration, _ in made] == DURATIONS_MS
    for (_, pixels), picture in zip(made, pictures(mode), strict=True):
        wanted = enlarged(picture)
        np.testing.assert_array_equal(pixels[..., 3], wanted[..., 3])
        assert np.abs((pixels - wanted)[wanted[..., 3] > 0]).max() <= 2
    # 0 is for ever. A GIF that is shown once has no number at all; WebP and PNG always have one.
    loops = 1 if once else repeats or 0
    assert loop_of(target) == (None if after == "gif" and loops == 1 else loops)
    assert set(contents(tmp_path)) == {source.name, target.name}


def test_frames_that_hold_changes_only_are_sent_whole(served: Served, tmp_path: Path) -> None:
    whole = pictures()
    patch = whole[1].crop((0, 0, 12, 20))
    source = tmp_path / "in.gif"
    source.write_bytes(animation("GIF", [whole[0], whole[1]], duration=50, optimize=True))
    assert len(source.read_bytes()) < 2 * len(animation("GIF", [whole[0]])) + patch.width * patch.height
    done(served, "upscale", source, tmp_path / "out.webp", "--lossless")
    for (_, pixels), picture in zip(frames_of(tmp_path / "out.webp"), whole, strict=False):
        assert np.abs(pixels - enlarged(picture)).max() <= 1


def test_a_gif_gets_the_colours_that_suit_each_frame(served: Served, tmp_path: Path) -> None:
    """Far more colours than 256, other ones in each frame."""
    ramp = np.arange(64, dtype=np.uint8)
    red = np.stack([*np.broadcast_arrays(ramp[:, None] + 190, ramp[None] + 64, np.uint8(0))], -1)
    frames = [Image.fromarray(red), Image.fromarray(red[..., ::-1].copy())]
    source = tmp_path / "in.webp"
    source.write_bytes(animation("WEBP", frames, duration=50, lossless=True))
    done(served, "upscale", source, tmp_path / "out.gif")
    for (_, pixels), picture in zip(frames_of(tmp_path / "out.gif"), frames, strict=True):
        assert np.abs(pixels - enlarged(picture)).mean() < 3
        assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 128


def test_an_animation_becomes_a_clip_and_a_clip_an_animation(served: Served, tmp_path: Path) -> None:
    source = tmp_path / "in.gif"
    source.write_bytes(animation("GIF", pictures(), duration=DURATIONS_MS))
    done(served, "upscale", source, tmp_path / "out.mp4")
    ends_ms = np.cumsum([0, *DURATIONS_MS])
    assert clips.times(tmp_path / "out.mp4") == [Fraction(int(end), 1000) for end in ends_ms[:-1]]
    *_, (_, last) = clips.shown(tmp_path / "out.mp4")
    assert last.duration * last.time_base == Fraction(DURATIONS_MS[-1], 1000)
    (_, first), *_ = clips.shown(tmp_path / "out.mp4")
    shown = first.to_ndarray(format="rgb24", src_colorspace="itu709").astype(int)
    assert np.abs(shown[20, 6] - (255, 0, 0)).max() <= 6

    clip = write_clip(tmp_path / "clip.mp4", 7)
    result = done(served, "upscale", clip, tmp_path / "clip.gif")
    assert "its sound, if it has any, is not kept in .gif" in result.stderr
    made = list(frames_of(tmp_path / "clip.gif"))
    assert [duration for duration, _ in made] == [
        40 * 7
    ]  # its frames are equal, and GIF then shows one for longer
    assert loop_of(tmp_path / "clip.gif") == 0
    done(served, "upscale", write_clip(tmp_path / "clip.mp4", 20), tmp_path / "clip.webp")
    assert sum(duration for duration, _ in frames_of(tmp_path / "clip.webp")) == 40 * 20


def test_in_a_folder_an_animation_stays_one_and_a_gif_of_one_frame_is_a_picture(
    served: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "moving.gif").write_bytes(animation("GIF", pictures(), duration=50))
    (folder / "moving.webp").write_bytes(animation("WEBP", pictures(), duration=50))
    (folder / "still.gif").write_bytes(animation("GIF", pictures()[:1]))
    assert kind_of(folder / "still.gif") is Kind.PICTURE
    done(served, "upscale", folder, tmp_path / "own")
    assert set(contents(tmp_path / "own")) == {"moving-x2.gif", "moving-x2.webp", "still-x2.png"}
    done(served, "upscale", folder, tmp_path / "webp", "--format", "webp")
    assert set(contents(tmp_path / "webp")) == {"moving-gif-x2.webp", "moving-webp-x2.webp", "still-x2.webp"}
    done(served, "upscale", folder, tmp_path / "jpeg", "--format", "jpeg")  # no animation can be a JPEG
    assert set(contents(tmp_path / "jpeg")) == {"moving-x2.gif", "moving-x2.webp", "still-x2.jpg"}
    said = run(served, "upscale", folder / "moving.gif", tmp_path / "one.jpg")
    assert said.exit_code == 2
    assert "moving.gif has several frames" in said.output


def test_of_a_damaged_animation_the_frames_before_are_delivered(served: Served, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
    whole = animation("GIF", [Image.fromarray(frame) for frame in noise], duration=50)
    (tmp_path / "in.gif").write_bytes(whole[: len(whole) * 3 // 4])
    result = run(served, "upscale", tmp_path / "in.gif", tmp_path / "out.gif")
    assert result.exit_code == 1
    made = list(frames_of(tmp_path / "out.gif"))
    assert 3 <= len(made) < 6
    assert f"in.gif: it is damaged at frame {len(made) + 1} ({len(made) * 0.05:.2f} s): " in result.stderr


def test_any_client_gets_the_first_frame_of_an_animation(served: Served) -> None:
    answer = served.client.upscale(animation("GIF", pictures(), duration=50))
    assert answer.format == "png"
    assert (answer.width, answer.height) == (60, 40)
