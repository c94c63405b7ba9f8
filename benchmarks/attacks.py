"""`python -m benchmarks.attacks`: what hostile clients cost the others: a thumbnail's latency and the server's memory.

For each attack, a server of its own with default limits is attacked for some seconds, while another client sends a 32×32
thumbnail again and again. The table has the thumbnails' latency alone and during the attack, the most memory, and what
the server logged as its own error. Written to results/attacks.json.

The attackers are a process of their own, and give way on the CPU: real ones have machines of their own, and what theirs
cost is no fault of the server.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import psutil
import pyvips
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.raw_http2 import PREFACE, SETTINGS, Connection, frame, message
from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime import pixels
from server.launch import launched
from tests.server.bundles import write_enlarger

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
PATH = "/ganforge.v1.ImageGenerator/"
MOST_RSS_MIB, MOST_P99_MS = 2048, 250
ENLARGER, VICTIMS_MODEL = "enlarger", "esrgan-x4"
VICTIM_PAUSE_S, VICTIM_TIMEOUT_S = 0.05, 60.0


@dataclass(frozen=True)
class Outcome:
    """What an attack did. p99_ms: of thumbnails; alone_ms: their median before. unanswered: thumbnails that failed."""

    attack: str
    alone_ms: float
    p50_ms: float
    p99_ms: float
    most_ms: float
    unanswered: int
    thumbnails: int
    rss_mib: float
    rss_after_mib: float
    alive: bool
    faults: int


class Attacker:
    """What an attack needs: the address, when to stop, and things that are closed at its end."""

    def __init__(self, address: str, over: threading.Event, until_end: ExitStack) -> None:
        self.address, self.over, self._until_end = address, over, until_end

    def stub(self) -> Any:
        """A stub over a connection of its own."""
        options = (*ANY_SIZE, ("grpc.use_local_subchannel_pool", 1))
        return pb_grpc.ImageGeneratorStub(
            self._until_end.enter_context(grpc.insecure_channel(self.address, options))
        )

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        options = (*ANY_SIZE, ("grpc.use_local_subchannel_pool", 1))
        return self._until_end.enter_context(grpc.insecure_channel(self.address, options))

    def raw(self) -> Connection:
        """A connection without gRPC."""
        return self._until_end.enter_context(Connection(self.address))

    def side_by_side(self, *calls: Callable[[], object]) -> None:
        """Run all at once, errors ignored, until each has ended or the attack is over."""
        pool = ThreadPoolExecutor(max(len(calls), 1))
        futures = [pool.submit(_quietly, call) for call in calls]
        while not self.over.wait(0.05) and not all(future.done() for future in futures):
            pass
        pool.shutdown(wait=False, cancel_futures=True)


def _quietly(call: Callable[[], object]) -> None:
    with suppress(grpc.RpcError, OSError, ValueError):
        call()


def attack_alone(attack: Callable[[Attacker], None], address: str, seconds: float, begun: Any) -> None:
    """The attackers' process. begun: an event, set before the attack."""
    os.nice(19)
    over = threading.Event()
    with ExitStack() as until_end:
        attacking = threading.Thread(target=attack, args=(Attacker(address, over, until_end),))
        begun.set()
        attacking.start()
        attacking.join(seconds)
        time.sleep(1.0)
        over.set()
        attacking.join()
    os._exit(0)  # without waiting for calls that nobody ends


def noise_png(width: int, height: int) -> bytes:
    return pixels.encode(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8), "png")


def huge_answer(attacker: Attacker) -> None:
    """A 64×64 float TIFF with alpha becomes 32768×32768 uncompressed: 17 GB from 66 kB."""
    image = pyvips.Image.new_from_array(np.random.default_rng(0).random((64, 64, 4), np.float32))
    file = image.copy(interpretation="scrgb").write_to_buffer(".tiff", compression="none")
    request = pb.UpscaleRequest(image=file, outscale=512, format=pb.IMAGE_FORMAT_TIFF, compression=0)
    attacker.side_by_side(lambda: attacker.stub().Upscale(request))


def empty_messages(attacker: Attacker) -> None:
    """62 MiB of empty latents, nine times, four at once: each parses to a gigabyte."""
    body = b"\x2a\x00" * (31 * MIB)
    calls = [attacker.channel().unary_unary(f"{PATH}Generate", None, None) for _ in range(4)]
    for _ in range(3):
        attacker.side_by_side(*(lambda call=call: call(body, timeout=60) for call in calls[:3]))


def very_long_picture(attacker: Attacker) -> None:
    """Eight PNGs of 67108864×1 pixels, to be reduced: 838,861 tiles each, from 65 kB."""
    file = pyvips.Image.black(2**26, 1).write_to_buffer(".png", compression=9)
    request = pb.UpscaleRequest(image=file, outscale=0.01)
    attacker.side_by_side(*(lambda: attacker.stub().Upscale(request, timeout=30) for _ in range(8)))


def cancelled_encodings(attacker: Attacker) -> None:
    """Answers of 64 million pixels that take long to encode, their callers gone after two seconds."""
    request = pb.UpscaleRequest(
        model=ENLARGER, image=noise_png(500, 500), outscale=16, format=pb.IMAGE_FORMAT_PNG, compression=9
    )
    attacker.side_by_side(*(lambda: attacker.stub().Upscale(request, timeout=2) for _ in range(4)))
    attacker.over.wait()


def many_samples(attacker: Attacker) -> None:
    """256 samples each from 16 callers: 4,096 small encodings."""
    request = pb.GenerateRequest(model="dcgan", count=256, seed=1)
    attacker.side_by_side(*(lambda: attacker.stub().Generate(request, timeout=60) for _ in range(16)))


def slow_readers(attacker: Attacker) -> None:
    """Twelve callers who never read their answers of some 50 MiB."""
    request = pb.UpscaleRequest(
        model=ENLARGER, image=noise_png(200, 200), outscale=20, format=pb.IMAGE_FORMAT_PNG, compression=0
    ).SerializeToString()

    def call() -> None:
        connection = attacker.raw()
        connection.send(connection.call(f"{PATH}Upscale"), message(request), end=True)
        attacker.over.wait()

    attacker.side_by_side(*([call] * 12))


def half_sent(attacker: Attacker) -> None:
    """Forty messages of 60 MiB that lack their last byte, on forty connections."""
    body = bytes(60 * MIB - 1)

    def call() -> None:
        connection = attacker.raw()
        connection.send(connection.call(f"{PATH}Upscale"), message(body, 60 * MIB), end=False)
        attacker.over.wait()

    attacker.side_by_side(*([call] * 40))


def idle_streams(attacker: Attacker) -> None:
    """300 streams of one connection that send empty pieces now and then."""

    def pieces() -> Iterator[pb.UpscaleStreamRequest]:
        yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
        while not attacker.over.wait(2):
            yield pb.UpscaleStreamRequest(data=b"")

    stub = attacker.stub()
    calls = [stub.UpscaleStream(pieces()) for _ in range(300)]
    attacker.over.wait()
    for call in calls:
        call.cancel()


def health_watches(attacker: Attacker) -> None:
    """2,000 watches of the server's health."""
    stub = health_pb2_grpc.HealthStub(attacker.channel())
    calls = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2000)]
    attacker.over.wait()
    for call in calls:
        call.cancel()


def idle_connections(attacker: Attacker) -> None:
    """1,200 connections that do nothing."""
    host, _, port = attacker.address.rpartition(":")
    sockets: list[socket.socket] = []
    with suppress(OSError):
        for _ in range(1200):
            sockets.append(socket.create_connection((host, int(port)), 5))
            sockets[-1].sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
    attacker.over.wait()
    for connection in sockets:
        connection.close()


ATTACKS: tuple[Callable[[Attacker], None], ...] = (
    huge_answer,
    empty_messages,
    very_long_picture,
    cancelled_encodings,
    many_samples,
    slow_readers,
    half_sent,
    idle_streams,
    health_watches,
    idle_connections,
)


class Victim:
    """Another client, who sends a thumbnail again and again."""

    def __init__(self, address: str) -> None:
        self._address, self._over = address, threading.Event()
        self.spent_ms: list[float] = []
        self.unanswered = 0
        self._thread = threading.Thread(target=self._calls)

    @contextmanager
    def calling(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _calls(self) -> None:
        request = pb.UpscaleRequest(image=noise_png(32, 32))
        while not self._over.wait(VICTIM_PAUSE_S):
            started_s = time.perf_counter()
            # A new connection each time, as new clients make.
            with grpc.insecure_channel(self._address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                try:
                    pb_grpc.ImageGeneratorStub(channel).Upscale(request, timeout=VICTIM_TIMEOUT_S)
                except grpc.RpcError:
                    self.unanswered += 1
            self.spent_ms.append((time.perf_counter() - started_s) * 1e3)


def attacked(bundles: Path, attack: Callable[[Attacker], None], seconds: float) -> Outcome:
    """Start a server, attack it for so long, and say what that did."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        log, served = Path(folder) / "server.log", Path(folder) / "bundles"
        shutil.copytree(bundles, served)
        # A network that costs nothing: codecs and answers are what is attacked.
        write_enlarger(served, ENLARGER)
        server = stack.enter_context(
            launched(served, log=log, flags=("--default", f"upscale={VICTIMS_MODEL}"))
        )
        before, during = Victim(server.address), Victim(server.address)
        with before.calling():
            time.sleep(2.0)
        process, most = psutil.Process(server.pid), [0.0]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                with suppress(psutil.Error):
                    most[0] = max(most[0], process.memory_info().rss / MIB)

        watcher = threading.Thread(target=watch)
        watcher.start()
        attackers = get_context("spawn")
        begun = attackers.Event()
        attacking = attackers.Process(target=attack_alone, args=(attack, server.address, seconds, begun))
        attacking.start()
        begun.wait()
        with during.calling():
            attacking.join()
        over.set()
        watcher.join()
        time.sleep(2.0)
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        after = process.memory_info().rss / MIB if alive else 0.0
        p50, p99 = np.percentile(during.spent_ms, (50, 99))
        return Outcome(
            attack=attack.__name__.replace("_", " "),
            alone_ms=round(float(np.median(before.spent_ms)), 1),
            p50_ms=round(float(p50), 1),
            p99_ms=round(float(p99), 1),
            most_ms=round(max(during.spent_ms), 1),
            unanswered=during.unanswered,
            thumbnails=len(during.spent_ms),
            rss_mib=round(most[0], 1),
            rss_after_mib=round(after, 1),
            alive=alive,
            faults=len(server.errors()),
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--bundles", type=click.Path(exists=True, path_type=Path), default="bundles", show_default=True)
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Length of each attack.")
@click.option("--only", default="", help="Attacks whose name contains this text.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=RESULTS / "attacks.json", show_default=True
)
def main(bundles: Path, seconds: float, only: str, output: Path) -> None:
    """Attack a server in ten ways and measure another client's thumbnails meanwhile."""
    table = Table("attack", title="A 32×32 thumbnail beside an attack", title_justify="left")
    for column in ("alone ms", "p50 ms", "p99 ms", "most ms", "failed", "RSS MiB", "after", "errors", ""):
        table.add_column(column, justify="right")
    outcomes = []
    for attack in ATTACKS:
        if only not in attack.__name__.replace("_", " "):
            continue
        outcome = attacked(bundles, attack, seconds)
        outcomes.append(outcome)
        print(outcome, file=sys.stderr, flush=True)
        holds = (
            outcome.alive
            and outcome.rss_mib <= MOST_RSS_MIB
            and outcome.p99_ms <= MOST_P99_MS
            and not outcome.unanswered + outcome.faults
        )
        values = (
            outcome.alone_ms, outcome.p50_ms, outcome.p99_ms, outcome.most_ms, f"{outcome.unanswered}/{outcome.thumbnails}",
            outcome.rss_mib, outcome.rss_after_mib, outcome.faults,
        )  # fmt: skip
        table.add_row(
            outcome.attack, *map(str, values), "holds" if holds else "died" if not outcome.alive else "BROKEN"
        )
    Console(width=120).print(table)
    report = {
        "machine": machine.describe(),
        "seconds": seconds,
        "attacks": [asdict(outcome) for outcome in outcomes],
    }
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
