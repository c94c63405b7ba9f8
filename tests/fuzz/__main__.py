"""`python -m tests.fuzz --cases 100000`: messages mutated by structure and HTTP/2 frames by bytes, to a real server.

Ends with status 1 if the server dies, answers INTERNAL, logs an error, or keeps memory or files. What it found is then
written to tests/fuzz/seeds/, whose files test_fuzz.py replays for ever.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.progress import Progress

from tests.fuzz.frames import conversation
from tests.fuzz.messages import request
from tests.fuzz.target import Target, methods, running

SEEDS = Path(__file__).parent / "seeds"
# Each batch is a run of its own: hypothesis remembers all examples of a run.
BATCH = 1000
FRAMES_SHARE = 0.3
CHECK_EVERY = 100
GROWTH_MIB = 32.0


def explored(case: Callable[[], Callable[..., None]], count: int, number: int) -> None:
    """Run `count` examples of a property under that seed. A failure is shrunk and raised."""
    chosen = settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(chosen(case()))()


def save(kind: str, path: str, messages: list[bytes]) -> Path:
    """Keep a case that found something."""
    content = (
        json.dumps({"kind": kind, "path": path, "messages": [data.hex() for data in messages]}, indent=1)
        + "\n"
    )
    target = SEEDS / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.json"
    target.write_text(content, encoding="utf-8")
    return target


class Run:
    """One run: draws cases, counts what came back and watches memory."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._methods = methods()
        self._last: tuple[str, str, list[bytes]] = ("", "", [])
        self.codes: Counter[str] = Counter()
        self.memory_mib: list[float] = []
        self.cases = 0

    def batch(self, number: int, progress: Callable[[int], None]) -> None:
        """Run one batch; raises AssertionError after writing the case to seeds/."""
        frames = number % 10 < FRAMES_SHARE * 10
        method = self._methods[number % len(self._methods)]

        def messages_case() -> Callable[..., None]:
            @given(request(method))
            def case(drawn: list[bytes]) -> None:
                self._last = ("messages", method.path, drawn)
                self.codes[self._target.call(method, drawn).name] += 1
                self._count(progress)

            return case

        def frames_case() -> Callable[..., None]:
            @given(conversation(tuple(method.path for method in self._methods)))
            def case(drawn: bytes) -> None:
                self._last = ("frames", "", [drawn])
                self._target.write(drawn)
                self.codes["frames"] += 1
                self._count(progress)

            return case

        try:
            explored(frames_case if frames else messages_case, BATCH, number)
        except BaseException:
            print(f"kept as {save(*self._last)}", file=sys.stderr)
            raise

    def _count(self, progress: Callable[[int], None]) -> None:
        self.cases += 1
        progress(self.cases)
        if self.cases % CHECK_EVERY == 0:
            self._target.check()
            self.memory_mib.append(self._target.rss_mib())

    def growth_mib(self) -> float:
        """Memory at the end less that after a fifth of the cases, each the median of a fifth."""
        fifth = max(len(self.memory_mib) // 5, 1)
        return median(self.memory_mib[-fifth:]) - median(
            self.memory_mib[fifth : 2 * fifth] or self.memory_mib
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cases", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option(
    "--seed", "first", type=int, default=0, show_default=True, help="Seed of the first batch of 1,000 cases."
)
def main(cases: int, first: int) -> None:
    """Fuzz a server that this command starts."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as target, Progress() as bar:
        run, task = Run(target), bar.add_task("fuzzing", total=cases)
        number = first
        files = target.open_files()
        while run.cases < cases:
            run.batch(number, lambda done: bar.update(task, completed=done))
            number += 1
        target.check()
        growth_mib, files_more = run.growth_mib(), target.open_files() - files
    print(f"{run.cases} cases, no crash; by status: {dict(run.codes.most_common())}")
    print(
        f"memory {run.memory_mib[0]:.0f} → {run.memory_mib[-1]:.0f} MiB, growth {growth_mib:+.1f} MiB; files {files_more:+d}"
    )
    if growth_mib > GROWTH_MIB:
        sys.exit(f"the server's memory grew by {growth_mib:.1f} MiB, expected at most {GROWTH_MIB:g}")


if __name__ == "__main__":
    main()
