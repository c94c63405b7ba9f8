"""Clips and animations made by tests, ways to look into them, and an engine that gives every pixel back four times."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
from PIL import Image

from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec
from tests.server.conftest import FakeEngine

RATE = 25
TICK = Fraction(1, 12800)
FRAME_TICKS = 12800 // RATE
SOUND_HZ = 8000


class FakeEnlarger(FakeEngine):
    """Each pixel twice along a side, so that the answer's colours are the frame's own."""

    def __init__(self, name: str = "enlarger") -> None:
        image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
        enlarged = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))
        super().__init__(Manifest(name, "upscale", "float32", (image,), (enlarged,), 2, 1, (192,), 1))

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"upscaled": inputs["image"].repeat(2, axis=2).repeat(2, axis=3)}


def patches(width: int, height: int, number: int) -> Array:
    """[H, W, 3] uint8: 4 × 3 patches of one colour each, which change with the frame's number."""
    colours = np.random.default_rng(number // 8).integers(0, 256, (3, 4, 3), np.uint8)
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
    return colours[rows][:, columns]


def write_clip(
    path: Path,
    frames: int = 20,
    *,
    width: int = 64,
    height: int = 48,
    sound: str | None = "aac",
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gaps: Sequence[int] = (1,),
    faststart: bool = False,
    rotation: int = 0,
    aspect: Fraction = Fraction(1),
    look: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """Write a clip of patches. gaps: between frames, in frames of 1/25 s, repeated. look: colorspace and so on.

    faststart: the index comes first, so that a clip that is cut off can be read up to there. sound: its codec, if any.
    """
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as out:
        video: Any = out.add_stream(
            codec, rate=RATE, options={"crf": "1", "preset": "veryfast", "x265-params": "log-level=0"}
        )
        context = video.codec_context
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        context.time_base = TICK
        context.sample_aspect_ratio = aspect
        for name, value in look.items():
            setattr(context, name, value)
        if rotation:
            video.set_display_rotation(rotation)
        audio: Any = out.add_stream(sound, rate=SOUND_HZ, layout="mono") if sound else None
        at_ticks, samples = 0, 0
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(patches(width, height, number), format="rgb24")
            frame = frame.reformat(
                format=pixel_format,
                dst_colorspace={1: "itu709", 9: "bt2020"}.get(look.get("colorspace", 6), "smpte170m"),
                dst_color_range=look.get("color_range", 1),
                interpolation="BICUBIC",
            )
            frame.pts, frame.time_base = at_ticks, TICK
            out.mux(video.encode(frame))
            at_ticks += gaps[number % len(gaps)] * FRAME_TICKS
            while audio is not None and samples * 12800 < at_ticks * SOUND_HZ:
                out.mux(audio.encode(tone(samples)))
                samples += 1024
        out.mux(video.encode(None))
        if audio is not None:
            out.mux(audio.encode(None))
    return path


def tone(start: int) -> av.AudioFrame:
    wave = np.sin(np.arange(start, start + 1024) / 9).astype(np.float32)[None] / 3
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SOUND_HZ, start
    return frame


def shown(path: Path) -> Iterator[tuple[Fraction, Any]]:
    """Every frame with the time when it is shown, in seconds."""
    with av.open(str(path)) as clip:
        for frame in clip.decode(video=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            yield frame.pts * frame.time_base, frame


def times(path: Path) -> list[Fraction]:
    return [time_s for time_s, _ in shown(path)]


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """The packets of the sound, with their times in seconds."""
    with av.open(str(path)) as clip:
        (stream,) = clip.streams.audio
        return [
            (float((packet.pts or 0) * packet.time_base), bytes(packet))
            for packet in clip.demux(stream)
            if packet.size
        ]


def duration_s(path: Path) -> float:
    with av.open(str(path)) as clip:
        return (clip.duration or 0) / av.time_base


def colours(frame: Any, matrix: int | None = None) -> Array:
    """[3, 4, 3] int: the colour in the middle of each patch, as a player shows it. matrix: if the frame states none."""
    names: dict[int, Any] = {1: "itu709", 6: "smpte170m", 5: "itu601", 9: "bt2020"}
    rgb = frame.to_ndarray(
        format="rgb24",
        src_colorspace=names[matrix or int(frame.colorspace)],
        interpolation="BICUBIC",
    ).astype(int)
    rows, columns = rgb.shape[0] * np.array([1, 3, 5]) // 6, rgb.shape[1] * np.array([1, 3, 5, 7]) // 8
    return rgb[rows][:, columns]


def animation(format: str, pictures: Sequence[Image.Image], **options: Any) -> bytes:
    file = io.BytesIO()
    pictures[0].save(file, format, save_all=True, append_images=pictures[1:], **options)
    return file.getvalue()
