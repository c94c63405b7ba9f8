"""`python -m benchmarks.soak --minutes 60`: mixed clients for an hour, and whether memory, files and latency stay level.

Clients of every kind call one server at once: thumbnails, photographs, posters in pieces, samples, wrong input, callers that
cancel, that give too little time, that read nothing, and that vanish. Written to results/soak.json and soak.png: the
server's memory, open files and threads over time, and the latency of the thumbnails. The exit status is 1 if one of the
bounds below is broken.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import grpc
import numpy as np
import psutil
from rich.progress import Progress

from benchmarks import machine, plots
from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime import pixels
from runtime.errors import GanforgeError
from server.client import Client
from server.launch import launched

RESULTS = Path(__file__).parent / "results"
SAMPLE_EVERY_S = 10.0
WARM_UP_SHARE = 1 / 6
MOST_MIB_PER_MINUTE = 1.0
MOST_FILES_MORE = 8
# The 99th percentile of the thumbnails in the last third of the time, over that of the first third after warm-up.
MOST_P99_RATIO = 1.5
Kind = Callable[["Caller"], None]


@dataclass(frozen=True)
class Sample:
    """The server at one moment. p50_ms, p99_ms: of the thumbnails since the last sample; None without any."""

    minute: float
    rss_mib: float
    files: int
    threads: int
    thumbnails: int
    p50_ms: float | None
    p99_ms: float | None


class Caller:
    """One client: its connection, its own random numbers and the pictures it sends."""

    def __init__(self, address: str, name: str, record: Callable[[str, str, float], None]) -> None:
        self.address = address
        self.random = random.Random(name)
        self.client = Client(address, timeout_s=120.0, retry=False)
        self._record = record

    def picture(self, width: int, height: int) -> bytes:
        """A PNG of smooth noise, another one each time."""
        small = np.random.default_rng(self.random.getrandbits(32)).integers(0, 256, (4, 4, 3), np.uint8)
        return pixels.encode(
            small.repeat(-(-height // 4), 0)[:height].repeat(-(-width // 4), 1)[:, :width], "png"
        )

    def run(self, name: str, kind: Kind) -> None:
        """Make one call of that kind and count how it ended."""
        started_s = time.perf_counter()
        try:
            kind(self)
            ending = "ok"
        except GanforgeError as error:
            ending = type(error).__name__
        except grpc.RpcError as error:
            ending = error.code().name
        self._record(name, ending, time.perf_counter() - started_s)


def thumbnail(caller: Caller) -> None:
    caller.client.upscale(caller.picture(32, 32))


def photograph(caller: Caller) -> None:
    side = caller.random.choice((97, 128, 200))
    caller.client.upscale(
        caller.picture(side, side), format=caller.random.choice(("png", "jpeg", "webp", "tiff"))
    )


def poster(caller: Caller) -> None:
    with tempfile.TemporaryFile() as into:
        caller.client.upscale(caller.picture(500, 350), into=into, outscale=caller.random.choice((2.0, 4.0)))


def samples(caller: Caller) -> None:
    caller.client.generate(caller.random.choice((1, 16, 64)), model="dcgan")


def wrong_input(caller: Caller) -> None:
    wrong = (b"", b"not a picture", caller.picture(64, 64)[:-100])
    caller.client.upscale(caller.random.choice(wrong))


def too_little_time(caller: Caller) -> None:
    caller.client.upscale(caller.picture(128, 128), timeout_s=caller.random.uniform(0.001, 0.2))


def cancelled(caller: Caller) -> None:
    with grpc.insecure_channel(caller.address) as channel:
        stub = pb_grpc.ImageGeneratorStub(channel)
        call = stub.Upscale.future(pb.UpscaleRequest(image=caller.picture(200, 200)))
        time.sleep(caller.random.uniform(0, 0.3))
        call.cancel()


def reads_nothing(caller: Caller) -> None:
    with grpc.insecure_channel(caller.address) as channel:
        header = pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
        data = pb.UpscaleStreamRequest(data=caller.picture(200, 200))
        call = pb_grpc.ImageGeneratorStub(channel).UpscaleStream(iter((header, data)))
        time.sleep(caller.random.uniform(0, 3))
        call.cancel()


def vanishes(caller: Caller) -> None:
    host, _, port = caller.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + caller.random.randbytes(caller.random.randrange(200))
        )


def models(caller: Caller) -> None:
    caller.client.models()


# Name → what it does, how many clients do so, and the seconds that each waits between calls.
KINDS: dict[str, tuple[Kind, int, float]] = {
    "thumbnail": (thumbnail, 1, 0.2),
    "photograph": (photograph, 2, 0.5),
    "poster": (poster, 1, 2.0),
    "samples": (samples, 1, 1.0),
    "wrong input": (wrong_input, 1, 0.5),
    "too little time": (too_little_time, 1, 0.5),
    "cancelled": (cancelled, 1, 0.7),
    "reads nothing": (reads_nothing, 1, 1.0),
    "vanishes": (vanishes, 1, 0.5),
    "models": (models, 1, 1.0),
}


class Soak:
    """Runs the clients beside a server and samples it."""

    def __init__(self, address: str, pid: int) -> None:
        self._address, self._process = address, psutil.Process(pid)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thumbnails_s: list[float] = []
        self.endings: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
        self.samples: list[Sample] = []

    def run(self, minutes: float, progress: Callable[[float], None]) -> None:
        """Call and sample for so many minutes."""
        threads = [
            threading.Thread(target=self._calls, args=(name, kind, pause_s, number), name=f"{name}-{number}")
            for name, (kind, clients, pause_s) in KINDS.items()
            for number in range(clients)
        ]
        started_s = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            while (elapsed_s := time.monotonic() - started_s) < minutes * 60:
                time.sleep(SAMPLE_EVERY_S)
                self.samples.append(self._sample((elapsed_s + SAMPLE_EVERY_S) / 60))
                progress(self.samples[-1].minute)
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _calls(self, name: str, kind: Kind, pause_s: float, number: int) -> None:
        caller = Caller(self._address, f"{name} {number}", self._count)
        with caller.client:
            while not self._over.wait(caller.random.uniform(0, 2 * pause_s)):
                caller.run(name, kind)

    def _count(self, name: str, ending: str, seconds: float) -> None:
        with self._lock:
            self.endings[name][ending] += 1
            if name == "thumbnail" and ending == "ok":
                self._thumbnails_s.append(seconds)

    def _sample(self, minute: float) -> Sample:
        with self._lock:
            spent_ms, self._thumbnails_s = [seconds * 1e3 for seconds in self._thumbnails_s], []
        p50_ms, p99_ms = (float(p) for p in np.percentile(spent_ms, (50, 99))) if spent_ms else (None, None)
        with self._process.oneshot():
            rss_mib = self._process.memory_info().rss / machine.MIB
            return Sample(
                round(minute, 3),
                round(rss_mib, 2),
                self._process.num_fds(),
                self._process.num_threads(),
                len(spent_ms),
                p50_ms and round(p50_ms, 2),
                p99_ms and round(p99_ms, 2),
            )


def verdict(samples: list[Sample]) -> dict[str, float]:
    """Slope of memory in MiB a minute, files gained, and the ratio of late to early p99, all after warm-up."""
    level = samples[int(len(samples) * WARM_UP_SHARE) :]
    third = max(len(level) // 3, 1)
    early, late = level[:third], level[-third:]
    slope = np.polyfit([sample.minute for sample in level], [sample.rss_mib for sample in level], 1)[0]
    p99_early, p99_late = (
        float(np.median([sample.p99_ms for sample in part if sample.p99_ms is not None]))
        for part in (early, late)
    )
    return {
        "mib_per_minute": round(float(slope), 3),
        "files_more": float(np.median([s.files for s in late]) - np.median([s.files for s in early])),
        "p99_early_ms": round(p99_early, 1),
        "p99_late_ms": round(p99_late, 1),
        "p99_ratio": round(p99_late / p99_early, 3),
    }


def broken(found: dict[str, float]) -> list[str]:
    """What is beyond its bound, in words."""
    bounds = {
        "mib_per_minute": MOST_MIB_PER_MINUTE,
        "files_more": MOST_FILES_MORE,
        "p99_ratio": MOST_P99_RATIO,
    }
    return [
        f"{name} is {found[name]:g}, expected at most {most:g}"
        for name, most in bounds.items()
        if found[name] > most
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--bundles", type=click.Path(exists=True, path_type=Path), default="bundles", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=1), default=60.0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "soak.json", show_default=True)
def main(bundles: Path, minutes: float, output: Path) -> None:
    """Serve `bundles` under mixed load, and check that nothing grows."""
    host = machine.describe()
    with (
        tempfile.TemporaryDirectory() as folder,
        launched(bundles, log=Path(folder) / "server.log") as server,
    ):
        soak = Soak(server.address, server.pid)
        with Progress() as bar:
            task = bar.add_task("soaking", total=minutes)
            soak.run(minutes, lambda minute: bar.update(task, completed=minute))
        faults = server.errors()
    found = verdict(soak.samples)
    report = {
        "machine": host,
        "minutes": minutes,
        **found,
        "server_errors": len(faults),
        "endings": {name: dict(counts.most_common()) for name, counts in soak.endings.items()},
        "samples": [asdict(sample) for sample in soak.samples],
    }
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plots.soak(report, output.with_suffix(".png"))
    click.echo(
        json.dumps({key: report[key] for key in report if key not in ("samples", "machine")}, indent=1)
    )
    problems = broken(found) + (
        [f"the server logged {len(faults)} errors, first: {faults[0]}"] if faults else []
    )
    if problems:
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
