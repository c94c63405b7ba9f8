"""Files written whole or not at all, and their hashes. Every room writes its results through `atomic_write`."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of a file or folder that is not whole yet.
UNFINISHED_SUFFIX = ".part"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write `path` whole or not at all: the block gets the path of a file beside it, which takes its place at the end.

    The file beside it exists, is empty, hidden, and nobody else's; whatever the block raises removes it and leaves
    `path` as it was. The result is on the disk before it takes its name, so that a power cut leaves no empty file.
    An existing file keeps its permissions, a new one gets the usual ones.

        with atomic_write(path) as unfinished:
            unfinished.write_text(text)
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED_SUFFIX}")
    unfinished.touch(exist_ok=False)
    try:
        if path.exists():
            unfinished.chmod(path.stat().st_mode & 0o777)
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`atomic_write` of UTF-8 text."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The hexadecimal digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
