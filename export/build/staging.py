"""The hidden folder in which pipeline.py writes a bundle (`staging`). Those that killed builds have left are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from runtime.bundle import Writer
from runtime.errors import InvalidInput
from runtime.files import UNFINISHED_SUFFIX


@contextmanager
def staging(parent: Path, name: str) -> Iterator[Writer]:
    """A context manager: a Writer for the bundle `name` in `parent`. Its folder is removed unless the bundle is committed.

    The folder is locked while this process lives, and folders that killed builds of `name` have left are removed first.
    SIGTERM ends the build as Ctrl-C does, so that the folder is removed then too. Raises InvalidInput if `parent` cannot
    be written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned(parent, name)
        writer = Writer(parent, name)
    except OSError as error:
        raise InvalidInput("output", f"{parent} cannot be written to: {error.strerror or error}") from error
    previous = signal.signal(signal.SIGTERM, _leave)
    try:
        with writer:
            lock = os.open(writer.path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH)
                yield writer
            finally:
                os.close(lock)
    finally:
        signal.signal(signal.SIGTERM, previous)


def clear_abandoned(parent: Path, name: str) -> None:
    """Remove the staging folders of `name` that no process has locked. The lock of a process that dies is released."""
    for folder in parent.glob(f".{name}.*{UNFINISHED_SUFFIX}"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)
