"""Many pictures through one client, with a bar for each on a terminal and a line for each elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.errors import GanforgeError
from server import formats
from server.client import Client, Upscaled

READABLE = {*formats.SUFFIXES, ".gif", ".avif", ".heic", ".jxl", ".bmp"}
ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


@dataclass(frozen=True)
class Errand:
    """One picture to fetch and where its answer goes: a file, or a folder and a name that still lacks its ending."""

    source: Path
    target: Path
    in_folder: bool

    @classmethod
    def list(cls, source: Path, target: Path) -> list[Errand]:
        """One for a file; one a picture of a folder, by name."""
        if source.is_file():
            if target.is_dir() or not target.suffix:
                return [cls(source, target / source.stem, in_folder=True)]
            return [cls(source, target, in_folder=False)]
        found = sorted(
            path for path in source.iterdir() if path.is_file() and path.suffix.lower() in READABLE
        )
        if not found:
            raise FileNotFoundError(f"{source} holds no picture ({', '.join(sorted(READABLE))})")
        # a.png and a.gif become a-png and a-gif; so does a picture whose own name is one of these.
        claimed = Counter(name for path in found for name in (path.stem, path.name.replace(".", "-")))
        names = (path.stem if claimed[path.stem] == 1 else path.name.replace(".", "-") for path in found)
        return [cls(path, target / name, in_folder=True) for path, name in zip(found, names, strict=True)]

    def fetch(self, client: Client, options: Mapping[str, Any]) -> tuple[Upscaled, Path]:
        """The answer, and the file that it is in. It appears there whole or not at all."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        part = self.target.with_name(f".{self.target.name}.part")
        try:
            with part.open("wb") as file:
                answer = client.upscale(self.source, into=file, **options)
            ending = ENDINGS[answer.format]
            path = self.target.with_name(self.target.name + ending) if self.in_folder else self.target
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return answer, path


def run(client: Client, errands: Sequence[Errand], options: Mapping[str, Any], jobs: int) -> int:
    """Upscale every picture, `jobs` at once; the number of those that failed, each told in a sentence."""
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles"),
        TimeElapsedColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
    )

    def one(errand: Errand) -> bool:
        bar = bars.add_task(errand.source.name, total=None)
        start_s = time.monotonic()
        try:
            answer, path = errand.fetch(client, {**options, "on_progress": _mover(bars, bar)})
        except (GanforgeError, OSError) as error:
            click.echo(f"{errand.source}: {error}", err=True)
            return False
        finally:
            bars.remove_task(bar)
        click.echo(
            f"{errand.source} → {path} {answer.width}×{answer.height} in {time.monotonic() - start_s:.1f} s"
        )
        return True

    with bars, ThreadPoolExecutor(jobs) as pool:
        try:
            return sum(not done for done in pool.map(one, errands))
        except BaseException:  # Ctrl-C: end the calls under way, so that the server drops their work
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()
            raise


def _mover(bars: Progress, bar: Any) -> Callable[[int, int], None]:
    return lambda done, total: bars.update(bar, completed=done, total=total)
