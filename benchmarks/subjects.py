"""What is measured: an engine in this process, a server in its own, and the deep model that nobody trained."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from runtime import backends, bundle
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from server.launch import Launched, launched

DEEP_TILE = 192


@contextmanager
def opened(one: Bundle, backend: str) -> Iterator[Engine]:
    """The engine that the server takes, in this process, warm."""
    engine, _ = backends.open_engine(one, backend)
    with closing(engine):
        engine.warm_up()
        yield engine


@contextmanager
def serving(folder: Path, backend: str) -> Iterator[tuple[Launched, Callable[[], float]]]:
    """A server of the folder, and its mean batch, which is known once the block has ended."""
    with tempfile.TemporaryDirectory() as scratch:
        log, found = Path(scratch) / "server.log", [float("nan")]
        with launched(folder, log=log, flags=("--backend", backend)) as server:
            yield server, lambda: found[0]
        records = [
            json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{")
        ]
        found += [record["mean_batch"] for record in records if record.get("event") == "stopped"]
        found.reverse()


def deep_bundle(path: Path, *, halo: int) -> Bundle:
    """RRDB-23 with random weights, and the compact model's halo: speed does not depend on what it learned."""
    if not (path / "manifest.json").exists() or bundle.load(path).manifest.halo != halo:
        click.echo(f"building {path} (minutes, once)")
        command = "export.build --model esrgan --set blocks=23 --weights random:0 --bf16 --target openvino"
        made = [*command.split(), "--tile", str(DEEP_TILE), "--halo", str(halo)]
        where = ["--output", str(path.parent), "--name", path.name]
        subprocess.run([sys.executable, "-m", *made, *where], check=True)
    return bundle.load(path)
