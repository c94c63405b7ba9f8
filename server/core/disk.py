"""Disk: the temporary files of a server, for large uploads and answers, and what happens when the disk is full.

server/core/uploads.py and server/core/pipeline.py open files here. They have no names, so nothing is left of them however
the process ends, and they lie in the folder that TMPDIR says.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from runtime.errors import OutOfSpace
from runtime.pictures.target import out_of_space

DESCRIPTORS = Path("/proc/self/fd")


class Disk:
    """Thread-safe. report: called with (whether the disk works, why not) when that changes."""

    def __init__(self, report: Callable[[bool, str], None] = lambda healthy, reason: None) -> None:
        self._report = report
        self._works = True

    def file(self) -> BinaryIO:
        """A new temporary file, deleted when it is closed. Raises OutOfSpace."""
        with self.writing():
            # Without /proc, `path` needs a name.
            kind = tempfile.TemporaryFile if DESCRIPTORS.is_dir() else tempfile.NamedTemporaryFile
            return cast(BinaryIO, kind(prefix="ganforge-"))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Context manager around writing to a temporary file. Raises OutOfSpace for an OSError that says so."""
        try:
            yield
        except OutOfSpace as error:
            self._tell(False, str(error))
            raise
        except OSError as error:
            full = out_of_space(error)
            if full is None:
                raise
            self._tell(False, str(full))
            raise full from error
        self._tell(True, "")

    def _tell(self, works: bool, reason: str) -> None:
        if works != self._works:
            self._works = works
            self._report(works, reason)


def path(file: BinaryIO) -> Path:
    """A path by which a file of `Disk.file` can be opened again, as long as it is open."""
    return DESCRIPTORS / str(file.fileno()) if DESCRIPTORS.is_dir() else Path(os.fsdecode(file.name))
