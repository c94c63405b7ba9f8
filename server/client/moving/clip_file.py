"""write_clip: writes a container of encoded frames, with the sound, the subtitles, the chapters and the tags of its source.

Streams that are copied are never decoded: their packets stay as they are, bit by bit. clip_sink.py calls it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.stream import Stream

from runtime.errors import InvalidInput
from server.client.moving.clip_encoding import Encoding
from server.client.moving.clip_source import opened
from server.client.moving.frames import Facts, Frame

# Kinds of streams that are copied → whether a clip without them would be a loss that must be refused.
COPIED = {"audio": True, "subtitle": False}
# Tags that describe the source's own encoding.
LEFT_OUT = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}

MS = Fraction(1, 1000)  # Matroska counts no less


@dataclass(frozen=True)
class Packet:
    """An encoded frame. pts, dts: in the source's time base."""

    pts: int
    dts: int
    is_keyframe: bool
    data: bytes


def new_encoder(encoding: Encoding, facts: Facts, width: int, height: int) -> av.VideoCodecContext:
    """An encoder of frames of this size, whose headers go into the container."""
    encoder = av.CodecContext.create(encoding.codec.encoder, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    _configure(encoder, encoding, facts, width, height)
    encoder.flags |= Flags.global_header
    encoder.options = encoding.options
    return encoder


def check_streams(source: Path, container: str) -> list[str]:
    """Notes about the streams of `source` that a container cannot hold. Raises InvalidInput if one of them is sound."""
    notes = []
    able = av.ContainerFormat(container, "w")
    with opened(source) as clip, av.open(_Nowhere(), "w", format=able.name) as probe:
        for stream in clip.streams:
            if stream.type == "video":
                continue
            name = stream.codec_context.name if stream.codec_context else "unknown"
            if stream.type in COPIED and name in probe.supported_codecs:
                continue
            what = f"its {stream.type} stream {stream.index} ({name})"
            if COPIED.get(stream.type):
                raise InvalidInput(
                    "OUT",
                    f"{container} cannot hold {what}; name a file that ends with .mkv, which holds every kind",
                )
            notes.append(f"{what} is not kept")
    return notes


def write_clip(
    file: BinaryIO,
    encoding: Encoding,
    facts: Facts,
    *,
    width: int,
    height: int,
    packets: Iterable[Packet],
    last: Frame,
    source: Path | None,
) -> None:
    """Write the clip into an open file.

    width, height: of the frames, in px. packets: of the frames, in the encoder's order. last: the frame that is shown last.
    source: the clip to copy everything else from; None if there is none.
    """
    with av.open(file, "w", format=encoding.container) as out:
        # The encoder is opened for the headers that it writes, which are those of every segment.
        video = out.add_stream(encoding.codec.encoder, rate=facts.rate, options=encoding.options)
        assert isinstance(video.codec_context, av.VideoCodecContext)
        _configure(video.codec_context, encoding, facts, width, height)
        video.time_base = facts.time_base
        if tag := encoding.codec.tags.get(encoding.container):
            video.codec_context.codec_tag = tag
        frames = _frames(video, packets, facts.time_base, last)
        if source is None:
            out.start_encoding()
            for _, packet in frames:
                out.mux(packet)
            return
        with opened(source) as clip:
            streams = {
                stream.index: out.add_stream_from_template(stream, opaque=True)
                for stream in clip.streams
                if stream.type in COPIED and stream.codec_context.name in out.supported_codecs
            }
            _copy_tags(clip, out, streams)
            out.start_encoding()
            for _, packet in heapq.merge(frames, _copied(clip, streams), key=lambda pair: pair[0]):
                out.mux(packet)


def _configure(
    context: av.VideoCodecContext, encoding: Encoding, facts: Facts, width: int, height: int
) -> None:
    look = encoding.look
    context.width, context.height = width, height
    context.pix_fmt = encoding.pixel_format
    context.time_base, context.framerate = facts.time_base, facts.rate
    context.sample_aspect_ratio = look.aspect
    context.colorspace, context.color_range = look.matrix, look.range
    context.color_primaries, context.color_trc = look.primaries, look.transfer


def _frames(
    stream: Stream, packets: Iterable[Packet], time_base: Fraction, last: Frame
) -> Iterator[tuple[float, av.Packet]]:
    """The packets of the frames with their times in seconds."""
    first: Packet | None = None
    dts = 0
    for each, following in pairwise(chain(packets, [None])):
        assert each is not None
        # Each segment begins with frames decoded ahead of time. Where frames are unevenly spaced, that may reach into
        # the segment before; one tick after its last is always early enough.
        dts = each.dts if first is None else max(each.dts, dts + 1)
        first = first or each
        packet = av.Packet(each.data)
        packet.pts, packet.dts, packet.is_keyframe = each.pts, dts, each.is_keyframe
        packet.time_base, packet.stream = time_base, stream
        # A frame is shown until the next one, whatever its duration says; without one, FFmpeg guesses it, and with it how
        # long the clip is. That is told by the frame shown last, and by the one decoded last, which is rarely the same.
        packet.duration = max(1, round(MS / time_base))
        if each.pts == last.pts:
            packet.duration = last.duration
        elif following is None:
            packet.duration = max(1, last.pts + last.duration - dts - (first.pts - first.dts))
        yield float(dts * time_base), packet


def _copied(
    clip: av.container.InputContainer, streams: dict[int, Stream]
) -> Iterator[tuple[float, av.Packet]]:
    """The packets of the copied streams with their times in seconds, as far as the file can be read."""
    at_s = float("-inf")
    try:
        for packet in clip.demux():
            if packet.stream_index not in streams or not packet.size:
                continue
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is not None:
                at_s = float(stamp * packet.time_base)
            packet.stream = streams[packet.stream_index]
            yield at_s, packet
    except FFmpegError:  # the reader of the frames has met and reported it
        return


def _copy_tags(
    clip: av.container.InputContainer, out: av.container.OutputContainer, streams: dict[int, Stream]
) -> None:
    out.metadata.update({name: text for name, text in clip.metadata.items() if name not in LEFT_OUT})
    out.set_chapters(clip.chapters())
    for index, stream in streams.items():
        original = clip.streams[index]
        stream.metadata.update({n: t for n, t in original.metadata.items() if n.lower() not in LEFT_OUT})
        stream.disposition = original.disposition


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        """Forget the data."""
        return len(data)
