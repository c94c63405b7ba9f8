"""Tests that the steps of a build and the evaluation convert pictures for a network whose range is [-1, 1]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from export.build import photographs, tiles, verify
from export.build.preview import CROP_PX, preview
from export.evaluation.subjects import open_bundle
from export.families.spec import Signature, Tolerance
from runtime import backends
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.pixels import decode, to_float, to_uint8
from runtime.tensors import Array
from tests.runtime.graphs import cubed, cubic, cubic_manifest, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path, cubic(), cubic_manifest())


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Engine]:
    with closing(backends.open_engine(bundle, device="CPU")[0]) as engine:
        yield engine


def levels(image: Array) -> Array:
    """[C, H, W] in [0, 1] → [H, W, C] uint8."""
    return to_uint8(image.transpose(1, 2, 0).astype(np.float32))


def test_evaluation_gives_the_picture_that_a_viewer_would_see(bundle: Bundle) -> None:
    image = levels(photographs.crop(40, 24))
    with closing(open_bundle(bundle.path)) as subject:
        answer = subject.convert(image)
    expected = levels(cubed(to_float(image)))
    assert np.abs(answer.astype(int) - expected).max() <= 1


def test_the_preview_is_converted_from_the_models_range(engine: Engine) -> None:
    picture = decode(preview(engine), max_pixels=10**6)
    expected = levels(cubed(photographs.crop(CROP_PX, CROP_PX)))
    assert np.abs(picture[:, expected.shape[1] :].astype(int) - expected).max() <= 1


def test_the_tile_search_judges_pictures_and_not_the_networks_own_values(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of single pixels needs no halo: the least is enough, at no difference whatever."""
    monkeypatch.setattr(tiles, "TIMED_S", 0.0)
    monkeypatch.setattr(tiles, "TILES", (96,))
    choice = tiles.choose(engine, engine)
    assert (choice.halo, choice.good) == (min(tiles.HALOS), True)
    assert choice.close.psnr_db >= 100


def test_verification_shows_the_network_photographs_in_its_own_range(engine: Engine) -> None:
    manifest = engine.manifest
    engine.batch_sizes = (1, 2)  # as a build's float32 torch takes any batch
    signature = Signature(manifest.inputs, manifest.outputs, scale=manifest.scale)
    cases = verify.cases(engine, signature, (16,))
    values = np.concatenate([case.inputs["image"].ravel() for case in cases])
    assert values.min() < -0.8
    assert values.max() > 0.8
    for case in cases:
        power = case.inputs["image"] ** 3
        np.testing.assert_allclose(case.expected["cubed"][..., ::2, ::2], power, atol=1e-5)
    assert verify.verify(engine, cases, Tolerance(100, 1e-4, "the same engine")).rows
