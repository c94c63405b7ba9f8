"""Tests that a Subject gives the outputs of its checkpoint, bundle or baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export import families
from export.checkpoints import checkpoint
from export.checkpoints.identification import named_model
from export.data.resize import resize
from export.evaluation.subjects import BicubicSubject, open_bundle, open_checkpoint
from runtime.errors import BundleError, InvalidInput
from runtime.pixels import to_float, to_uint8
from runtime.tensors import Array
from tests.conftest import TinyBundle
from tests.export.lively import class_names, lively


def weights(folder: Path, model: str) -> Path:
    """A file with the weights that `tiny_bundle` builds from."""
    spec, path = families.get(model), folder / f"{model}.safetensors"
    checkpoint.save(path, model, spec.tiny, lively(spec), class_names(spec))
    return path


def picture(height: int, width: int) -> Array:
    """[H, W, 3] uint8: smooth, as photographs are."""
    down, across = np.mgrid[0:height, 0:width]
    planes = [np.sin(down / 5), np.cos(across / 7), np.sin((down + across) / 9)]
    return (np.stack(planes, axis=2) * 127 + 128).astype(np.uint8)


def worst(answer: Array, expected: Array) -> int:
    """The largest difference, in grey levels."""
    assert answer.shape == expected.shape
    return int(np.abs(answer.astype(int) - expected).max())


def test_a_checkpoint_upscales_as_its_module_does(tmp_path: Path) -> None:
    subject = open_checkpoint(weights(tmp_path, "esrgan"))
    image = picture(30, 41)
    with torch.inference_mode():
        whole = subject.checkpoint.module(torch.from_numpy(to_float(image))[None])[0].numpy()
    np.testing.assert_array_equal(subject.convert(image), to_uint8(whole.transpose(1, 2, 0)))
    assert (subject.kind, subject.name, subject.task.name, subject.scale) == (
        "checkpoint",
        "esrgan",
        "upscale",
        4,
    )


def test_sides_that_the_network_cannot_take_are_padded_and_cut(tmp_path: Path) -> None:
    spec = families.get("esrgan")
    config = checkpoint.configure(spec.tiny, {"scale": "2"})
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "x2.safetensors", "esrgan", config, spec.module(config))
    assert open_checkpoint(tmp_path / "x2.safetensors").convert(picture(15, 21)).shape == (30, 42, 3)


def test_a_bundle_upscales_in_tiles_as_the_checkpoint_does_whole(
    tiny_bundle: TinyBundle, tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle("esrgan", "float32").path)
    image = picture(60, 70)  # tiles of 48
    # The tiny network's halo of 8 px does not cover all that it sees: seams of a few levels.
    assert worst(bundle.convert(image), open_checkpoint(weights(tmp_path, "esrgan")).convert(image)) <= 8
    assert (bundle.kind, bundle.name, bundle.scale) == ("bundle", "esrgan-x4", 4)
    bundle.close()


@pytest.mark.parametrize("model", ["dcgan", "acgan"])
def test_a_bundle_draws_the_samples_of_its_checkpoint(
    tiny_bundle: TinyBundle, tmp_path: Path, model: str
) -> None:
    subject = open_checkpoint(weights(tmp_path, model))
    labels = np.arange(70) % subject.classes if subject.classes else None
    samples = subject.samples(70, labels, seed=3)  # more than a batch
    assert (samples.dtype, samples.shape) == (np.uint8, (70, 3, 32, 32))
    bundle = open_bundle(tiny_bundle(model, "float32").path)
    assert worst(bundle.samples(70, labels, seed=3), samples) <= 1  # rounding beside another summation order
    assert worst(subject.samples(70, labels, seed=4), samples) > 1
    assert subject.class_names == bundle.class_names
    bundle.close()


def test_labels_choose_the_class_and_are_drawn_where_none_are_given(tmp_path: Path) -> None:
    subject = open_checkpoint(weights(tmp_path, "acgan"))
    first, second = (subject.samples(4, np.full(4, label), seed=0) for label in (0, 2))
    assert worst(first, second) > 1
    np.testing.assert_array_equal(subject.samples(4, None, seed=0), subject.samples(4, None, seed=0))


def test_the_untrained_generator_has_the_configuration_and_other_weights(tmp_path: Path) -> None:
    subject = open_checkpoint(weights(tmp_path, "acgan"))
    untrained = subject.untrained()
    assert untrained.classes == subject.classes == 3
    labels = np.zeros(4, np.int64)
    assert untrained.samples(4, labels, 0).shape == (4, 3, 32, 32)
    assert worst(untrained.samples(4, labels, 0), subject.samples(4, labels, 0)) > 1


@pytest.mark.parametrize("model", ["dcgan", "acgan"])
def test_the_untrained_generators_samples_are_not_flat(tmp_path: Path, model: str) -> None:
    """With batch norm's initial statistics each layer shrinks the signal: their deviation is 0.5 grey levels then."""
    samples = open_checkpoint(weights(tmp_path, model)).untrained().samples(8, np.zeros(8, np.int64), 0)
    assert samples.std() > 3


def test_bicubic_is_the_training_datas_own(tmp_path: Path) -> None:
    image = picture(9, 12)
    np.testing.assert_array_equal(BicubicSubject(3).convert(image), resize(image, 3))


def test_a_subject_refuses_what_its_task_cannot_do(tmp_path: Path) -> None:
    upscaler, sampler = (open_checkpoint(weights(tmp_path, model)) for model in ("esrgan", "dcgan"))
    with pytest.raises(InvalidInput, match="esrgan takes pictures, it does not draw samples"):
        upscaler.samples(1, None, 0)
    with pytest.raises(InvalidInput, match="dcgan draws samples, it takes no pictures"):
        sampler.convert(picture(8, 8))
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        open_bundle(tmp_path)


def test_a_file_that_does_not_say_its_model_needs_the_option(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for model in ("acgan", "dcgan"):
        spec = families.get(model)
        torch.save(spec.module(spec.config()).state_dict(), tmp_path / f"{model}.pth")
    with pytest.raises(InvalidInput, match=r"model: is missing, and acgan\.pth does not say which"):
        named_model(tmp_path / "acgan.pth")
    assert open_checkpoint(tmp_path / "acgan.pth", "acgan").name == "acgan"
    assert open_checkpoint(tmp_path / "dcgan.pth").name == "dcgan"  # its tensors' names do
    with pytest.raises(InvalidInput, match="expected 'esrgan'"):
        open_checkpoint(weights(tmp_path, "dcgan"), "esrgan")
