"""Parts: the folder in which the finished frames of one answer wait until all are there.

It lies beside the answer, as .NAME.frames, so that a run that was interrupted, killed or refused a frame continues after
the last one. It is used only if it was made of the same source with the same model and options; else it is emptied.
Each part has the checksum of its content in its name: one that a power failure or a full disk cut short is made again.
The lock of the answer's file (server/client/answer_file.py) keeps two runs out of one folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import InvalidInput

MADE_OF = "made-of.json"
UNFINISHED = ".part"
PART = re.compile(r"(.+)\.([0-9a-f]{8})")  # name of the part, CRC-32 of its content


class Parts:
    """The folder of parts of the answer `target`. settings: everything that they depend on, as JSON can hold it.

    Raises InvalidInput if there is something else in its place.
    """

    def __init__(self, target: Path, settings: Mapping[str, object]) -> None:
        target = Path(os.path.realpath(target))
        self.folder = target.with_name(f".{target.name}.frames")
        made_of = json.dumps(settings, sort_keys=True, indent=1).encode()
        if os.path.lexists(self.folder):
            self._check_is_ours()
            if self._made_of() != made_of:
                self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / (MADE_OF + UNFINISHED)
        unfinished.write_bytes(made_of)
        unfinished.replace(self.folder / MADE_OF)
        self._paths = self._intact()

    def names(self) -> list[str]:
        """The finished parts, sorted by name."""
        return sorted(self._paths)

    def path(self, name: str) -> Path:
        """The file of a finished part."""
        return self._paths[name]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Context manager for a new part: yields the path to write to, which gets its name at the end of the block."""
        unfinished = self.folder / (name + UNFINISHED)
        try:
            yield unfinished
            self.keep(unfinished, name)
        finally:
            unfinished.unlink(missing_ok=True)

    def keep(self, unfinished: Path, name: str) -> None:
        """Make the file `unfinished` the part `name`."""
        self._paths[name] = unfinished.replace(self.folder / f"{name}.{checksum(unfinished):08x}")

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)

    def _intact(self) -> dict[str, Path]:
        """The files of the finished parts, by name. Those that are damaged are deleted."""
        paths = {}
        for path in self.folder.iterdir():
            if match := PART.fullmatch(path.name):
                if checksum(path) == int(match[2], 16):
                    paths[match[1]] = path
                else:
                    path.unlink()
        return paths

    def _check_is_ours(self) -> None:
        real = self.folder.is_dir() and not self.folder.is_symlink()
        if not real or not (
            (self.folder / MADE_OF).is_file()
            or all(path.suffix == UNFINISHED for path in self.folder.iterdir())
        ):
            raise InvalidInput(
                "OUT",
                f"{self.folder} is not what an interrupted run left, and finished frames would go there; "
                "move it, or name another OUT",
            )

    def _made_of(self) -> bytes | None:
        try:
            return (self.folder / MADE_OF).read_bytes()
        except OSError:
            return None


def checksum(path: Path) -> int:
    """The CRC-32 of a file's content."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
