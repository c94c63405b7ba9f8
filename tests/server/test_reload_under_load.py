"""Models are swapped under load: every request is answered, by the version that the answer names."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import DeadlineExceeded, EngineError
from server.client import Client
from server.models import memory
from server.models.reloading import Reloader
from tests.server.conftest import Serve, decoded, png, until
from tests.server.versions import Opener, Painter, write_version

CLIENTS = 4


@contextmanager
def clients(address: str, levels: dict[str, int], seen: Counter[int]) -> Iterator[None]:
    """Clients that upscale without a pause. Each answer must be as the version that it names paints. seen: by level."""
    stop = threading.Event()

    def call() -> None:
        with Client(address, retry=False) as client:
            while not stop.is_set():
                answer = client.upscale(png(40, 30))
                level = levels[answer.timing.model_version]
                assert np.unique(decoded(answer.image)).tolist() == [level]
                seen[level] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        calls = [pool.submit(call) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            stop.set()
        for each in calls:
            each.result()


def test_no_request_notices_twenty_swaps(serve: Serve, tmp_path: Path) -> None:
    first = write_version(tmp_path, 1)
    opener = Opener()
    served = serve(Painter(first), open_bundle=opener)
    models = served.models
    reloader = Reloader(models, tmp_path)
    levels, seen = {first.version: 1}, Counter[int]()
    with clients(served.address, levels, seen):
        for level in range(2, 22):
            until(partial(seen.__contains__, level - 1))
            version = write_version(tmp_path, level).version
            levels[version] = level
            assert [change.version for change in reloader.reload().replaced] == [version]
        until(lambda: seen[21] > 0)
    assert set(seen) == set(range(1, 22))
    for engine in opener.engines[:-1]:
        assert engine.closed.wait(20)
    assert models.stats().open == 1
    assert served.calls("OK") >= seen.total()


def test_lazy_models_under_load_and_a_budget_for_one(serve: Serve, tmp_path: Path) -> None:
    """Each client calls for another model, and only one may be open: they take turns, and no request fails."""
    bundles = {name: write_version(tmp_path, level, name) for level, name in enumerate("abcd")}
    opener = Opener()
    budget = max(map(memory.bytes_to_open, bundles.values()))
    served = serve(lazy=True, max_bytes=budget, open_bundle=opener)
    for bundle in bundles.values():
        served.models.add(bundle)

    def call(level: int, name: str) -> None:
        with Client(served.address, retry=False) as client:
            for _ in range(10):
                answer = client.upscale(png(40, 30), model=name)
                assert answer.timing.model_version == bundles[name].version
                assert np.unique(decoded(answer.image)).tolist() == [level]

    with ThreadPoolExecutor(CLIENTS) as pool:
        for each in [pool.submit(call, level, name) for level, name in enumerate(bundles)]:
            each.result()
    assert served.models.stats().open == 1
    assert len(opener.engines) > 4
    states = [info.state for info in served.client.models()]
    assert sorted(states) == ["idle", "idle", "idle", "serving"]
    idle = next(info for info in served.client.models() if info.state == "idle")
    assert (idle.backend, idle.version) == ("numpy", bundles[idle.name].version)


def test_a_deadline_passes_while_a_model_is_opened_and_the_next_request_finds_it_open(
    serve: Serve, tmp_path: Path
) -> None:
    opener = Opener()
    served = serve(lazy=True, open_bundle=opener)
    served.models.add(write_version(tmp_path, 1))
    opener.gate.clear()
    with pytest.raises(DeadlineExceeded):
        served.client.upscale(png(8, 8), timeout_s=0.2)
    opener.gate.set()
    answer = served.client.upscale(png(8, 8))
    assert np.unique(decoded(answer.image)).tolist() == [1]
    assert len(opener.engines) == 1


def test_a_model_that_cannot_be_opened_is_refused_in_a_sentence(serve: Serve, tmp_path: Path) -> None:
    opener = Opener(broken={1})
    served = serve(lazy=True, open_bundle=opener)
    served.models.add(write_version(tmp_path, 1))
    for _ in range(2):
        with pytest.raises(EngineError, match="does not compile"):
            served.client.upscale(png(8, 8))
    assert [info.state for info in served.client.models()] == ["unavailable"]
