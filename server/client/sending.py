"""Sends pictures through one client, some at once, and writes the answers.

The commands that turn images into images call `send_all` with the transfers that are still to do; it returns how many
were written, how many failed, and why it stopped early where it did.
"""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from runtime.errors import Cancelled, GanforgeError, InvalidInput, NotReady
from server.client.answer_file import AnswerFile, FileId
from server.client.batch_bar import BatchBar
from server.client.image_calls import OnProgress
from server.client.results import ImageResult
from server.client.transfers import STREAM, Transfer

# A whole answer for standard output: in memory up to this size, then on the disk.
SPOOL_BYTES = 64 * 2**20
# What the file system says when no further picture can be written either.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Call(Protocol):
    """Sends one picture and writes the answer into an open file: Client.upscale with the user's options, say."""

    def __call__(
        self, image: bytes | Path, *, into: BinaryIO, on_progress: OnProgress | None
    ) -> ImageResult: ...


@dataclass(frozen=True)
class Outcome:
    """How many answers were written, and how many pictures failed. stopped: why the rest was not tried, or None.

    interrupted: whether Ctrl-C was the reason.
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
) -> Outcome:
    """Send every picture, `jobs` at once. One that fails is a sentence on stderr, and the others go on.

    abort: ends the calls under way. overwrite: replace existing files. originals: files that are never replaced.
    total: the pictures that were asked for, of which `transfers` are still to do.
    Ctrl-C, a server that cannot be reached and a full disk end it: the calls under way are ended, so that the server
    drops their work, and what is written stays.
    """
    stopping = threading.Event()
    failed, interrupted = 0, False
    stopped: str | None = None
    with BatchBar(total=total, done=total - len(transfers)) as bar, ThreadPoolExecutor(jobs) as pool:

        def send(transfer: Transfer) -> tuple[Path, ImageResult, float]:
            if stopping.is_set():
                raise Cancelled("the batch has ended")
            start_s = time.monotonic()
            with bar.picture() as on_progress:
                target, answer = _send(transfer, call, on_progress, overwrite, originals)
            return target, answer, time.monotonic() - start_s

        futures = {pool.submit(send, transfer): transfer for transfer in transfers}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    target, answer, took_s = future.result()
                    size = f"{answer.width}×{answer.height}"
                    line = f"{futures[future].source} → {target} {size} in {took_s:.1f} s"
                    bar.advance(line, err=target == STREAM)
                elif isinstance(error, GanforgeError | OSError):
                    failed += 1
                    bar.advance(f"{futures[future].source}: {error}", err=True)
                    if _would_repeat(error) and not all(each.done() for each in futures):
                        stopped = "Stopped, as the others would fail in the same way"
                        break
                else:
                    raise error
        except KeyboardInterrupt:
            stopped, interrupted = "Interrupted", True
        finally:
            if any(not future.done() for future in futures):
                stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                abort()
    written = sum(_succeeded(future) for future in futures)
    return Outcome(written, failed, stopped, interrupted)


def _send(
    transfer: Transfer,
    call: Call,
    on_progress: OnProgress | None,
    overwrite: bool,
    originals: Collection[FileId],
) -> tuple[Path, ImageResult]:
    """The file that the answer is in, and what the call returned."""
    image = sys.stdin.buffer.read() if transfer.source == STREAM else transfer.source
    if transfer.target == STREAM:
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as whole:
            answer = call(image, into=cast(BinaryIO, whole), on_progress=on_progress)
            whole.seek(0)
            shutil.copyfileobj(whole, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return STREAM, answer
    with AnswerFile(transfer.target) as file:
        answer = call(image, into=file.file, on_progress=on_progress)
        target = transfer.target_of(answer.format)
        if target != transfer.target and target.exists() and overwrite:
            # The answer has another format than its picture, so that nobody asked for this file to be replaced.
            raise InvalidInput("OUT", f"{target} exists; name a --format")
        file.save(target, overwrite=overwrite, originals=originals)
    return target, answer


def _would_repeat(error: BaseException) -> bool:
    """Whether every other picture would fail as well: nobody answers, or nothing can be written."""
    return isinstance(error, NotReady) or (isinstance(error, OSError) and error.errno in DISK_ERRORS)


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
