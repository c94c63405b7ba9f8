"""AnswerFile: writes an answer's file completely or not at all, and never over a source or an existing file.

The client's commands write every picture through it. `atomic_write` of runtime/files.py does not fit here: it replaces
existing files, it needs the name beforehand (here the answer's format decides it), and a killed process leaves its
temporary file behind. Here the temporary file has a fixed name, so that the next run reuses it, and a lock on it keeps
two runs from writing the same answer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from runtime.errors import InvalidInput
from runtime.files import UNFINISHED_SUFFIX

# Device and inode of a file, which are the same for every path to it.
FileId = tuple[int, int]


class AnswerFile:
    """A temporary file beside `target`. Opening it fails early if the folder cannot be written.

    A context manager: `save` renames the file to its final name; leaving the block without it deletes the file.

    with AnswerFile(Path("photo-x4.png")) as answer:
        answer.file.write(image)
        answer.save(Path("photo-x4.png"), overwrite=False)

    Raises OSError if the folder cannot be written, BlockingIOError if another run is writing the same answer.
    """

    def __init__(self, target: Path) -> None:
        target = Path(os.path.realpath(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = target.with_name(f".{target.name}{UNFINISHED_SUFFIX}")
        self.file: BinaryIO = _open_locked(self._unfinished)
        self._renamed = False

    def save(self, target: Path, *, overwrite: bool, originals: Collection[FileId] = ()) -> None:
        """Rename the complete file to `target`. With `overwrite`, a symbolic link at `target` is followed.

        Raises InvalidInput if `target` is one of `originals`, or if it exists and `overwrite` is false.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        if file_id(target) in originals:
            raise InvalidInput(
                "OUT", f"{target} is a source, and sources are never overwritten; name another file"
            )
        if not overwrite:
            try:
                os.link(self._unfinished, target)  # unlike a rename, it fails if the name is taken
                return
            except OSError as error:  # the name is taken, or the file system has no hard links
                if os.path.lexists(target):
                    raise InvalidInput("OUT", f"{target} exists; --overwrite replaces it") from error
        self._unfinished.replace(os.path.realpath(target))
        self._renamed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._renamed:  # after a rename, the hidden name may belong to another run
            self._unfinished.unlink(missing_ok=True)
        self.file.close()


def file_id(path: Path) -> FileId | None:
    """Identifies the file at `path`: equal for all paths, symbolic links and hard links to it. None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_locked(path: Path) -> BinaryIO:
    """Open an empty file and lock it for this process. A file left behind by a killed run is reused."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(f"another run is writing it ({path} is locked)") from error
            except OSError:  # a file system without locks, where the user must not start two runs at once
                pass
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) == file_id(path):
                if status.st_nlink == 1:
                    file.truncate()
                    return file
                # A killed run linked this file to its final name and did not delete this one: truncating would empty the answer.
                path.unlink()
            file.close()  # this name was deleted, or another run renamed it between our open and our lock: try again
        except BaseException:
            file.close()
            raise
