"""Tests of feature networks against the same layers written by hand, from both kinds of file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from export.networks.features import (
    CONVOLUTIONS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    NETS,
    NORMALISED,
    TORCHVISION,
    gram,
    load,
    open_vgg19,
)
from runtime.errors import InvalidInput
from tests.export.evaluation.data import public


def image(height: int = 20, width: int = 27) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@cache
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
    torch.save(beginning(vgg19(), 3), tmp_path / "vgg19.pth")
    features = load("vgg19-conv1_2", tmp_path / "vgg19.pth")
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
        match=r"style\.pth does not hold the weights of vgg19-conv1_1: it is the style-transfer VGG19 up to conv3_1",
    ):
        load("vgg19-conv1_1", tmp_path / "style.pth")
    torch.save(
        {"features.0.weight": torch.zeros(64, 1, 3, 3), "features.0.bias": torch.zeros(64)},
        tmp_path / "grey.pth",
    )
    with pytest.raises(
        InvalidInput,
        match=r"grey\.pth holds no VGG19: .*features\.0\.weight \[64, 3, 3, 3\] .*got features\.0\.weight \[64, 1",
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


def beginning(network: nn.Sequential, layers: int, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a network's first so many layers."""
    return {prefix + key: value for key, value in network[:layers].state_dict().items()}


def averaging(network: nn.Sequential) -> nn.Sequential:
    """The same network with average pooling."""
    return nn.Sequential(
        *(
            nn.AvgPool2d(2, ceil_mode=layer.ceil_mode) if isinstance(layer, nn.MaxPool2d) else layer
            for layer in network
        )
    )


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("kind", [TORCHVISION, NORMALISED])
def test_several_layers_come_from_one_pass(
    tmp_path: Path, kind: object, activated: bool, pooling: str
) -> None:
    """Each layer equals the network that ends there. The picture's sides are odd: one kind of file pools them up, one down."""
    whole, picture = (vgg19(), image(36, 45)) if kind is TORCHVISION else (style_vgg(), image(36, 45))
    torch.save(beginning(whole, 17), tmp_path / "net.pth")
    # Their places in the two Sequentials.
    ends = (
        {"conv1_1": 0, "conv2_1": 5, "conv3_1": 10} if kind is TORCHVISION else {"conv1_1": 2, "conv3_1": 16}
    )
    network = open_vgg19(tmp_path / "net.pth").network(tuple(ends), activated=activated, pooling=pooling)
    found = network(picture)
    assert list(found) == list(ends)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    seen = (picture - mean) / std if kind is TORCHVISION else picture
    for name, end in ends.items():
        by_hand = (averaging(whole) if pooling == "average" else whole)[: end + 1](seen).detach()
        torch.testing.assert_close(found[name], by_hand.relu() if activated else by_hand)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_one_layer_after_the_activation(tmp_path: Path) -> None:
    torch.save(beginning(vgg19(), 8), path := tmp_path / "vgg19.pth")
    before, after = (load("vgg19-conv2_2", path, activated=activated) for activated in (False, True))
    torch.testing.assert_close(after(image()), before(image()).relu())


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_a_file_may_end_early_and_is_told_by_its_tensors(tmp_path: Path, prefix: str) -> None:
    torch.save(beginning(vgg19(), 12, prefix), tmp_path / "style-transfer.pth")  # a name that misleads
    file = open_vgg19(tmp_path / "style-transfer.pth")
    assert file.kind is TORCHVISION
    assert file.names == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    assert file.missing(("conv1_1", "conv4_2", "conv5_1")) == ("conv4_2", "conv5_1")
    assert str(file) == "style-transfer.pth ends at conv3_1"
    with pytest.raises(InvalidInput, match=r"there is no conv4_2: style-transfer\.pth ends at conv3_1"):
        file.network(("conv1_1", "conv4_2"))
    with pytest.raises(InvalidInput, match="of vgg19-conv5_4: it is torchvision's VGG19 up to conv3_1"):
        load("vgg19-conv5_4", tmp_path / "style-transfer.pth")
    torch.save(beginning(style_vgg(), 6), tmp_path / "vgg19.pth")
    file = open_vgg19(tmp_path / "vgg19.pth")
    assert file.kind is NORMALISED
    assert file.names == ("conv1_1", "conv1_2")


def test_the_whole_file_has_every_convolution(tmp_path: Path) -> None:
    path = torchvision_file(tmp_path / "vgg19.pth")
    assert open_vgg19(path).names == CONVOLUTIONS
    torch.save(torch.load(path) | {"features.37.weight": torch.zeros(1)}, path)
    with pytest.raises(InvalidInput, match=r"its first layers: unexpected features\.37\.weight$"):
        open_vgg19(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"5.weight": None}, "missing 5.weight"),
        ({"12.bias": None}, "missing 12.bias"),
        ({"9.weight": torch.zeros(128, 64, 1, 1)}, "9.weight is [128, 64, 1, 1], expected [128, 64, 3, 3]"),
        ({"9.bias": torch.full((128,), torch.nan)}, "9.bias has values that are not finite"),
        ({"6.running_mean": torch.zeros(64)}, "unexpected 6.running_mean"),
        # VGG16 differs from VGG19 after its seventh convolution.
        ({"19.weight": torch.zeros(512, 256, 3, 3)}, "missing 19.bias"),
        ({"18.weight": torch.zeros(512, 256, 3, 3)}, "unexpected 18.weight"),
    ],
)
def test_a_file_with_a_gap_or_another_networks_layers_is_refused(
    tmp_path: Path, change: dict[str, Tensor | None], problem: str
) -> None:
    tensors = style_vgg().state_dict() | change
    tensors = {key: value for key, value in tensors.items() if value is not None}
    torch.save(tensors, tmp_path / "net.pth")
    with pytest.raises(InvalidInput) as refused:
        open_vgg19(tmp_path / "net.pth")
    assert problem in str(refused.value)


def test_what_is_no_vgg19_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    torch.save({}, tmp_path / "empty.pth")
    torch.save(beginning(style_vgg(), 1), tmp_path / "front.pth")
    for name, problem in {
        "text.pth": "text.pth cannot be read",
        "linear.pth": r"linear.pth holds no VGG19: .*got weight \[2, 2\]",
        "empty.pth": "got nothing",
        "front.pth": "front.pth ends before conv1_1",
    }.items():
        with pytest.raises(InvalidInput, match=f"^vgg19: .*{problem}"):
            open_vgg19(tmp_path / name)


def test_the_gram_matrix_is_the_sum_over_the_pixels() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    matrices = gram(maps)
    assert matrices.shape == (2, 3, 3)
    for picture, matrix in zip(maps.tolist(), matrices.tolist(), strict=True):
        for i in range(3):
            for j in range(3):
                total = sum(picture[i][y][x] * picture[j][y][x] for y in range(4) for x in range(5))
                assert matrix[i][j] == pytest.approx(total / (3 * 4 * 5), abs=1e-6)


def test_the_public_style_file_fits() -> None:
    path = public("feature-nets/vgg_normalised_conv3_1.pth")
    features = load("vgg-normalised-conv3_1", path)
    smooth = torch.nn.functional.interpolate(image(), scale_factor=4, mode="bicubic").clamp(0, 1)
    # Its activations were scaled to a mean of one over many photographs; one picture lies about there.
    assert 0.1 < float(features(smooth).relu().mean()) < 10
