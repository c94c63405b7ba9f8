"""The budget of memory, by real clients against a real process: what would need more than all of it is refused."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips

from runtime import pixels
from runtime.errors import InvalidInput
from server.client import Client
from server.launch import Launched, launched
from server.limits import Limits
from tests.server.bundles import write_upscaler
from tests.server.conftest import FakeUpscaler, Serve, png

MOST_ADDRESS_SPACE_BYTES = 8 * 2**30
MOST_RESIDENT_MIB = 2048


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A server with default limits that dies if it needs more than 8 GiB of addresses."""
    folder = tmp_path_factory.mktemp("bundles")
    write_upscaler(folder)
    with launched(folder, log=folder / "server.log") as server:
        resource.prlimit(server.pid, resource.RLIMIT_AS, (MOST_ADDRESS_SPACE_BYTES,) * 2)
        yield server


def resident_mib(server: Launched) -> float:
    """The most memory that the process has held."""
    value = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert value
    return int(value[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's memory from /proc")
def test_a_small_file_whose_answer_needs_more_than_all_memory_is_refused(server: Launched) -> None:
    """64×64 px of floats, 66 kB: at 512 px per px and without compression, the answer is 16 GiB."""
    pixels = np.full((64, 64, 4), 0.5, np.float32)
    file = pyvips.Image.new_from_array(pixels).copy(interpretation="scrgb").tiffsave_buffer()
    with Client(server.address, timeout_s=60, retry=False) as client:
        with pytest.raises(
            InvalidInput, match=r"needs up to \d+ bytes.* --max-(active|disk)-bytes"
        ) as refused:
            client.upscale(file, outscale=512, format="tiff", compression=0)
        assert refused.value.field == "outscale"
        assert client.upscale(png(8, 8)).width == 32
    assert resident_mib(server) < MOST_RESIDENT_MIB


def test_a_disk_budget_without_room_for_answers_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"--max-disk-bytes: got 5, expected more than the 5 of --max-upl"):
        Limits(max_disk_bytes=5, max_uploads_bytes=5)
    assert Limits(max_disk_bytes=6, max_uploads_bytes=5).max_disk_bytes == 6


def test_answers_that_would_fill_the_disk_are_refused(serve: Serve) -> None:
    """Large answers are temporary files: one may have three quarters of what uploads leave of --max-disk-bytes."""
    limits = Limits(max_disk_bytes=2 * 2**20, max_uploads_bytes=2**20)
    served = serve(FakeUpscaler(), limits=limits)
    with pytest.raises(
        InvalidInput, match=r"bytes of disk, one request may have 786432 \(75% of --max-disk-b"
    ) as refused:
        served.client.upscale(pixels.encode(np.zeros((800, 700, 3), np.uint8), "png"), timeout_s=30)
    assert refused.value.field == "image"
    assert served.admission.refusals == {"disk": 1}
    assert served.client.upscale(png(8, 8)).width == 32
