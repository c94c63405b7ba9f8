"""Sends clips and animations frame by frame and saves the answers as one file. sending.py calls `MovingSender.send`.

The frames that are done wait in a folder beside the answer (server/client/moving/parts.py) until all are there. If the
run ends before, by Ctrl-C or because a frame fails, they stay, and the same command goes on after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from runtime.errors import GanforgeError, InvalidInput
from server.client.answer_file import AnswerFile, FileId
from server.client.batch_bar import BatchBar
from server.client.moving.animation import AnimationSink, AnimationSource
from server.client.moving.frames import Frame, Sink, Source
from server.client.moving.kinds import ANIMATED, Kind
from server.client.moving.parts import Parts
from server.client.moving.window import in_order, uninterrupted
from server.client.results import ImageResult
from server.client.transfers import Transfer


class FrameCall(Protocol):
    """A method of Client with the user's options: sends one frame."""

    def __call__(self, image: bytes, *, format: str, quality: None, lossless: bool) -> ImageResult: ...


class FrameFailed(Exception):
    """A frame could not be sent or answered. cause: why. kept: what the user may expect of the frames before it."""

    def __init__(self, frame: Frame, cause: GanforgeError) -> None:
        super().__init__(str(cause))
        self.frame, self.cause, self.kept = frame, cause, ""

    def __str__(self) -> str:
        return f"frame {self.frame.number} ({self.frame.time_s:.2f} s): {self.cause}{self.kept}"


@dataclass(frozen=True)
class Sent:
    """A clip or an animation that was saved. line: about it. problem: what is missing of it; None if nothing is."""

    target: Path
    line: str
    problem: str | None


@dataclass(frozen=True)
class MovingOptions:
    """The user's options for clips and animations; None for the default.

    codec, crf: of clips. quality, lossless: of WebP. jobs: frames in flight. made_of: the model and the options on which
    frames depend.
    """

    codec: str | None
    crf: int | None
    quality: int | None
    lossless: bool
    jobs: int
    made_of: Mapping[str, object]


class MovingSender:
    """Sends the clips and animations of one command. call: sends a frame. abort: ends the running calls.

    overwrite, originals: as for AnswerFile.save.
    """

    def __init__(
        self,
        call: FrameCall,
        options: MovingOptions,
        *,
        abort: Callable[[], None],
        overwrite: bool,
        originals: Collection[FileId],
    ) -> None:
        self._call, self._options, self._abort = call, options, abort
        self._overwrite, self._originals = overwrite, originals

    def send(self, transfer: Transfer, bar: BatchBar) -> Sent:
        """Send every frame and save the answer.

        Raises InvalidInput if the source cannot be read or the answer's container cannot hold it, and FrameFailed.
        KeyboardInterrupt passes through; what it leaves is printed.
        """
        start_s = time.monotonic()
        source = _source(transfer)
        with closing(source), AnswerFile(transfer.target) as answer:
            sink, parts, notes = self._sink(transfer, source)
            for note in notes:
                bar.note(f"{transfer.source}: {note}")
            before = sink.done
            last = self._frames(transfer, source, sink, parts, bar)
            if last is None:
                parts.remove()
                raise InvalidInput("IN", _damage(source) or "it holds no frame")
            width, height = sink.write(answer.file, last)
            answer.save(transfer.target, overwrite=self._overwrite, originals=self._originals)
            parts.remove()
        seconds, new = time.monotonic() - start_s, last.number - before
        line = (
            f"{transfer.source} → {transfer.target} {width}×{height}, {last.number} frames in {seconds:.1f} s"
        )
        line += f" ({new / seconds:.1f} a second)" if new else ""
        damage = _damage(source)
        rest = f"the {last.number} frames that could be read are in {transfer.target}"
        return Sent(transfer.target, line, damage and f"{transfer.source}: {damage}; {rest}")

    def _frames(
        self, transfer: Transfer, source: Source, sink: Sink, parts: Parts, bar: BatchBar
    ) -> Frame | None:
        """Send the frames that are missing, and return the last one of all; None if the source has none."""
        before, last = sink.done, None
        if before:
            bar.note(f"{transfer.source}: {before} frames are done already; going on after them")

        def read() -> Any:
            nonlocal last
            # With the last of the frames that are done, in case that it is the last of all.
            for frame in source.frames(max(0, before - 1)):
                last = frame
                if frame.number > before:
                    yield frame

        try:
            with bar.frames(transfer.source.name, source.facts.total, before) as advance:
                results = in_order(
                    read(), partial(self._answer, sink), size=self._options.jobs, abort=self._abort
                )
                with closing(results):
                    try:
                        for frame, prepared in results:
                            with uninterrupted():
                                sink.add(frame, prepared)
                            advance()
                    except KeyboardInterrupt:
                        self._abort()
                        raise
        except FrameFailed as error:
            kept = _keep(sink, parts)
            error.kept = kept and f"; {kept}"
            raise
        except BaseException as error:
            kept = _keep(sink, parts)
            if kept and isinstance(error, KeyboardInterrupt):
                bar.note(f"{transfer.source}: {kept}")
            raise
        return last

    def _answer(self, sink: Sink, frame: Frame) -> tuple[Frame, Any]:
        """Send one frame; on a thread of its own."""
        try:
            answer = self._call(frame.file(), format="tiff", quality=None, lossless=False)
            return frame, sink.prepare(answer.image)
        except GanforgeError as error:
            raise FrameFailed(frame, error) from error

    def _sink(self, transfer: Transfer, source: Source) -> tuple[Sink, Parts, list[str]]:
        """Where the answers go: the sink, its folder, and notes about what is not kept of the source."""
        options, suffix = self._options, transfer.target.suffix.lower()
        notes = list(source.facts.notes)
        file = transfer.source.stat()
        made_of: dict[str, object] = {
            **options.made_of,
            "source": [str(transfer.source.resolve()), file.st_size, file.st_mtime_ns],
        }
        if suffix in ANIMATED:
            format = ANIMATED[suffix]
            made_of |= {"format": format}
            if transfer.kind is Kind.CLIP:
                notes.append(f"its sound, if it has any, is not kept in {suffix}")
            parts = Parts(transfer.target, made_of)
            return AnimationSink(parts, source.facts, format, options.quality, options.lossless), parts, notes
        clips = _clips()
        encoding, more = clips.encoding_for(transfer.target, source.facts, options.codec, options.crf)
        copied_from = transfer.source if transfer.kind is Kind.CLIP else None
        if copied_from is not None:
            more += clips.check_streams(copied_from, encoding.container)
        made_of |= {
            "encoder": [encoding.codec.encoder, encoding.options, encoding.pixel_format],
            "ffmpeg": clips.FFMPEG,
        }
        parts = Parts(transfer.target, made_of)
        return clips.ClipSink(parts, source.facts, encoding, copied_from), parts, notes + more


def _source(transfer: Transfer) -> Source:
    if transfer.kind is Kind.CLIP:
        return _clips().ClipSource(transfer.source)
    return AnimationSource(transfer.source, flat=transfer.target.suffix.lower() not in ANIMATED)


def _clips() -> Any:
    """server.client.moving.clips, which needs PyAV. Raises InvalidInput if that is not installed."""
    try:
        from server.client.moving import clips
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise InvalidInput(
            "IN",
            "clips need the extra 'video', which is not installed: pip install 'ganforge[video]', "
            "or pip install '.[video]' in a checkout",
        ) from error
    return clips


def _damage(source: Source) -> str | None:
    damage = source.damage
    return (
        f"it is damaged at frame {damage.number} ({damage.time_s:.2f} s): {damage.reason}" if damage else None
    )


def _keep(sink: Sink, parts: Parts) -> str:
    """Keep the frames that are done, and say so; remove the folder if there are none."""
    with uninterrupted():
        sink.close()
    if not sink.done:
        parts.remove()
        return ""
    return f"the {sink.done} frames before it are kept in {parts.folder}, and the same command goes on after them"
