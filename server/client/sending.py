"""Sends a batch of pictures through one client, several at once, and saves the answers.

image_commands.py calls `send_all` with the transfers that remain. It returns an Outcome: how many were written, how many
failed, and why it stopped early if it did.
"""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from runtime.errors import (
    Cancelled,
    GanforgeError,
    InvalidInput,
    NotReady,
    PermissionDenied,
    Unauthenticated,
)
from server.client.answer_file import AnswerFile, FileId
from server.client.batch_bar import BatchBar
from server.client.image_calls import OnProgress
from server.client.moving.kinds import Kind
from server.client.moving_pictures import FrameFailed, Sent
from server.client.results import ImageResult
from server.client.transfers import STREAM, Transfer

# An answer for standard output is collected in memory up to this size, then on disk.
SPOOL_BYTES = 64 * 2**20
# File system errors after which no further picture can be written either.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
STOPPED = "Stopped, because the others would fail in the same way"


class Call(Protocol):
    """A method of Client with the user's options: sends one picture and writes the answer into an open file."""

    def __call__(
        self, image: bytes | Path, *, into: BinaryIO, on_progress: OnProgress | None
    ) -> ImageResult: ...


@dataclass(frozen=True)
class Outcome:
    """The result of a batch.

    written: answers saved. failed: pictures that failed. stopped: why the rest was not tried; None if all were.
    interrupted: whether the reason was Ctrl-C.
    """

    written: int
    failed: int
    stopped: str | None = None
    interrupted: bool = False


def send_all(
    transfers: Sequence[Transfer],
    call: Call,
    *,
    abort: Callable[[], None],
    overwrite: bool,
    originals: Collection[FileId],
    total: int,
    jobs: int = 1,
    send_moving: Callable[[Transfer, BatchBar], Sent] | None = None,
) -> Outcome:
    """Send every picture, `jobs` at once, and then the clips and animations, one after another.

    A failed one is reported on stderr, and the others continue. send_moving: sends a clip or an animation.

    abort: cancels the running calls. overwrite: replace existing files. originals: files that are never replaced.
    total: number of all pictures, of which `transfers` remain.
    Ctrl-C, an unreachable server and a full disk stop the batch: running calls are cancelled, saved answers stay.
    """
    stopping = threading.Event()
    failed, moved, interrupted = 0, 0, False
    stopped: str | None = None
    with BatchBar(total=total, done=total - len(transfers)) as bar, ThreadPoolExecutor(jobs) as pool:

        def send(transfer: Transfer) -> tuple[Path, ImageResult, float]:
            if stopping.is_set():
                raise Cancelled("the batch has ended")
            start_s = time.monotonic()
            with bar.picture() as on_progress:
                target, answer = _send(transfer, call, on_progress, overwrite, originals)
            return target, answer, time.monotonic() - start_s

        def fail(transfer: Transfer, error: Exception) -> bool:
            """Report a failure. Returns whether every other source would fail in the same way."""
            nonlocal failed
            failed += 1
            bar.advance(f"{transfer.source}: {error}", err=True)
            return _would_repeat(error.cause if isinstance(error, FrameFailed) else error)

        # Pictures first: one clip takes as long as thousands of them, and keeps the server busy by itself.
        pictures = [transfer for transfer in transfers if transfer.kind is Kind.PICTURE]
        moving = deque(transfer for transfer in transfers if transfer.kind is not Kind.PICTURE)
        futures = {pool.submit(send, transfer): transfer for transfer in pictures}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    target, answer, took_s = future.result()
                    size = f"{answer.width}×{answer.height}"
                    line = f"{futures[future].source} → {target} {size} in {took_s:.1f} s"
                    bar.advance(line, err=target == STREAM)
                elif isinstance(error, GanforgeError | OSError):
                    others = moving or not all(other.done() for other in futures)
                    if fail(futures[future], error) and others:
                        stopped = STOPPED
                        break
                else:
                    raise error
            while moving and stopped is None and send_moving is not None:
                transfer = moving.popleft()
                try:
                    sent = send_moving(transfer, bar)
                except (GanforgeError, OSError, FrameFailed) as error:
                    if fail(transfer, error) and moving:
                        stopped = STOPPED
                    continue
                if sent.problem is None:
                    moved += 1
                    bar.advance(sent.line)
                else:
                    failed += 1
                    bar.advance(sent.problem, err=True)
        except KeyboardInterrupt:
            stopped, interrupted = "Interrupted", True
        finally:
            if any(not future.done() for future in futures):
                stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                abort()
    written = moved + sum(_succeeded(future) for future in futures)
    return Outcome(written, failed, stopped, interrupted)


def _send(
    transfer: Transfer,
    call: Call,
    on_progress: OnProgress | None,
    overwrite: bool,
    originals: Collection[FileId],
) -> tuple[Path, ImageResult]:
    """Send one picture and save the answer. Returns the answer's path and the call's result."""
    image = sys.stdin.buffer.read() if transfer.source == STREAM else transfer.source
    if transfer.target == STREAM:
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            answer = call(image, into=cast(BinaryIO, spool), on_progress=on_progress)
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return STREAM, answer
    with AnswerFile(transfer.target) as file:
        answer = call(image, into=file.file, on_progress=on_progress)
        target = transfer.target_of(answer.format)
        if target != transfer.target and target.exists() and overwrite:
            # The answer's format is not the expected one, so the user did not ask to replace this file.
            raise InvalidInput("OUT", f"the answer is {answer.format}, and {target} exists; choose --format")
        file.save(target, overwrite=overwrite, originals=originals)
    return target, answer


def _would_repeat(error: BaseException) -> bool:
    """Whether every other picture would fail as well: by this server or this token, or because nothing can be written."""
    refused = NotReady | Unauthenticated | PermissionDenied
    return isinstance(error, refused) or (isinstance(error, OSError) and error.errno in DISK_ERRORS)


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
