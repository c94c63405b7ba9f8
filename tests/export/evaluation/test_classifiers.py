"""Tests of loading classifiers from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.checkpoints import checkpoint
from export.evaluation.classifiers import (
    BATCH,
    CIFAR10,
    Config,
    Residual,
    ResNet56,
    SmallNet,
    load,
    save_small,
)
from runtime.errors import InvalidInput
from tests.export.evaluation.data import public


def pictures(count: int, channels: int) -> torch.Tensor:
    """[N, C, 32, 32] uint8."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8, generator=random)


def public_file(path: Path, **replaced: object) -> Path:
    """A file in the form of the public one, with random weights."""
    torch.manual_seed(0)
    state = {f"module.{key}": value for key, value in ResNet56().state_dict().items()}
    torch.save({"best_prec1": 94.37, "state_dict": state} | replaced, path)
    return path


def test_a_small_classifier_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Config(channels=3, classes=4, width=4)
    net = SmallNet(config).eval()
    save_small(tmp_path / "judge.safetensors", config, net, ("a", "b", "c", "d"))
    judge = load(tmp_path / "judge.safetensors")
    assert (judge.size, judge.channels, judge.class_names) == (32, 3, ("a", "b", "c", "d"))
    images = pictures(3, 3)
    with torch.inference_mode():
        expected = net.embed(images.float() / 255)
    # Weights are stored in float16: 11-bit significands.
    torch.testing.assert_close(judge.classify(images, "looking").features, expected, rtol=1e-2, atol=1e-2)


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    config = Config(classes=3, width=2)
    save_small(tmp_path / "judge.safetensors", config, SmallNet(config), ())
    assert load(tmp_path / "judge.safetensors").class_names == ("0", "1", "2")


def test_batches_give_the_features_and_the_likeliest_classes_of_all(tmp_path: Path) -> None:
    config = Config(channels=3, classes=4, width=4)
    torch.manual_seed(0)
    save_small(tmp_path / "judge.safetensors", config, SmallNet(config), ())
    judge, images = load(tmp_path / "judge.safetensors"), pictures(BATCH + 44, 3)
    classified = judge.classify(images, "looking")
    with torch.inference_mode():
        features, logits = judge.net.embed(images.float() / 255), judge.net(images.float() / 255)
    # Another batch size is another order of sums in float32.
    torch.testing.assert_close(classified.features, features, rtol=1e-4, atol=1e-5)
    assert (classified.classes == logits.argmax(1)).double().mean() > 0.99


def test_the_public_form_of_resnet56_is_read(tmp_path: Path) -> None:
    path = public_file(tmp_path / "resnet56.th")
    judge = load(path)
    assert (judge.size, judge.channels, judge.class_names) == (32, 3, CIFAR10)
    assert judge.classify(pictures(2, 3), "looking").features.shape == (2, 64)
    assert judge.net(pictures(2, 3) / 255).shape == (2, 10)


def test_resnet56_has_the_papers_parameters() -> None:
    assert sum(parameter.numel() for parameter in ResNet56().parameters()) == 853_018  # 0.85 M in the paper


def test_a_narrowing_shortcut_takes_every_other_pixel_and_adds_empty_maps() -> None:
    block = Residual(4, 8).eval()
    torch.nn.init.zeros_(block.bn2.get_parameter("weight"))  # leaves the shortcut alone
    image = torch.rand(1, 4, 6, 6)
    output = block(image)
    torch.testing.assert_close(output[:, 2:6], image[:, :, ::2, ::2])
    assert output[:, :2].abs().max() == 0
    assert output[:, 6:].abs().max() == 0


def test_a_file_that_holds_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no file at .*nowhere\.th"):
        load(tmp_path / "nowhere.th")
    (tmp_path / "junk.th").write_bytes(b"no archive")
    with pytest.raises(InvalidInput, match=r"junk\.th cannot be read"):
        load(tmp_path / "junk.th")
    torch.save({"weights": 1}, tmp_path / "other.th")
    with pytest.raises(InvalidInput, match="has no `state_dict`"):
        load(tmp_path / "other.th")
    public_file(tmp_path / "cut.th", state_dict={"module.linear.weight": torch.zeros(10, 64)})
    with pytest.raises(InvalidInput, match=r"missing bn1\.bias"):
        load(tmp_path / "cut.th")
    with pytest.raises(InvalidInput, match="holds 'dcgan' by its metadata"):
        load(checkpoint.SHIPPED / "dcgan.safetensors")


@pytest.mark.slow
def test_the_public_resnet56_is_as_right_as_its_page_says() -> None:
    judge = load(public("feature-nets/resnet56-4bfd9763.th"))
    with np.load(public("cifar10/cifar10_test.npz")) as archive:
        images = torch.from_numpy(archive["images"].transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(archive["labels"].astype(np.int64))
        assert tuple(archive["classes"]) == CIFAR10
    right = (judge.classify(images, "looking").classes == labels).double().mean()
    # Its page states an error of 6.61 %: to the picture, but for those that another order of sums may tip.
    assert float(right) == pytest.approx(0.9339, abs=0.0005)
