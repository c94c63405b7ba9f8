"""Writes an answer to a file: complete or not at all, and never over a file that must stay.

The client's commands write every picture through AnswerFile. runtime/files.py's atomic_write does not serve here: it
replaces existing files, it must know the name beforehand (here the answer's format decides it), and a killed process
leaves its temporary file behind. Here the temporary file has a fixed name, so that the next run takes it over, and a
lock on it keeps two runs from writing the same answer.
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

# What os.stat says of a file, whichever path leads to it: device and inode.
FileId = tuple[int, int]


class AnswerFile:
    """A temporary file beside `target`, opened at once so that an unwritable folder fails before anything is sent.

    `save` gives it its name; without that, leaving the block removes it.

    with AnswerFile(Path("photo-x4.png")) as answer:
        answer.file.write(image)
        answer.save(Path("photo-x4.png"), overwrite=False)

    Raises OSError where the folder cannot be written, BlockingIOError where another run is writing the same answer.
    """

    def __init__(self, target: Path) -> None:
        target = Path(os.path.realpath(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = target.with_name(f".{target.name}{UNFINISHED_SUFFIX}")
        self.file: BinaryIO = _open_locked(self._unfinished)
        self._renamed = False

    def save(self, target: Path, *, overwrite: bool, originals: Collection[FileId] = ()) -> None:
        """Give the file its name, once everything is written. A symbolic link is followed.

        Raises InvalidInput where `target` exists and `overwrite` is not given, or where it is one of `originals`.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        if file_id(target) in originals:
            raise InvalidInput("OUT", f"{target} is a source, and a source is never written over")
        if not overwrite:
            try:
                os.link(self._unfinished, target)  # unlike a rename, it fails where the name is taken
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
        if not self._renamed:  # once it is, another run may have taken the hidden name
            self._unfinished.unlink(missing_ok=True)
        self.file.close()


def file_id(path: Path) -> FileId | None:
    """The same for every path, symbolic link and hard link to one file; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_locked(path: Path) -> BinaryIO:
    """An empty file that only this process writes; one that a killed run left behind is used again."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(f"another run is writing it ({path} is locked)") from error
            except OSError:  # a file system without locks: two runs at once are then the user's care
                pass
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) == file_id(path):
                if status.st_nlink == 1:
                    file.truncate()
                    return file
                # A run was killed between giving an answer its name and removing this one: truncating would empty it.
                path.unlink()
            file.close()  # ours, or another run's that ended between our open and our lock, is gone: once more
        except BaseException:
            file.close()
            raise
