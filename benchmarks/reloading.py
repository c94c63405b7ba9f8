"""`python -m benchmarks.reloading`: replaces a model 100 times under load, and counts the requests that notice.

Two versions of one model, the second with other weights, take turns in the folder of a server, which reloads each time.
Clients upscale without a pause. Each answer must be what the version computes that it names; none may fail. Written to
results/reloading.json: failures, seconds of a swap, latency with and without swaps, and memory from swap to swap.
The exit status is 1 if a request failed, was answered by the wrong version, or memory grew.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
import psutil
from onnx import numpy_helper
from rich.progress import Progress

from benchmarks import machine
from runtime import bundle as bundles_on_disk
from runtime import pixels
from runtime.bundle import GRAPH, Bundle, Writer
from runtime.tensors import Array
from server.client import Client
from server.launch import launched

RESULTS = Path(__file__).parent / "results"
SIDE_PX = 32
QUIET_S = 10.0
# Batches of other sizes round differently; the two versions differ by far more.
MOST_LEVELS = 2
# Of the server's memory, from the fifth swap to the last: the allocator's noise.
MOST_GROWTH_MIB = 64.0


def write_versions(source: Bundle, folder: Path) -> list[Bundle]:
    """The bundle and one like it with the last convolution's weights halved, in folders of their own."""
    graph = onnx.load(source.onnx)
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name in convolutions[-1].input[1:]:
        halved = numpy_helper.to_array(weights[name]) / 2
        weights[name].CopyFrom(numpy_helper.from_array(halved.astype(halved.dtype), name))
    versions = []
    for number, content in enumerate((source.onnx.read_bytes(), graph.SerializeToString())):
        with Writer(folder / str(number), source.manifest.name) as writer:
            (writer.path / GRAPH).write_bytes(content)
            versions.append(writer.commit(replace(source.manifest, engines=())))
    return versions


def put(version: Bundle, folder: Path) -> None:
    """Put a version in place of the one that is served."""
    with Writer(folder, version.manifest.name) as writer:
        (writer.path / GRAPH).write_bytes(version.onnx.read_bytes())
        writer.commit(version.manifest)


class Load:
    """Clients that upscale one picture without a pause, and what came of it."""

    def __init__(self, address: str, expected: dict[str, Array], picture: bytes) -> None:
        self._address, self._expected, self._picture = address, expected, picture
        self._over = threading.Event()
        self.failures: list[str] = []
        self.answers = dict.fromkeys(expected, 0)
        self.ms: list[float] = []

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Context manager: the clients call inside the block."""
        self._over.clear()
        with ThreadPoolExecutor(clients) as pool:
            calls = [pool.submit(self._calls) for _ in range(clients)]
            try:
                yield
            finally:
                self._over.set()
            for each in calls:
                each.result()

    def take_ms(self) -> list[float]:
        """The latencies since the last time."""
        taken, self.ms = self.ms, []
        return taken

    def _calls(self) -> None:
        with Client(self._address, retry=False) as client:
            while not self._over.is_set():
                started_s = time.perf_counter()
                try:
                    self._check(client)
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self.ms.append((time.perf_counter() - started_s) * 1e3)

    def _check(self, client: Client) -> None:
        answer = client.upscale(self._picture, format="png")
        version = answer.timing.model_version
        apart = np.abs(decoded(answer.image).astype(int) - self._expected[version]).max()
        if apart > MOST_LEVELS:
            raise AssertionError(f"{apart} levels from what version {version} computes")
        self.answers[version] += 1


def decoded(image: bytes) -> Array:
    """[H, W, 3] uint8."""
    return pixels.decode(image, max_pixels=2**24)


def percentiles(ms: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    p50, p99 = np.percentile(ms, (50, 99))
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1), "max_ms": round(max(ms), 1)}


def measure(source: Bundle, swaps: int, clients: int, quiet_s: float = QUIET_S) -> dict[str, object]:
    """The report of one run, without the machine. quiet_s: of load before the first swap."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    picture = pixels.encode(noise, "png")
    with tempfile.TemporaryDirectory() as name, Progress() as bar:
        task = bar.add_task("swapping", total=swaps)
        folder = Path(name)
        versions = write_versions(source, folder / "versions")
        put(versions[0], folder / "bundles")
        with (
            launched(folder / "bundles", log=folder / "log") as server,
            Client(server.address, retry=False) as client,
        ):
            process = psutil.Process(server.pid)
            expected: dict[str, Array] = {}
            for version in (versions[1], versions[0]):
                put(version, folder / "bundles")
                client.reload_models()
                expected[version.version] = decoded(client.upscale(picture, format="png").image)
            first, second = expected.values()
            assert np.abs(first.astype(int) - second).max() > 10 * MOST_LEVELS
            load = Load(server.address, expected, picture)
            seconds, rss_mib = [], []
            with load.running(clients):
                time.sleep(quiet_s)
                quiet_ms = load.take_ms()
                for number in range(swaps):
                    put(versions[(number + 1) % 2], folder / "bundles")
                    started_s = time.perf_counter()
                    done = client.reload_models()
                    assert len(done.replaced) == 1, done
                    seconds.append(time.perf_counter() - started_s)
                    rss_mib.append(process.memory_info().rss / machine.MIB)
                    bar.update(task, advance=1)
                swapping_ms = load.take_ms()
    level = rss_mib[min(4, len(rss_mib) - 1) :]
    return {
        "model": source.manifest.name,
        "swaps": swaps,
        "clients": clients,
        "answers": sum(load.answers.values()),
        "answers_by_version": load.answers,
        "failures": len(load.failures),
        "first_failures": load.failures[:5],
        "swap_s_median": round(statistics.median(seconds), 2),
        "swap_s_max": round(max(seconds), 2),
        "without_swaps": percentiles(quiet_ms),
        "while_swapping": percentiles(swapping_ms),
        "rss_growth_mib": round(statistics.mean(level[-5:]) - statistics.mean(level[:5]), 1),
        "rss_mib": [round(each, 1) for each in rss_mib],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--bundle",
    type=click.Path(exists=True, path_type=Path),
    default="bundles/esrgan-x4",
    show_default=True,
    help="Bundle of an upscaler.",
)
@click.option("--swaps", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--clients", type=click.IntRange(min=1), default=4, show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=RESULTS / "reloading.json", show_default=True
)
def main(bundle: Path, swaps: int, clients: int, output: Path) -> None:
    """Replace an upscaler under load, and check that no request notices."""
    host = machine.describe()
    report = {"machine": host, **measure(bundles_on_disk.load(bundle), swaps, clients)}
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(
        json.dumps({key: report[key] for key in report if key not in ("machine", "rss_mib")}, indent=1)
    )
    growth_mib = float(str(report["rss_growth_mib"]))
    if report["failures"] or growth_mib > MOST_GROWTH_MIB:
        sys.exit(f"{report['failures']} requests failed, memory grew by {growth_mib} MiB")


if __name__ == "__main__":
    main()
