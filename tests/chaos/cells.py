"""Runs the cells of trouble × call × load and judges each by its expectation. tests/chaos/__main__.py shows the results."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tests.chaos import calls
from tests.chaos.expectations import CALLS, EXPECTATIONS, LOADS, Expectation, Flavour, expectation
from tests.chaos.load import Load
from tests.chaos.servers import CannotRun, Server
from tests.chaos.troubles import PATIENCE_S, TROUBLES, Scene

MORE_MIB, MORE_FILES = 64, 4


@dataclass(frozen=True)
class Cell:
    """One trouble for one call, alone or among others."""

    trouble: str
    call: str
    load: str

    def __str__(self) -> str:
        return f"{self.trouble}, {self.call}, {self.load}"


ALL = tuple(Cell(trouble, call, load) for trouble in EXPECTATIONS for call in CALLS for load in LOADS)


@dataclass(frozen=True)
class Result:
    """How a cell ended. seen: outcomes of its own calls. problems: what differs from the expectation; skipped: why not run."""

    cell: Cell
    seen: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    others: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    skipped: str = ""
    seconds: float = 0.0


class Runner:
    """Runs cells, each on a server of the flavour that it needs; servers are kept until a trouble ends them."""

    def __init__(self, bundles: Path, folder: Path, seed: int) -> None:
        self._bundles, self._folder, self._random = bundles, folder, random.Random(seed)
        self._servers: dict[Flavour, Server] = {}
        self._expected_answers: dict[str, list[bytes]] = {}
        self._count = 0

    def run(self, cell: Cell) -> Result:
        """Run one cell."""
        began = time.monotonic()
        self._count += 1
        expected = expectation(cell.trouble, cell.call)
        try:
            server = self._server(expected.flavour)
        except CannotRun as error:
            return Result(cell, skipped=str(error))
        before = server.memory_mib(), server.open_files()
        log_start = len(server.log_lines())
        with calls.channel(server.address) as connection:
            grpc.channel_ready_future(connection).result(PATIENCE_S)
            scene = Scene(server, cell.call, self._random, connection, f"cell-{self._count}")
            with Load(server.address, active=cell.load == "loaded") as load:
                seen = TROUBLES[cell.trouble](scene)
                server.set_faults()
        logged = [server.logged(each) for each in scene.ids] if expected.log else []
        problems = judge(expected, seen, logged, dict(load.outcomes))
        errors = server.errors(log_start)
        if errors and not expected.server_errors:
            problems.append(f"the server logged {len(errors)} errors, the first: {errors[0]}")
        if expected.restarts:
            left = server.temporary_files() if cell.trouble == "SIGTERM" else []
            server.start()
            before = server.memory_mib(), server.open_files()
            problems += [f"left in the folder for temporary files: {left}"] if left else []
        problems += scene.notes + self._afterwards(server, cell.call, *before)
        if not server.running:
            del self._servers[expected.flavour]
        return Result(
            cell,
            tuple(seen),
            tuple(logged),
            dict(load.outcomes),
            tuple(problems),
            "",
            time.monotonic() - began,
        )

    def close(self) -> None:
        """Stop the servers."""
        for server in self._servers.values():
            server.stop()

    def _server(self, flavour: Flavour) -> Server:
        if flavour not in self._servers:
            server = Server(
                flavour, self._bundles, self._folder / f"{flavour.replace(' ', '-')}-{self._count}"
            )
            server.start()
            for call in CALLS:  # each shape's first run takes memory for good
                for size in calls.SIZES:
                    self._answer(server, call, size)
            self._servers[flavour] = server
        return self._servers[flavour]

    def _answer(self, server: Server, call: str, size: str) -> tuple[str, list[bytes]]:
        with calls.channel(server.address) as connection:
            running = calls.start(connection, call, size, request_id="next", timeout_s=PATIENCE_S)
            return running.outcome(), running.answer

    def _afterwards(self, server: Server, call: str, memory_mib: float, files: int) -> list[str]:
        """What is wrong after the trouble."""
        if not server.running:
            return ["the server ended"]
        problems = []
        code, answer = self._answer(server, call, "small")
        expected = self._expected_answers.setdefault(call, answer)
        if code != "OK":
            problems.append(f"the next request got {code}")
        elif answer != expected:
            problems.append("the next request's answer differs from the one before the trouble")
        checks: dict[str, Callable[[], bool]] = {
            "temporary files stay": lambda: not server.temporary_files(),
            f"open files stay, more than the {files} before": lambda: (
                server.open_files() <= files + MORE_FILES
            ),
            f"memory stays, more than the {memory_mib:.0f} MiB before": lambda: (
                server.memory_mib() <= memory_mib + MORE_MIB
            ),
            "calls or bytes stay counted": lambda: not any(server.gauges().values()),
        }
        return problems + [problem for problem, check in checks.items() if not _becomes_true(check)]


def judge(expected: Expectation, seen: list[str], logged: list[str], others: dict[str, int]) -> list[str]:
    """What differs from the expectation in what the callers saw and in the log."""
    problems = [
        f"the caller saw {code}, expected {_listed(expected.caller)}"
        for code in dict.fromkeys(seen)
        if code not in expected.caller
    ]
    problems += [
        f"the log says {code or 'nothing'}, expected {_listed(expected.log)}"
        for code in dict.fromkeys(logged)
        if code not in expected.log
    ]
    strange = {code: count for code, count in others.items() if code not in expected.other_callers}
    if strange:
        problems.append(f"other callers saw {strange}, expected {_listed(expected.other_callers)}")
    return problems


def _listed(codes: frozenset[str]) -> str:
    return " or ".join(sorted(codes))


def _becomes_true(check: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether a condition holds within some seconds: what is given back may take a moment."""
    until = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
