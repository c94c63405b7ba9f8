"""ClipSink: encodes the answers to the frames of a clip in segments, and puts the segments together as one clip.

A segment is what one run of the encoder gave: it begins with a key frame, and is kept as a file of packets. So a run that
was interrupted goes on after the last segment. Ctrl-C ends the current one early, and nothing is lost.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av

from server.client.moving.clip_encoding import Encoding
from server.client.moving.clip_file import Packet, new_encoder, write_clip
from server.client.moving.frame_files import EXACT, decoded
from server.client.moving.frames import Facts, Frame
from server.client.moving.parts import Parts

# 5 s of most clips. A key frame so often costs hardly any bytes.
SEGMENT_FRAMES = 128
NAME = re.compile(r"(\d+)-(\d+)-(\d+)x(\d+)\.packets")
UNFINISHED = "unfinished.part"
# Of a packet: pts, dts, whether it is a key frame, size in bytes.
HEADER = struct.Struct("<qq?I")


@dataclass(frozen=True)
class Segment:
    """Encoded frames: numbers of the first and the last, and their size in px."""

    first: int
    last: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.first:08}-{self.last:08}-{self.width}x{self.height}.packets"


class ClipSink:
    """Implements Sink with encoded segments in `parts`. facts: of the source. source: its file, if that is a clip."""

    def __init__(self, parts: Parts, facts: Facts, encoding: Encoding, source: Path | None) -> None:
        self._parts, self._facts, self._encoding, self._source = parts, facts, encoding, source
        self._segments: list[Segment] = []
        self.done = 0
        for name in parts.names():
            if (match := NAME.fullmatch(name)) and int(match[1]) == self.done + 1:
                self._segments.append(Segment(*map(int, match.groups())))
                self.done = self._segments[-1].last
        self._first = self.done + 1
        self._encoder: av.VideoCodecContext | None = None

    def prepare(self, answer: bytes) -> av.VideoFrame:
        """The answer in the encoder's pixels."""
        return decoded(answer, self._encoding.look, self._encoding.pixel_format)

    def add(self, frame: Frame, prepared: av.VideoFrame) -> None:
        """Encode the answer to the next frame."""
        if self._encoder is None:
            self._first = frame.number
            size = self._segments[0] if self._segments else prepared
            self._encoder = new_encoder(self._encoding, self._facts, size.width, size.height)
            self._file = (self._parts.folder / UNFINISHED).open("wb")
        width, height = self._encoder.width, self._encoder.height
        if (prepared.width, prepared.height) != (width, height):  # the source changes its size in between
            prepared = prepared.reformat(width, height, interpolation=EXACT)
        prepared.pts, prepared.time_base = frame.pts, self._facts.time_base
        self._keep(self._encoder.encode(prepared))
        self.done = frame.number
        if self.done - self._first + 1 == SEGMENT_FRAMES:
            self.close()

    def close(self) -> None:
        """Finish the current segment."""
        if self._encoder is None:
            return
        encoder, self._encoder = self._encoder, None
        with self._file:
            self._keep(encoder.encode(None))
        segment = Segment(self._first, self.done, encoder.width, encoder.height)
        self._parts.keep(self._parts.folder / UNFINISHED, segment.name)
        self._segments.append(segment)

    def write(self, file: BinaryIO, last: Frame) -> tuple[int, int]:
        """Put the clip together, with everything else that the source holds. last: the frame that is shown last.

        Returns its width and height.
        """
        self.close()
        width, height = self._segments[0].width, self._segments[0].height
        write_clip(
            file,
            self._encoding,
            self._facts,
            width=width,
            height=height,
            packets=self._packets(),
            last=last,
            source=self._source,
        )
        return width, height

    def _keep(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            assert packet.pts is not None
            assert packet.dts is not None
            data = bytes(packet)
            self._file.write(HEADER.pack(packet.pts, packet.dts, packet.is_keyframe, len(data)) + data)

    def _packets(self) -> Iterator[Packet]:
        for segment in self._segments:
            with self._parts.path(segment.name).open("rb") as file:
                while head := file.read(HEADER.size):
                    pts, dts, is_key, size = HEADER.unpack(head)
                    yield Packet(pts, dts, is_key, file.read(size))
