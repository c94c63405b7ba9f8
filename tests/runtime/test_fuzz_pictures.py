"""Thousands of damaged files through the decoder, in a process of its own: each is read or refused with InvalidInput."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidInput
from runtime.pictures.reading import open_picture
from tests.runtime.mutations import MAX_PIXELS, MEMORY_BYTES, mutated, read_all, seeds

ROOT = Path(__file__).parents[2]
# A damaged file may cost so many times the processor time of the costliest good picture of as many pixels.
MOST_TIMES_COSTLIEST = 10


def read_mutated(count: int, seed: int) -> dict[str, Any]:
    """What became of the files. A crash, an exception of another kind or too much memory fails here."""
    command = [sys.executable, "-m", "tests.runtime.mutations", str(count), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert report["errors"] == []
    assert report["read"] + report["refused"] == count
    assert report["slowest_s"] < MOST_TIMES_COSTLIEST * report["costliest_s"], (
        f"file {report['slowest']} of seed {seed} took {report['slowest_s']:.1f} s"
    )
    assert report["grown_bytes"] < MEMORY_BYTES
    return report


def test_a_thousand_damaged_files_are_read_or_refused() -> None:
    report = read_mutated(1_000, seed=0)
    # Damage that does nothing, or only breaks files, tests little.
    assert min(report["read"], report["refused"]) > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_damaged_files_are_read_or_refused(seed: int) -> None:
    read_mutated(5_000, seed)


def test_a_file_on_the_disk_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    originals = list(seeds().values())
    for number in range(200):
        data = mutated(number, 3, originals)
        (tmp_path / "file").write_bytes(data)
        if data:
            assert read_all(tmp_path / "file") == read_all(data)


@pytest.mark.parametrize("kind", seeds())
def test_every_beginning_of_a_file_is_read_or_refused(kind: str) -> None:
    file = seeds()[kind]
    assert read_all(file)
    for length in range(0, len(file), max(1, len(file) // 40)):
        read_all(file[:length])


def test_no_picture_larger_than_the_limit_gets_as_far_as_its_pixels() -> None:
    for kind, file in seeds().items():
        with pytest.raises(InvalidInput, match="41×37"):
            open_picture(file, max_pixels=41 * 37 - 1)
        assert open_picture(file, max_pixels=MAX_PIXELS).header.pixels == 41 * 37, kind
