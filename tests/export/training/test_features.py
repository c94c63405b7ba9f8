"""Tests of feature networks against the same layers written by hand, from both kinds of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from export.networks.features import IMAGENET_MEAN, IMAGENET_STD, NETS, load
from runtime.errors import InvalidInput
from tests.export.evaluation.data import public


def image(height: int = 20, width: int = 27) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def vgg19() -> nn.Sequential:
    """All of VGG19's convolutions, places in the Sequential as torchvision's file has them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def style_vgg() -> nn.Sequential:
    """The style-transfer file's layers up to conv3_1."""
    torch.manual_seed(0)
    pad, pool, relu = nn.ReflectionPad2d(1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(3, 3, 1),
        pad, nn.Conv2d(3, 64, 3), relu, pad, nn.Conv2d(64, 64, 3), relu, pool,
        pad, nn.Conv2d(64, 128, 3), relu, pad, nn.Conv2d(128, 128, 3), relu, pool,
        pad, nn.Conv2d(128, 256, 3),
    )  # fmt: skip


def torchvision_file(path: Path) -> Path:
    state = {f"features.{key}": value for key, value in vgg19().state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


# Where conv1_2, conv3_4 and conv5_4 lie in torchvision's VGG19.
@pytest.mark.parametrize(("name", "place"), [("conv1_2", 2), ("conv3_4", 16), ("conv5_4", 34)])
def test_vgg19_is_its_layers_before_the_activation(tmp_path: Path, name: str, place: int) -> None:
    features = load(f"vgg19-{name}", torchvision_file(tmp_path / "vgg19.pth"))
    by_hand = vgg19()[: place + 1]
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    maps = features(image(32, 40))
    torch.testing.assert_close(maps, by_hand((image(32, 40) - mean) / std).detach())
    assert maps.min() < 0


def test_the_style_network_is_its_layers_before_the_activation(tmp_path: Path) -> None:
    torch.save(style_vgg().state_dict(), tmp_path / "style.pth")
    features = load("vgg-normalised-conv3_1", tmp_path / "style.pth")
    maps = features(image())
    assert maps.shape == (2, 256, 5, 7)  # 20×27, halved twice, rounded up
    torch.testing.assert_close(maps, style_vgg()(image()).detach())
    assert maps.min() < 0


def test_a_feature_network_is_frozen_and_passes_gradients_to_the_picture(tmp_path: Path) -> None:
    features = load("vgg19-conv1_2", torchvision_file(tmp_path / "vgg19.pth"))
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert not features.train().training
    picture = image().requires_grad_()
    features(picture).square().mean().backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0


def test_every_convolution_of_vgg19_has_its_name() -> None:
    assert len([name for name in NETS if name.startswith("vgg19-")]) == 16


def test_a_file_that_does_not_fit_is_named_with_its_keys(tmp_path: Path) -> None:
    torch.save(style_vgg().state_dict(), tmp_path / "style.pth")
    with pytest.raises(
        InvalidInput,
        match=r"style\.pth does not hold the weights of vgg19-conv1_1: missing features\.0\.weight",
    ):
        load("vgg19-conv1_1", tmp_path / "style.pth")
    torch.save(
        {"features.0.weight": torch.zeros(64, 1, 3, 3), "features.0.bias": torch.zeros(64)},
        tmp_path / "grey.pth",
    )
    with pytest.raises(
        InvalidInput, match=r"features\.0\.weight is \[64, 1, 3, 3\], expected \[64, 3, 3, 3\]"
    ):
        load("vgg19-conv1_1", tmp_path / "grey.pth")
    with pytest.raises(InvalidInput, match="no file at"):
        load("vgg19-conv1_1", tmp_path / "nowhere.pth")
    with pytest.raises(InvalidInput, match="features: got 'vgg16', expected one of vgg19-conv1_1"):
        load("vgg16", tmp_path / "style.pth")


def test_without_a_path_it_is_downloaded_once_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def give(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append({"url": url} | options)
        return {f"features.{key}": value for key, value in vgg19().state_dict().items()}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", give)
    assert load("vgg19-conv2_1")(image()).shape == (2, 128, 10, 13)
    assert asked[0]["url"].endswith("vgg19-dcbb9e9d.pth")
    assert asked[0]["check_hash"]
    assert asked[0]["weights_only"]


def test_a_failed_download_names_the_option_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **options: Any) -> dict[str, Tensor]:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(InvalidInput, match=r"cannot be downloaded .*give --vgg19 PATH"):
        load("vgg19-conv5_4")
    with pytest.raises(InvalidInput, match="vgg-normalised-conv3_1 cannot be downloaded, give --vgg19 PATH"):
        load("vgg-normalised-conv3_1")


def test_the_public_style_file_fits() -> None:
    path = public("feature-nets/vgg_normalised_conv3_1.pth")
    features = load("vgg-normalised-conv3_1", path)
    smooth = torch.nn.functional.interpolate(image(), scale_factor=4, mode="bicubic").clamp(0, 1)
    # Its activations were scaled to a mean of one over many photographs; one picture lies about there.
    assert 0.1 < float(features(smooth).relu().mean()) < 10
