"""ClipSource: reads the frames of a clip with PyAV (FFmpeg's libraries), upright, and notices where the file is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
from av.error import FFmpegError
from av.filter import Graph
from av.stream import Disposition

from runtime.errors import InvalidInput
from server.client.moving.frame_files import encoded, look_of
from server.client.moving.frames import Damage, Facts, Frame

# FFmpeg's readers that may open a file: those of containers, and none that follows links to other files, as playlists do.
READERS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
# Those whose header says how long they are; of the others FFmpeg guesses it.
SAY_THEIR_LENGTH = ("mov", "matroska", "avi", "asf", "flv")
# A clip that is shorter than it says by more than this was cut off. Sound may end a little before or after the pictures.
SLACK_S = 0.5
SLACK_SHARE = 0.01
# FFmpeg's angle, counterclockwise → filters that turn a frame upright.
TURNS = {
    -90: ("transpose=clock",),
    90: ("transpose=cclock",),
    180: ("hflip", "vflip"),
    -180: ("hflip", "vflip"),
}


def opened(path: Path) -> av.container.InputContainer:
    """Open a clip. Raises InvalidInput if it is none that can be read, OSError if there is no such file."""
    with path.open("rb"):  # FFmpeg's errors are OSErrors as well, with numbers of its own
        pass
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # else FFmpeg gives the same reason for two files only once
    try:
        with av.logging.Capture() as said:
            return av.open(f"file:{path}", options={"format_whitelist": READERS})
    except FFmpegError as error:
        words = "".join(f" ({text.strip()})" for _, _, text in said[:1])
        raise InvalidInput("IN", f"it cannot be read as a clip: {_words(error)}{words}") from error
    finally:
        av.logging.set_level(None)


class ClipSource:
    """The frames of the file's first video stream that is no cover picture. Raises InvalidInput if it has none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage: Damage | None = None
        self._container = opened(path)
        try:
            videos = [
                stream
                for stream in self._container.streams.video
                if not stream.disposition & Disposition.attached_pic
            ]
            if not videos:
                raise InvalidInput("IN", "it has no video stream")
            self._stream = videos[0]
            self.facts = self._facts()
        except BaseException:
            self._container.close()
            raise
        if len(videos) > 1:
            self.facts.notes.append(f"it has {len(videos)} video streams, of which only the first is kept")

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames in order. A damaged frame is left out and noted as `damage`; those after it are still given."""
        base = self.facts.time_base
        last: Frame | None = None
        usual = max(1, round(1 / (self.facts.rate * base)))
        for number, decoded in enumerate(self._decoded(), 1):
            pts = decoded.pts if decoded.pts is not None else decoded.dts
            earliest = 0 if last is None else last.pts + 1
            if pts is None:
                pts = 0 if last is None else last.pts + last.duration
            elif last is not None and pts < earliest:  # times that run backwards
                pts = earliest
            look = look_of(decoded, self.facts.look.aspect)
            last = Frame(
                number, pts, decoded.duration or usual, float(pts * base), partial(encoded, decoded, look)
            )
            self._read, self._next_s = number, float((last.pts + last.duration) * base)
            if number > skip:
                yield last

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """The decoded frames. Errors of the file become `damage`."""
        self._read, self._next_s, end_s, turn = 0, 0.0, 0.0, _Turn()
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except FFmpegError as error:
                self._damaged(_words(error))
                break
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != self._stream.index:
                continue
            try:
                frames = self._stream.decode(packet)
            except av.error.EOFError:  # the reader's last packet, which is empty, ended the decoder
                continue
            except FFmpegError as error:
                self._damaged(_words(error))
                continue
            yield from map(turn.upright, frames)
        with suppress(FFmpegError):  # it may have been ended already
            yield from map(turn.upright, self._stream.decode(None))
        self._check_length(end_s)

    def _check_length(self, end_s: float) -> None:
        claims = self._container.format.name.split(",")[0] in SAY_THEIR_LENGTH
        length_s = (self._container.duration or 0) / av.time_base
        start_s = (self._container.start_time or 0) / av.time_base
        if claims and end_s - start_s < length_s * (1 - SLACK_SHARE) - SLACK_S:
            self._damaged(f"the file ends here, and its header says that it lasts {length_s:.2f} s")

    def _damaged(self, reason: str) -> None:
        if self.damage is None:
            self.damage = Damage(self._read + 1, self._next_s, reason)

    def _facts(self) -> Facts:
        stream, notes = self._stream, []
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        duration = stream.duration and float(stream.duration * (stream.time_base or 0))
        seconds = duration or (self._container.duration or 0) / av.time_base
        first = self._first_frame()
        if first.interlaced_frame:
            notes.append("it is interlaced, and is kept so line by line; deinterlaced, it would look better")
        if first.format.name.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya")):
            notes.append("its transparency is not kept")
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if first.rotation in (90, -90):
            aspect = 1 / aspect
        return Facts(
            stream.time_base or Fraction(1, 1000),
            rate,
            stream.frames or round(seconds * rate) or None,
            look_of(first, aspect),
            loop=0,
            notes=notes,
        )

    def _first_frame(self) -> av.VideoFrame:
        """The first frame, for its format. The file is rewound by opening it anew, since not every file can be."""
        with opened(self._path) as container:
            try:
                for frame in container.decode(container.streams[self._stream.index]):
                    assert isinstance(frame, av.VideoFrame)
                    return frame
                reason = "it holds no frame"
            except FFmpegError as error:
                reason = _words(error)
        raise InvalidInput("IN", f"it is damaged at frame 1 (0.00 s): {reason}")


class _Turn:
    """Turns frames upright, as the file's header asks players to do."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._made_for: tuple[int, int, str, int] | None = None

    def upright(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as players show it."""
        steps = TURNS.get(frame.rotation, ())
        if not steps:
            return frame
        made_for = (frame.width, frame.height, frame.format.name, frame.rotation)
        if self._graph is None or made_for != self._made_for:
            self._graph, self._made_for = Graph(), made_for
            nodes = [
                self._graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                ),
                *(self._graph.add(*step.split("=")) for step in steps),
                self._graph.add("buffersink"),
            ]
            self._graph.link_nodes(*nodes).configure()
        duration = frame.duration
        self._graph.push(frame)
        turned = self._graph.pull()
        assert isinstance(turned, av.VideoFrame)
        turned.duration = duration
        return turned


def _words(error: FFmpegError) -> str:
    """What FFmpeg says of an error, without its number and the name of the file."""
    return error.strerror or str(error)
