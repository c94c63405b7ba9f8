"""Tests of the search for the largest whole picture, on fake engines with known time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.build import whole
from export.families.spec import Signature
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError, InvalidInput
from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
RESULT = TensorSpec("result", "float32", ("N", 3, "H", "W"), (0.0, 1.0))


class Identity(Engine):
    """Takes `ns_per_px` and `bytes_per_px` for each pixel, on a clock and a memory of its own; fails beyond `most_px`."""

    backend = "identity"

    def __init__(
        self,
        *,
        ns_per_px: float = 0.0,
        bytes_per_px: int = 0,
        most_px: int = 1 << 40,
        multiple: int = 1,
        least: int = 1,
    ) -> None:
        manifest = Manifest(
            "identity",
            "translate",
            "float32",
            (IMAGE,),
            (RESULT,),
            size_multiple=multiple,
            least_side_px=least,
            tiled=False,
        )
        super().__init__(
            Bundle(Path(), manifest), device="CPU", precision="float32", slots=1, batch_sizes=(1,)
        )
        self.ns_per_px, self.bytes_per_px, self.most_px = ns_per_px, bytes_per_px, most_px
        self.now_s, self.peak_bytes = 0.0, 1 << 28
        self.sides: list[int] = []

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        height, width = inputs["image"].shape[2:]
        if height * width > self.most_px:
            raise EngineError("out of memory")
        self.sides.append(height)
        self.now_s += height * width * self.ns_per_px * 1e-9
        self.peak_bytes = max(self.peak_bytes, (1 << 28) + height * width * self.bytes_per_px)
        return {"result": inputs["image"]}

    def measure(self, max_px: int | None = None) -> whole.Limit:
        return whole.measure(self, max_px, clock=lambda: self.now_s, peak_bytes=lambda: self.peak_bytes)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "SIDES", (64, 91, 128, 181))


def test_the_limit_is_the_largest_picture_that_does_not_take_too_long() -> None:
    limit = Identity(ns_per_px=whole.LONGEST_S * 1e9 / 100**2).measure()
    assert limit.max_px == 91**2
    assert limit.reason.startswith("128×128 took 6.6 s")
    assert [row["side"] for row in limit.runs] == [64, 91]
    assert limit.runs[0]["ms"] == pytest.approx(4096 * 0.4)


def test_the_limit_is_the_largest_picture_that_does_not_take_too_much_memory() -> None:
    limit = Identity(bytes_per_px=whole.MOST_BYTES // 120**2).measure()
    assert limit.max_px == 91**2
    assert limit.reason == "128×128 took 0.0 s and 2,330 MiB"


def test_an_engine_that_fails_ends_the_search() -> None:
    limit = Identity(most_px=128**2).measure()
    assert (limit.max_px, limit.reason) == (128**2, "181×181 failed: out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        Identity(most_px=10).measure()


def test_sides_keep_the_size_rule_and_what_the_user_asks_for_is_run() -> None:
    engine = Identity(multiple=8)
    assert engine.measure().max_px == 176**2
    assert all(side % 8 == 0 for side in engine.sides)
    engine = Identity(multiple=8)
    limit = engine.measure(max_px=10_000)
    assert (limit.max_px, limit.reason, set(engine.sides)) == (10_000, "asked for", {96})
    with pytest.raises(InvalidInput, match="max_whole_px: got 60, expected 64 pixels or more"):
        whole.check(Signature((IMAGE,), (RESULT,), size_multiple=8), 60)


def test_no_side_is_shorter_than_the_least_one() -> None:
    engine = Identity(multiple=8, least=100)
    assert engine.measure().max_px == 176**2
    assert sorted(set(engine.sides)) == [104, 128, 176]
    with pytest.raises(InvalidInput, match="max_whole_px: got 10000, expected 10816 pixels or more"):
        whole.check(Signature((IMAGE,), (RESULT,), size_multiple=8, least_side_px=100), 10_000)
