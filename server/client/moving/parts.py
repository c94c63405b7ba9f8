"""Parts: the folder in which the finished frames of one answer wait until all are there.

It lies beside the answer, as .NAME.frames, so that a run that was interrupted, killed or refused a frame continues after
the last one. It is used only if it was made of the same source with the same model and options; else it is emptied.
The lock of the answer's file (server/client/answer_file.py) keeps two runs out of one folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

MADE_OF = "made-of.json"


class Parts:
    """The folder of parts of the answer `target`. settings: everything that they depend on, as JSON can hold it."""

    def __init__(self, target: Path, settings: Mapping[str, object]) -> None:
        target = Path(os.path.realpath(target))
        self.folder = target.with_name(f".{target.name}.frames")
        made_of = json.dumps(settings, sort_keys=True, indent=1)
        if self.folder.exists() and self._made_of() != made_of:
            self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.writing(MADE_OF) as unfinished:
            unfinished.write_text(made_of, encoding="utf-8")

    def names(self) -> list[str]:
        """The finished parts, sorted by name."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix not in (".json", ".part"))

    def writing(self, name: str) -> _Writing:
        """Context manager for a new part: yields the path to write to, which gets its name at the end of the block."""
        return _Writing(self.folder / name)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)

    def _made_of(self) -> str | None:
        try:
            return (self.folder / MADE_OF).read_text(encoding="utf-8")
        except OSError:
            return None


class _Writing:
    def __init__(self, path: Path) -> None:
        self._path, self._unfinished = path, path.with_name(f"{path.name}.part")

    def __enter__(self) -> Path:
        return self._unfinished

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._unfinished.replace(self._path)
        else:
            self._unfinished.unlink(missing_ok=True)
