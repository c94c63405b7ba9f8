"""Tests of style transfer by optimisation, through its command, with small random feature networks and small pictures."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn
from torch.nn import functional as F

from export import stylize
from export.networks.features import CONVOLUTIONS, TORCHVISION, Vgg19File, open_vgg19
from export.stylizing import output, pictures
from export.stylizing.objective import Layers, Objective, Weights, choose_layers
from export.stylizing.optimisation import minimise
from export.training.progress import ProgressDisplay
from runtime import pixels

SIDE = 32


def vgg_beginning() -> nn.Sequential:
    """The layers of the style-transfer file up to conv2_1, by hand, with the paper's average pooling."""
    torch.manual_seed(0)
    pad, relu = nn.ReflectionPad2d(1), nn.ReLU()
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1),
        pad, nn.Conv2d(3, 64, 3), relu, pad, nn.Conv2d(64, 64, 3), relu, nn.AvgPool2d(2, ceil_mode=True),
        pad, nn.Conv2d(64, 128, 3), relu,
    )  # fmt: skip
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network.requires_grad_(False)


# Where conv1_1 and conv2_1 end, after the activation.
ENDS = {"conv1_1": 4, "conv2_1": 11}


def photograph(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A smooth picture, [H, W, 3] uint8."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=random)
    return pixels.to_uint8(F.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0).numpy())


def pattern() -> np.ndarray:
    """Diagonal stripes in two colours, [H, W, 3] uint8: a texture with fine structure."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.where(((rows + columns) // 3 % 2)[..., None], [230, 180, 40], [20, 40, 120]).astype(np.uint8)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "tiny.pth"
    torch.save(vgg_beginning().state_dict(), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with content.png and style.png."""
    (tmp_path / "content.png").write_bytes(pixels.encode(photograph(1), "png"))
    (tmp_path / "style.png").write_bytes(pixels.encode(pattern(), "png"))
    return tmp_path


def run(
    folder: Path, vgg: Path, *options: object, content: str = "content.png", out: str = "out.png"
) -> Result:
    arguments = [folder / content, folder / "style.png", folder / out, "--vgg19", vgg, *options]
    return CliRunner().invoke(stylize.main, [str(argument) for argument in arguments])


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def image(path: Path) -> np.ndarray:
    return pixels.decode(path.read_bytes(), max_pixels=10**6)


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]


def losses(text: str, step: int) -> dict[str, float]:
    """The figures of a step's line in the output."""
    line = next(line for line in text.splitlines() if line.startswith(f"step {step}/"))
    words = line.split()[2:]
    return {
        name: float(value) for name, value in zip(words[::2], words[1::2], strict=False) if name.isalpha()
    }


def tutorial_gram(maps: Tensor) -> Tensor:
    """PyTorch's tutorial on neural transfer, gram_matrix."""
    a, b, c, d = maps.size()
    features = maps.view(a * b, c * d)
    return torch.mm(features, features.t()).div(a * b * c * d)


def by_hand(picture: Tensor, content: Tensor, style: Tensor) -> tuple[float, float]:
    """The content's loss at conv2_1 as in PyTorch's tutorial, and the style's at conv1_1 and conv2_1 by the paper's formula."""
    network = vgg_beginning()
    deepest = network[: ENDS["conv2_1"]]
    each = []
    for end in ENDS.values():
        maps, wanted = network[:end](picture), network[:end](style)
        N, M = maps.shape[1], maps.shape[2] * maps.shape[3]
        G = maps[0].flatten(1) @ maps[0].flatten(1).T
        # The paper has pictures of the same size; a style of another size is scaled to as many pixels.
        A = wanted[0].flatten(1) @ wanted[0].flatten(1).T * M / (wanted.shape[2] * wanted.shape[3])
        paper = float((G - A).square().sum()) / (4 * N**2 * M**2)
        tutorial = float(F.mse_loss(tutorial_gram(maps), tutorial_gram(wanted)))
        assert tutorial * N**2 / 4 == pytest.approx(paper, rel=1e-3)
        each.append(paper)
    return float(F.mse_loss(deepest(picture), deepest(content))), sum(each) / len(each)


@pytest.mark.parametrize("start", ["content", "style"])
def test_the_losses_are_those_of_the_paper_and_of_the_tutorial(folder: Path, vgg: Path, start: str) -> None:
    """At the first step, where the picture is known; with average pooling and features after the activation."""
    (folder / "style.png").write_bytes(pixels.encode(pattern()[:20], "png"))
    options = ("--steps", 1, "--alpha", 2, "--beta", 3, "--tv", 5, "--from", start)
    shown = losses(done(run(folder, vgg, *options)).output, 1)
    content, style = tensor(image(folder / "content.png")), tensor(image(folder / "style.png"))
    picture = pictures.start(start, content, style, 0)
    wanted = by_hand(picture, content, style)
    assert shown["content"] == pytest.approx(2 * wanted[0], rel=1e-3)
    assert shown["style"] == pytest.approx(3 * wanted[1], rel=1e-3)
    across, down = (picture.diff(dim=axis).square().mean() for axis in (3, 2))
    assert shown["variation"] == pytest.approx(5 * float(across + down), rel=1e-3)
    assert shown["loss"] == pytest.approx(sum(shown.values()) - shown["loss"], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_losses_go_down(folder: Path, vgg: Path, optimizer: str) -> None:
    text = done(run(folder, vgg, "--steps", 40, "--optimizer", optimizer)).output
    assert losses(text, 40)["loss"] < losses(text, 1)["loss"] / 3
    assert image(folder / "out.png").shape == (SIDE, SIDE, 3)
    assert (folder / "out.losses.png").read_bytes().startswith(b"\x89PNG")


def test_from_noise_the_textures_become_the_styles(folder: Path, vgg: Path) -> None:
    done(run(folder, vgg, "--steps", 50, "--alpha", 0, "--beta", 1e4, "--from", "noise", "--seed", 3))
    style, out = (tensor(image(folder / name)) for name in ("style.png", "out.png"))
    noise = pictures.start("noise", out, style, 3)
    assert by_hand(out, out, style)[1] < by_hand(noise, noise, style)[1] / 10


def test_from_the_content_without_a_style_nothing_changes(folder: Path, vgg: Path) -> None:
    done(run(folder, vgg, "--steps", 4, "--beta", 0))
    np.testing.assert_array_equal(image(folder / "out.png"), image(folder / "content.png"))


def test_a_picture_to_start_from_continues_at_another_size(folder: Path, vgg: Path) -> None:
    (folder / "begun.png").write_bytes(pixels.encode(photograph(2, 16, 16), "png"))
    done(run(folder, vgg, "--steps", 1, "--from", folder / "begun.png"))
    begun = pixels.resize(photograph(2, 16, 16), SIDE, SIDE)
    np.testing.assert_array_equal(image(folder / "out.png"), begun)


def test_noise_depends_on_the_seed_alone(folder: Path, vgg: Path) -> None:
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        done(run(folder, vgg, "--steps", 1, "--from", "noise", "--seed", seed, out=name))
    a, b, c = ((folder / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_layers_that_the_file_lacks_are_left_out_by_name(folder: Path, vgg: Path) -> None:
    text = done(run(folder, vgg, "--steps", 1)).output
    assert "features: tiny.pth, the style-transfer VGG19 up to conv2_1, average pooling" in text
    assert "content at conv2_1, style at conv1_1, conv2_1" in text
    assert "conv4_2, conv3_1, conv4_1, conv5_1 left out: tiny.pth ends at conv2_1" in text


def test_the_whole_file_gives_the_papers_layers() -> None:
    layers = choose_layers(Vgg19File("vgg19.pth", TORCHVISION, CONVOLUTIONS, {}))
    assert layers == Layers("conv4_2", ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"), ())
    assert layers.least_px == 32


def test_torchvisions_file_is_told_by_its_tensors(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3))
    torch.save(
        {f"features.{key}": value for key, value in network.state_dict().items()}, tmp_path / "net.pth"
    )
    text = done(run(folder, tmp_path / "net.pth", "--steps", 1)).output
    assert "features: net.pth, torchvision's VGG19 up to conv1_2" in text


def test_a_larger_picture_is_reduced_and_a_smaller_one_is_not(folder: Path, vgg: Path) -> None:
    (folder / "content.png").write_bytes(pixels.encode(photograph(1, 48, 96), "png"))
    text = done(run(folder, vgg, "--steps", 1, "--size", 64)).output
    assert "content: content.png, 64×32 px" in text
    assert f"style: style.png, {SIDE}×{SIDE} px" in text
    assert image(folder / "out.png").shape == (32, 64, 3)


def test_a_grey_picture_is_taken(folder: Path, vgg: Path) -> None:
    (folder / "content.png").write_bytes(pixels.encode(photograph(1)[..., :1], "png"))
    done(run(folder, vgg, "--steps", 1, out="out.jpg"))
    assert image(folder / "out.jpg").shape == (SIDE, SIDE, 3)


def test_colours_are_kept_when_asked_for(folder: Path, vgg: Path) -> None:
    gentle = 96 + photograph(1) // 4  # far from black and white, where colours are cut off
    (folder / "content.png").write_bytes(pixels.encode(gentle, "png"))
    done(run(folder, vgg, "--steps", 1, "--from", "style", "--keep-colours"))
    out, content = (image(folder / name).astype(int) for name in ("out.png", "content.png"))
    assert np.abs(out - content).max() > 10
    inside = ((out > 0) & (out < 255)).all(2)
    assert inside.mean() > 0.5
    for a, b in ((0, 1), (1, 2)):  # the differences of the channels are the colour
        moved = (out[..., a] - out[..., b]) - (content[..., a] - content[..., b])
        assert np.abs(moved[inside]).max() <= 1  # rounding


def test_pictures_on_the_way_are_kept_and_replaced(folder: Path, vgg: Path) -> None:
    text = done(run(folder, vgg, "--steps", 6, "--every", 2)).output
    assert f"every 2 steps: {folder / 'out-steps'}" in text
    assert sorted(path.name for path in (folder / "out-steps").iterdir()) == [
        "00002.png",
        "00004.png",
        "00006.png",
    ]
    assert (folder / "out-steps" / "00006.png").read_bytes() == (folder / "out.png").read_bytes()
    done(run(folder, vgg, "--steps", 1, "--every", 1, "--overwrite"))
    assert [path.name for path in (folder / "out-steps").iterdir()] == ["00001.png"]


def test_ctrl_c_keeps_the_best_so_far(folder: Path, vgg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = ProgressDisplay.advance

    def interrupt(self: ProgressDisplay, step: int, done: float) -> None:
        advance(self, step, done)
        if step == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressDisplay, "advance", interrupt)
    result = run(folder, vgg, "--steps", 1000)
    assert result.exit_code == 130
    assert "interrupted after step 5 of 1000: kept the best so far" in result.output
    assert (folder / "out.losses.png").is_file()
    style, content, out = (tensor(image(folder / name)) for name in ("style.png", "content.png", "out.png"))
    assert by_hand(out, content, style)[1] < by_hand(content, content, style)[1]


def test_the_best_picture_is_kept_and_not_the_last() -> None:
    """An objective that counts its calls: the third is the smallest."""
    values = iter([5.0, 4.0, 1.0, 3.0, 2.0])
    seen: list[Tensor] = []

    def objective(picture: Tensor) -> dict[str, Tensor]:
        seen.append(picture.detach().clone())
        return {"loss": picture.mean() * 0 + next(values) + (picture - picture.detach()).sum()}

    progress = minimise(objective, torch.full((1, 3, 4, 4), 0.9), optimizer="adam", steps=5)
    assert (progress.step, progress.best_step, progress.best_loss) == (5, 3, 1.0)
    torch.testing.assert_close(progress.best, seen[2].clamp(0, 1))


def test_losses_that_are_not_finite_say_what_to_do(folder: Path, vgg: Path) -> None:
    result = run(folder, vgg, "--steps", 3, "--beta", "1e39")
    assert result.exit_code == 1
    assert "not finite" in result.output
    assert "try smaller --alpha, --beta and --tv, or --optimizer adam" in result.output
    assert not (folder / "out.png").exists()


def refusals(folder: Path) -> dict[str, tuple[dict[str, Any], Sequence[object]]]:
    """A part of the message → what gives it: keyword arguments of `run`, and options."""
    jpeg = pixels.encode(photograph(1), "jpeg")
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "text.jpg").write_text("no picture")
    (folder / "pixel.png").write_bytes(pixels.encode(photograph(1, 1, 1), "png"))
    (folder / "thin.png").write_bytes(pixels.encode(photograph(1, 2, 90), "png"))
    (folder / "old.png").write_bytes(b"an earlier result")
    (folder / "older-steps").mkdir()
    (folder / "begun.png").write_bytes(jpeg)
    (folder / "sub.png").mkdir()
    (folder / "taken.losses.png").write_bytes(pixels.encode(photograph(1), "png"))
    return {
        "CONTENT: ": ({"content": "missing.png"}, ()),
        "No such file": ({"content": "missing.png"}, ()),
        "CONTENT: text.jpg cannot be used": ({"content": "text.jpg"}, ()),
        "CONTENT: cut.jpg cannot be used": ({"content": "cut.jpg"}, ()),
        "is 1×1 px at this size, expected 4 px a side or more": ({"content": "pixel.png"}, ()),
        "is 32×1 px at this size": ({"content": "thin.png"}, ("--size", 32)),
        "got out.gif, expected a name ending in .png": ({"out": "out.gif"}, ()),
        "old.png exists; --overwrite replaces it": ({"out": "old.png"}, ()),
        "older-steps exists; --overwrite": ({"out": "older.png"}, ()),
        "sub.png exists and is not a regular file": ({"out": "sub.png"}, ("--overwrite",)),
        "content.png is one of the pictures that are read": ({"out": "content.png"}, ("--overwrite",)),
        "style.png is one of the pictures that are read": ({"out": "style.png"}, ("--overwrite",)),
        "taken.losses.png is one of the pictures": (
            {"content": "taken.losses.png", "out": "taken.jpg"}, ("--overwrite",)
        ),
        "begun.png is one of the pictures": (
            {"out": "begun.png"}, ("--overwrite", "--from", folder / "begun.png")
        ),
        "older-steps is read, whose files are replaced": (
            {"out": "older.png"}, ("--overwrite", "--from", folder / "older-steps" / "00050.png")
        ),
        "content.png/out.png cannot be written": ({"out": "content.png/out.png"}, ()),
        "and --beta are both 0": ({}, ("--alpha", 0, "--beta", 0)),
        "vgg19: no file at": ({}, ("--vgg19", folder / "nowhere.pth")),
        "vgg19: text.jpg cannot be read": ({}, ("--vgg19", folder / "text.jpg")),
        "from: missing.png cannot be read": ({}, ("--from", "missing.png")),
        "from: text.jpg cannot be used": ({}, ("--from", folder / "text.jpg")),
        "device: got 'abacus'": ({}, ("--device", "abacus")),
    }  # fmt: skip


def test_bad_input_is_named_before_the_first_step(
    folder: Path, vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stylize, "minimise", None)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for message, (arguments, options) in refusals(folder).items():
        result = run(folder, vgg, *options, **arguments)
        assert result.exit_code == 1, (message, result.output)
        assert message in " ".join(result.output.split()), (message, result.output)
    assert {path: path.read_bytes() for path in before} == before
    assert not (folder / "out.png").exists()


def test_a_huge_picture_is_refused_by_its_header(
    folder: Path, vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", SIDE * SIDE - 1)
    result = run(folder, vgg)
    assert result.exit_code == 1
    assert "CONTENT: content.png cannot be used: " in result.output
    assert "32×32 pixels" in result.output


def test_every_format_of_the_output_can_be_written(tmp_path: Path) -> None:
    for suffix in output.FORMATS:
        files = output.Output(tmp_path / f"out{suffix}", (), overwrite=True)
        files.save(photograph(1))
        assert image(files.path).shape == (SIDE, SIDE, 3)


def test_style_pictures_of_any_size_compare(vgg: Path) -> None:
    """A texture that repeats has the same Gram matrices at twice the size, apart from its border."""
    file = open_vgg19(vgg)
    layers = choose_layers(file)
    network = file.network(layers.style, activated=True, pooling="average")
    small = tensor(np.tile(pattern()[:12, :12], (8, 8, 1)))
    large = tensor(np.tile(pattern()[:12, :12], (16, 16, 1)))
    near = Objective(network, layers, small, large, Weights(0, 1))(small)["style"]
    far = Objective(network, layers, small, tensor(photograph(1)), Weights(0, 1))(small)["style"]
    assert near < far / 100
