"""Reloaded: a value read from files, read again when one of them changes. Certificates and tokens are such values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from server.logs import log

T = TypeVar("T")
# Identifies the content of a file: device, inode, times of its last changes in ns, length in bytes. None: it cannot be read.
Identity = tuple[int, int, int, int, int] | None


class Reloaded(Generic[T]):
    """A value read from `files`. Thread-safe. A file that cannot be read, or is wrong, leaves the last good value in place.

    what: names the value in the log. read: reads and checks the files; its first error is raised by the constructor.
    check_every_s: shortest time between two looks at the files. clock: seconds, as time.monotonic.
    """

    def __init__(
        self,
        what: str,
        files: Sequence[Path],
        read: Callable[[], T],
        *,
        check_every_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._files, self._read = what, tuple(files), read
        self._check_every_s, self._clock = check_every_s, clock
        self._lock = threading.Lock()
        self._checked_s = clock()
        self._identities = self._now()  # before reading: a change meanwhile is seen by the next look
        self._value = read()

    def current(self) -> T:
        """The value, read again if a file changed. Never raises: a failure is logged once for each change of the files."""
        with self._lock:
            if self._clock() - self._checked_s >= self._check_every_s:
                self._checked_s = self._clock()
                self._look()
            return self._value

    def _look(self) -> None:
        identities = self._now()
        if identities == self._identities:
            return
        self._identities = identities
        files = [str(file) for file in self._files]
        try:
            self._value = self._read()
        except Exception as error:
            log.warning("not reloaded, the old one stays", what=self._what, files=files, reason=str(error))
        else:
            log.info("reloaded", what=self._what, files=files)

    def _now(self) -> tuple[Identity, ...]:
        return tuple(map(_identity, self._files))


def _identity(file: Path) -> Identity:
    """A link counts as the file that it leads to: Kubernetes replaces secrets by changing a link."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
