"""Sample k of a seed is the same picture for any count, batch and load, through a real server and engines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from runtime import pixels
from runtime.errors import InvalidInput
from server.client import Client
from server.launch import launched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED = 2026
COUNTS = (1, 5, 64)
MODELS = ("dcgan", "acgan")


@pytest.fixture(scope="module")
def client(tiny_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with launched(tiny_bundles, log=log) as server, Client(server.address) as opened:
        yield opened


@pytest.mark.parametrize("model", MODELS)
def test_a_sample_is_the_same_for_any_count(client: Client, model: str) -> None:
    most = drawn(client, model, max(COUNTS))
    for count in COUNTS:
        assert worst(drawn(client, model, count), most[:count]) <= 1


@pytest.mark.parametrize("model", MODELS)
def test_a_sample_is_the_same_beside_other_clients(client: Client, model: str) -> None:
    alone = drawn(client, model, max(COUNTS))
    picture = pixels.encode(np.zeros((90, 110, 3), np.uint8), "png")
    with ThreadPoolExecutor(8) as crowd:
        others: list[Future[object]] = [
            crowd.submit(client.generate, 7, model=other, seed=seed) for other in MODELS for seed in range(8)
        ]
        others += [crowd.submit(client.upscale, picture) for _ in range(4)]
        mine = [crowd.submit(drawn, client, model, count) for count in COUNTS * 3]
        for answer in mine:
            samples = answer.result()
            assert worst(samples, alone[: len(samples)]) <= 1
        for other in others:
            other.result()


def test_labels_select_the_class(client: Client) -> None:
    first, last = (drawn(client, "acgan", 6, labels=[label]) for label in (0, 2))
    mixed = drawn(client, "acgan", 6, labels=[0, 2, 0, 2, 0, 2])
    assert worst(first, last) > 1
    assert worst(mixed[::2], first[::2]) <= 1
    assert worst(mixed[1::2], last[1::2]) <= 1


@pytest.mark.parametrize("labels", [[3], [0, 1], [2**31]], ids=["out of range", "of another count", "huge"])
def test_wrong_labels_are_refused(client: Client, labels: list[int]) -> None:
    with pytest.raises(InvalidInput, match="labels"):
        client.generate(6, model="acgan", seed=SEED, labels=labels)
    assert len(client.generate(1, model="acgan").images) == 1


def drawn(client: Client, model: str, count: int, labels: list[int] | None = None) -> np.ndarray:
    """[count, H, W, C] uint8: samples 0 … count - 1 of SEED."""
    answer = client.generate(count, model=model, seed=SEED, labels=labels or [])
    return np.stack([pixels.decode(image, max_pixels=1 << 16) for image in answer.images])


def worst(samples: np.ndarray, expected: np.ndarray) -> int:
    """The largest difference, in grey levels."""
    return int(np.abs(samples.astype(int) - expected).max())
