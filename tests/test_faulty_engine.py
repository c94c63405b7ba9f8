"""The faults that tests inject do what they say."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import EngineError
from tests.faulty_engine import Fault, Faults, Kind, inject
from tests.server.conftest import FakeUpscaler

TILE = {"image": np.zeros((1, 3, 8, 8), np.float32)}


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("nan", EngineError, "NaN"),
        ("shape", EngineError, "expected"),
        ("raise", EngineError, "injected"),
        ("memory", MemoryError, "injected"),
    ],
)
def test_a_fault_strikes_as_often_as_it_says(kind: Kind, error: type[Exception], message: str) -> None:
    faults = Faults()
    engine = inject(FakeUpscaler(), faults)
    faults.add(Fault(kind, times=2))
    for _ in range(2):
        with pytest.raises(error, match=message):
            engine.run(TILE)
    assert engine.run(TILE)["upscaled"].shape == (1, 3, 32, 32)


def test_a_fault_strikes_every_so_many_batches_and_only_where_it_says() -> None:
    faults = Faults()
    here, elsewhere = inject(FakeUpscaler("here"), faults), inject(FakeUpscaler("elsewhere"), faults)
    faults.add(Fault("raise", every=3, model="here"))
    struck = []
    for batch in range(1, 10):
        elsewhere.run(TILE)
        try:
            here.run(TILE)
        except EngineError:
            struck.append(batch)
    assert struck == [3, 6, 9]


def test_a_batch_hangs_until_the_faults_end() -> None:
    faults, done = Faults(), threading.Event()
    engine = inject(FakeUpscaler(), faults)
    faults.add(Fault("hang"))

    def run() -> None:
        engine.run(TILE)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert not done.wait(0.2)
    faults.clear()
    assert done.wait(30)
    thread.join()


def test_faults_in_a_file_change_while_the_engine_runs(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    faults = Faults(path)
    engine = inject(FakeUpscaler(), faults)
    engine.run(TILE)
    path.write_text(json.dumps([{"kind": "nan"}]))
    with pytest.raises(EngineError, match="NaN"):
        engine.run(TILE)
    path.write_text("[]")
    engine.run(TILE)
