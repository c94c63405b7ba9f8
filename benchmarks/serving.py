"""Opens what served.py and latency.py measure: an engine in this process, a server in its own, a bundle of RRDB-23."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import click

from runtime import backends
from runtime.backends.base import Engine
from runtime.bundle import Bundle, load
from runtime.tensors import Precision
from server.launch import Launched, launched

DEEP_TILE = 192
FLAGS: Mapping[Precision, str] = {"float32": "--fp32", "float16": "--fp16", "bfloat16": "--bf16"}


@contextmanager
def open_engine(bundle: Bundle, backend: str) -> Iterator[Engine]:
    """A context manager: the engine that a server would choose for `bundle`, warmed up. backend: a name, or "auto"."""
    engine, _ = backends.open_engine(bundle, backend)
    with closing(engine):
        engine.warm_up()
        yield engine


@contextmanager
def running_server(folder: Path, backend: str) -> Iterator[tuple[Launched, Callable[[], float]]]:
    """A context manager: a server of the bundles in `folder`, and a function that gives the mean batch size.

    The function gives NaN until the block has ended, when the server has logged it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log, mean_batch = Path(scratch) / "server.log", float("nan")
        with launched(folder, log=log, flags=("--backend", backend)) as server:
            yield server, lambda: mean_batch
        for line in log.read_text(encoding="utf-8").splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("event") == "stopped":
                mean_batch = record["mean_batch"]


def deep_bundle(path: Path, *, halo: int) -> Bundle:
    """The bundle of RRDB-23 at `path`, built if it is missing or has another halo. halo: in pixels, the compact model's."""
    return random_bundle(path, "esrgan", {"blocks": "23"}, "bfloat16", tile=DEEP_TILE, halo=halo)


def random_bundle(
    path: Path, model: str, settings: Mapping[str, str], precision: Precision, *, tile: int, halo: int
) -> Bundle:
    """The bundle at `path` of a generator with random weights, built if it is missing or has another tile or halo, in pixels.

    Speed does not depend on the weights. settings: as for `--set`.
    """
    if (path / "manifest.json").exists():
        bundle = load(path)
        if (bundle.manifest.tile_sizes, bundle.manifest.halo) == ((tile,), halo):
            return bundle
    click.echo(f"building {path} (minutes, once)")
    words = [*f"export.build --model {model} --weights random:0 --target openvino {FLAGS[precision]}".split()]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words += ["--tile", str(tile), "--halo", str(halo)]
    words += ["--output", str(path.parent), "--name", path.name]
    subprocess.run([sys.executable, "-m", *words], check=True)
    return load(path)
