"""Runs one picture through PictureWork in a process of its own and prints {"bound": …, "peak": …} in bytes.

tests/runtime/test_costs.py calls it, because the peak of a process says what a picture needed only if nothing ran before.
Arguments: the input file; the answer's format, `outscale` and options as JSON.
"""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import tempfile
import threading
from pathlib import Path

from runtime.jobs import run_inline
from runtime.picture_work import PictureWork
from runtime.pictures.formats import Encoding
from runtime.pictures.reading import open_picture
from runtime.tensors import Array
from server.machine.allocator import return_memory
from tests.server.conftest import SCALE, FakeUpscaler, png


def memory_bytes(which: str) -> int:
    """VmRSS: what the process holds now; VmHWM: the most since it was last cleared."""
    value = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert value
    return int(value[1]) * 1024


def process(source: bytes, wanted: dict[str, object]) -> PictureWork:
    """Run a picture as the server does: with two bands ahead of the one that is written."""
    opened = open_picture(source, max_pixels=2**28)
    outscale = float(str(wanted.pop("outscale", SCALE)))
    width, height = (max(1, round(side * outscale)) for side in (opened.header.width, opened.header.height))
    encoding = Encoding(**wanted)  # type: ignore[arg-type]
    work = PictureWork(
        FakeUpscaler(), opened, width=width, height=height, encoding=encoding, file_bytes=len(source)
    )
    if work.in_memory:
        work.decode(0)
        run_inline(work.job(0, None, lambda done, total: None))
        work.whole()
        return work
    bands: queue.Queue[Array] = queue.Queue(1)
    with tempfile.TemporaryFile() as file:
        writer = threading.Thread(target=lambda: work.write(bands.get, file))
        writer.start()
        for index in range(len(work.bands)):
            work.decode(index)
            run_inline(work.job(index, None, lambda done, total: None))
            if index:
                bands.put(work.finished(index - 1))
        bands.put(work.finished(len(work.bands) - 1))
        writer.join()
        assert os.fstat(file.fileno()).st_size <= work.cost.disk_bytes
    return work


def main() -> None:
    path, wanted = Path(sys.argv[1]), json.loads(sys.argv[2])
    return_memory()
    process(png(16, 16), {"format": wanted["format"]})  # what is loaded and set up once
    source = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # begin VmHWM anew
    before = memory_bytes("VmRSS") - len(source)
    work = process(source, wanted)
    print(json.dumps({"bound": work.cost.memory_bytes, "peak": memory_bytes("VmHWM") - before}))


if __name__ == "__main__":
    main()
