"""Applies deliberate faults to scratch copies of the repository and sees whether their tests fail.

tests/mutants/__main__.py is the command. Mutation testers such as mutmut change operators at random; these faults are chosen
by people, change what a user would notice, and name the tests that must notice them. The working tree is only read: each
worker has a copy of its own. The copy comes first on the PYTHONPATH of the tests and of the processes that they start, so
that servers run the fault too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from tests.mutants.faults import Fault, StaleFault, check_test_exists, faulty_text

PLUGIN = Path(__file__).resolve().parent / "plugin"
# Not copied: what git ignores, in the root and anywhere.
LEFT_OUT_OF_ROOT = {".git", ".venv", "build", "bundles", "demo-output", "dist", "runs", ".hypothesis"}
LEFT_OUT = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "ganforge.egg-info"}
# pytest's exit statuses: https://docs.pytest.org/en/stable/reference/exit-codes.html
PASSED, FAILED = 0, 1
STATUSES = {
    2: "interrupted, or a test file cannot be imported",
    3: "internal error",
    4: "usage error",
    5: "no test",
}
# pytest-timeout ends a test that hangs. This ends a run that hangs elsewhere: beyond so long, and some tests' limits.
RUN_LIMIT_S, TESTS_IN_A_RUN = 600, 3

Verdict = Literal["caught", "survived", "broken"]


@dataclass(frozen=True)
class Result:
    """caught: a test failed. survived: all passed. broken: neither can be said, `why` tells the reason.

    why: for a caught fault the first test that failed.
    """

    fault: Fault
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Run:
    """A run of pytest. outcomes: (node id, "passed", "failed" or "skipped") in the order of the tests."""

    status: int
    outcomes: tuple[tuple[str, str], ...]
    output: str

    def of(self, outcome: str) -> list[str]:
        return [test for test, ended in self.outcomes if ended == outcome]


class ScratchTree:
    """A copy of the repository in which tests run. root: its folder."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.root = folder / "tree"
        self._folder = folder

        def left_out(of: str, names: list[str]) -> set[str]:
            return (LEFT_OUT | LEFT_OUT_OF_ROOT if Path(of) == source else LEFT_OUT) & set(names)

        shutil.copytree(source, self.root, ignore=left_out, symlinks=True)

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """The tree with `fault` in it. Raises StaleFault where it does not fit."""
        path = self.root / fault.file
        faulty = faulty_text(fault, self.root)
        original = path.read_bytes()
        path.write_text(faulty, encoding="utf-8")
        try:
            yield
        finally:
            path.write_bytes(original)

    def test(self, tests: Sequence[str], *, threads: int, timeout_s: int | None = None) -> Run:
        """Run `tests` here. threads: that torch may use.

        timeout_s: limit of one test; the run stops at the first that fails. None: the project's own limit, and all run.
        Raises TimeoutError.
        """
        outcomes = self._folder / "outcomes.jsonl"
        outcomes.write_text("")
        command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={self._folder / 'tmp'}"]
        command += ["-m", "not gpu and not network", "-p", "no:cacheprovider", "-p", "mutants_outcomes"]
        command += [*(["-x", f"--timeout={timeout_s}"] if timeout_s else []), *tests]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(self.root), str(PLUGIN))),
            # A faulty file may have the size and the second of the true one: compiled files would be confused.
            "PYTHONDONTWRITEBYTECODE": "1",
            "MUTANTS_OUTCOMES": str(outcomes),
            "OMP_NUM_THREADS": str(threads),
            "CI": "1",  # hypothesis tries the same examples each time
        }
        limit_s = RUN_LIMIT_S + TESTS_IN_A_RUN * timeout_s if timeout_s else None
        status, output = run(command, self.root, environment, limit_s)
        lines = outcomes.read_text(encoding="utf-8").splitlines()
        pairs = tuple((test, ended) for test, ended in map(json.loads, lines))
        return Run(status, pairs, output)


def run(
    command: Sequence[str], folder: Path, environment: dict[str, str], limit_s: float | None
) -> tuple[int, str]:
    """The exit status and the output. Everything that it started is killed at its end. Raises TimeoutError."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"no end after {limit_s} s") from error
        finally:
            kill_group(process)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # nothing was left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check(
    faults: Sequence[Fault],
    source: Path,
    *,
    jobs: int = 1,
    timeout_s: int = 120,
    on_step: Callable[[str], None] = lambda _: None,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """A result for each of `faults`, in their order; those with `equivalent` are left out.

    All tests run once without a fault first: a fault whose tests do not pass there is broken. source: the
    repository's root. jobs: faults tried at a time. on_step is told what happens, on_result each result as it comes,
    both from any thread. Raises StaleFault where pytest cannot run the tests at all.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    faults = [fault for fault in faults if not fault.equivalent]
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(jobs) as pool:
        on_step(f"copying the source {jobs} times")
        trees: SimpleQueue[ScratchTree] = SimpleQueue()
        for number in range(jobs):
            trees.put(ScratchTree(source, Path(scratch) / str(number)))
        reasons = {fault: reason for fault in faults if (reason := why_stale(fault, source))}
        on_step("running the tests of all faults once without a fault")
        passed, failed = clean_outcomes(trees, pool, all_tests(faults, reasons), jobs=jobs, threads=threads)
        reasons |= {
            fault: reason
            for fault in faults
            if fault not in reasons and (reason := why_unusable(fault.tests, passed, failed))
        }

        def try_one(fault: Fault) -> Result:
            if fault in reasons:
                result = Result(fault, "broken", reasons[fault])
            else:
                tree = trees.get()
                try:
                    result = tried(fault, tree, timeout_s=timeout_s, threads=threads)
                finally:
                    trees.put(tree)
            on_result(result)
            return result

        on_step(f"trying {len(faults)} faults")
        return list(pool.map(try_one, faults))


def why_stale(fault: Fault, root: Path) -> str:
    """Why `fault` no longer fits the source in `root`; "" where it fits."""
    try:
        faulty_text(fault, root)
        for test in fault.tests:
            check_test_exists(test, root)
    except StaleFault as error:
        return str(error)
    return ""


def all_tests(faults: Sequence[Fault], stale: Mapping[Fault, str]) -> list[str]:
    """The pytest arguments of all faults that are not stale."""
    return sorted({test for fault in faults if fault not in stale for test in fault.tests})


def clean_outcomes(
    trees: SimpleQueue[ScratchTree],
    pool: ThreadPoolExecutor,
    tests: Sequence[str],
    *,
    jobs: int,
    threads: int,
) -> tuple[list[str], list[str]]:
    """The node ids that pass and those that fail without a fault; tests of one file run in one process.

    Raises StaleFault where pytest cannot run them at all.
    """
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.split("::", 1)[0], []).append(test)
    files = list(by_file.values())
    groups = [[test for file in files[job::jobs] for test in file] for job in range(min(jobs, len(files)))]

    def run_group(group: list[str]) -> Run:
        tree = trees.get()
        try:
            return tree.test(group, threads=threads)
        finally:
            trees.put(tree)

    runs = list(pool.map(run_group, groups))
    for clean in runs:
        if clean.status not in (PASSED, FAILED):
            raise StaleFault(f"without a fault: {STATUSES.get(clean.status, clean.status)}\n{clean.output}")
    passed = [test for clean in runs for test in clean.of("passed")]
    return passed, [test for clean in runs for test in clean.of("failed")]


def why_unusable(tests: Sequence[str], passed: Sequence[str], failed: Sequence[str]) -> str:
    """Why `tests` cannot tell whether a fault is noticed; "" where they can."""
    if failing := chosen(failed, tests):
        return f"fails without the fault too: {failing[0]}"
    return "" if chosen(passed, tests) else "its tests are skipped on this machine"


def chosen(node_ids: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Those of `node_ids` that the pytest arguments select."""
    return [
        node_id
        for node_id in node_ids
        if any(node_id == one or node_id.startswith((f"{one}[", f"{one}::", f"{one}/")) for one in arguments)
    ]


def tried(fault: Fault, tree: ScratchTree, *, timeout_s: int, threads: int) -> Result:
    """Run the tests of `fault` with it in place."""
    try:
        with tree.fault(fault):
            faulty = tree.test(fault.tests, threads=threads, timeout_s=timeout_s)
    except (StaleFault, TimeoutError) as error:
        return Result(fault, "broken", str(error))
    if faulty.status == PASSED:
        return Result(fault, "survived", "all of its tests pass")
    if faulty.status != FAILED:
        tail = "\n".join(faulty.output.splitlines()[-15:])
        return Result(fault, "broken", f"{STATUSES.get(faulty.status, faulty.status)}\n{tail}")
    return Result(fault, "caught", next(iter(faulty.of("failed")), "a test that ended its process"))
