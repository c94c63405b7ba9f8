"""A poster through a real server: its memory is bounded by the size of bands, not by the picture."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips

from runtime.pictures.reading import open_picture
from server.client import Client
from tests.server.bundles import write_enlarger

WIDTH, HEIGHT, SCALE = 8000, 6000, 4
MOST_MIB = 1024
# So many strips of so many rows are compared with what they should be.
SAMPLED, ROWS = 16, 64


@pytest.fixture(scope="module")
def poster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8,000 × 6,000 px of ramps, squares and noise: 140 MB as a PNG."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    squares = (x // 64 + y // 64) % 2 * 200
    picture = np.stack([x * 247 // WIDTH, y * 247 // HEIGHT, squares], 2).astype(np.uint8)
    picture += np.random.default_rng(0).integers(0, 8, picture.shape, np.uint8)
    path = tmp_path_factory.mktemp("poster") / "poster.png"
    pyvips.Image.new_from_array(picture).write_to_file(str(path), compression=1)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """A server's process and address; its only model makes sixteen pixels of each."""
    folder = tmp_path_factory.mktemp("bundles")
    write_enlarger(folder)
    command = [sys.executable, "-m", "server", "--bundles", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        ready = (re.search(r"serving on (\S+)", line) for line in process.stdout)
        yield process.pid, next(line[1] for line in ready if line)
        process.send_signal(signal.SIGTERM)


def memory_mib(pid: int, which: str) -> float:
    """VmRSS: what the process holds now; VmHWM: the most since it was last cleared."""
    value = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert value
    return int(value[1]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads a process's memory from /proc")
def test_a_poster_takes_less_than_a_gibibyte(server: tuple[int, str], poster: Path, tmp_path: Path) -> None:
    pid, address = server
    idle_mib = memory_mib(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # begin VmHWM anew
    heard: list[tuple[int, int]] = []
    target = tmp_path / "large.png"
    with Client(address) as client, target.open("wb") as file:
        answer = client.upscale(poster, into=file, on_progress=lambda *progress: heard.append(progress))
    assert (answer.width, answer.height) == (WIDTH * SCALE, HEIGHT * SCALE)
    assert memory_mib(pid, "VmHWM") - idle_mib < MOST_MIB
    assert heard[-1] == (answer.timing.tiles, answer.timing.tiles)
    given, made = (
        open_picture(path, max_pixels=WIDTH * HEIGHT * SCALE**2).rows() for path in (poster, target)
    )
    for top in range(0, HEIGHT, HEIGHT // SAMPLED):
        bottom = min(top + ROWS, HEIGHT)
        enlarged = made.read(top * SCALE, bottom * SCALE)
        assert np.array_equal(
            enlarged, given.read(top, bottom).repeat(SCALE, axis=1).repeat(SCALE, axis=2)
        ), f"rows {top} to {bottom} of the picture are not what they were"
