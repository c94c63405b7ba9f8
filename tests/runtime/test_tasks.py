"""The tasks: the items of a request, and the checks of a manifest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime import tasks
from runtime.bundle import check, parse_manifest
from runtime.errors import BundleError, InvalidInput
from runtime.manifest import Manifest
from runtime.tensors import TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0, 1))
PICTURE = Manifest("picture", "upscale", "float32", (IMAGE,), (IMAGE,), tile_sizes=(64,), halo=8)
WHOLE = replace(PICTURE, tiled=False, tile_sizes=(), halo=0, max_whole_px=4096)
LATENT = TensorSpec("latent", "float32", ("N", 16))
SAMPLE = TensorSpec("sample", "float32", ("N", 3, 32, 32), (-1, 1))
SAMPLER = Manifest("sampler", "generate", "float32", (LATENT,), (SAMPLE,), latent_size=16)
LABEL = TensorSpec("label", "int64", ("N",), (0, 3))
LABELLED = replace(SAMPLER, inputs=(LATENT, LABEL), classes=4)


@pytest.mark.parametrize("task", ["upscale", "translate"])
def test_a_picture_becomes_tiles_unless_the_model_takes_whole_pictures(task: Any) -> None:
    assert tasks.items_of(replace(PICTURE, task=task)) == "tiles"
    assert tasks.items_of(replace(WHOLE, task=task)) == "whole"


def test_latents_become_samples() -> None:
    assert tasks.items_of(SAMPLER) == "samples"


def test_bundle_names_contain_the_model_and_for_upscalers_the_scale() -> None:
    names = {name: task.bundle_name("family", 4) for name, task in tasks.ALL.items()}
    assert names == {"upscale": "family-x4", "translate": "family", "generate": "family"}


def test_an_unknown_task_is_refused_with_the_known_names() -> None:
    with pytest.raises(
        InvalidInput, match=r"task: got 'paint', expected one of upscale, translate, generate"
    ):
        tasks.get("paint")  # type: ignore[arg-type]


GREY_TO_RGB = replace(PICTURE, task="translate", inputs=(replace(IMAGE, shape=("N", 1, "H", "W")),))


@pytest.mark.parametrize(
    "good", [PICTURE, WHOLE, replace(WHOLE, task="translate"), GREY_TO_RGB, SAMPLER, LABELLED]
)
def test_a_manifest_of_each_kind_is_read_back(good: Manifest) -> None:
    assert parse_manifest(good.to_json()) == good


@pytest.mark.parametrize(
    ("manifest", "changes", "field"),
    [
        (PICTURE, {"max_whole_px": 4096}, "max_whole_px 4096"),
        (PICTURE, {"inputs": (IMAGE, IMAGE)}, "inputs"),
        (WHOLE, {"max_whole_px": 0}, "max_whole_px 0"),
        (WHOLE, {"tile_sizes": (64,)}, "tile_sizes"),
        (WHOLE, {"halo": 8}, "halo 8"),
        (WHOLE, {"task": "translate", "max_whole_px": -1}, "max_whole_px -1"),
        (PICTURE, {"tile_sizes": ()}, "tile_sizes"),
        (PICTURE, {"inputs": (replace(IMAGE, range=None),)}, "inputs"),
        (PICTURE, {"outputs": (replace(IMAGE, range=None),)}, "outputs"),
        (PICTURE, {"outputs": (replace(IMAGE, range=(1, 1)),)}, "outputs"),
        (PICTURE, {"outputs": (replace(IMAGE, shape=("N", 1, "H", "W")),)}, "outputs"),
        (PICTURE, {"inputs": (replace(IMAGE, dtype="int64"),)}, "inputs"),
        (PICTURE, {"inputs": (replace(IMAGE, shape=("N", "C", "H", "W")),)}, "inputs"),
        (PICTURE, {"inputs": (replace(IMAGE, shape=("N", 3)),)}, "inputs"),
        (SAMPLER, {"tile_sizes": (64,)}, "tile_sizes"),
        (SAMPLER, {"outputs": (replace(SAMPLE, range=None),)}, "outputs"),
        (SAMPLER, {"max_whole_px": 1}, "max_whole_px 1"),
        (SAMPLER, {"latent_size": SAMPLER.latent_size + 1}, "latent_size"),
        (SAMPLER, {"inputs": ()}, "latent_size"),
        (SAMPLER, {"classes": 1}, "classes"),
        (LABELLED, {"classes": 5}, "classes"),
        (SAMPLER, {"outputs": (replace(SAMPLE, shape=("N", 3, "H", "W")),)}, "outputs"),
        (PICTURE, {"latent_size": 4}, "latent_size 4"),
        (PICTURE, {"classes": 2}, "classes 2"),
        (PICTURE, {"inputs": (replace(IMAGE, shape=("N", 3, 64, 64)),)}, "inputs"),
        (PICTURE, {"name": ""}, "name ''"),
        (PICTURE, {"name": "two\nlines"}, "name"),
    ],
)
def test_fields_that_a_task_cannot_have_are_named(
    manifest: Manifest, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(BundleError, match=field):
        check(replace(manifest, **changes))
