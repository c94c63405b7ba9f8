"""Tests of `python -m export.evaluate` on every kind of subject."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from export import families
from export.checkpoints import checkpoint
from export.data import read_picture, write_picture
from export.evaluate import ServerSubject, main
from export.evaluation.classifiers import Config, SmallNet, save_small
from export.networks.features import NETS, layers
from protos import ganforge_pb2 as pb
from runtime import pixels
from server.client import Client
from tests.conftest import TinyBundle
from tests.export.lively import class_names, lively
from tests.export.originals import Old
from tests.server import conftest as servers

# A real server over engines in numpy, and what that fixture needs, under the names that pytest looks for.
loop, serve, served = servers.loop, servers.serve, servers.served


def run(*arguments: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def weights(folder: Path, model: str) -> Path:
    spec, path = families.get(model), folder / f"{model}.safetensors"
    checkpoint.save(path, model, spec.tiny, lively(spec), class_names(spec))
    return path


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """A folder of two smooth 64×56 pictures."""
    folder = tmp_path / "HR"
    folder.mkdir()
    down, across = np.mgrid[0:56, 0:64]
    for number in (1, 2):
        planes = [np.sin(down / (3 * number)), np.cos(across / (5 * number)), np.sin((down + across) / 9)]
        write_picture(folder / f"{number}.png", (np.stack(planes, axis=2) * 127 + 128).astype(np.uint8))
    return folder


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Random labelled pictures, 40 to train on and 30 to test: three classes, RGB, 32 px."""
    random = np.random.default_rng(0)
    arrays = {
        f"{split}_{name}": values
        for split, count in (("train", 40), ("test", 30))
        for name, values in (
            ("images", random.integers(0, 256, (count, 32, 32, 3), np.uint8)),
            ("labels", (np.arange(count) % 3).astype(np.uint8)),
        )
    }
    np.savez(tmp_path / "real.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path / "real.npz"


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    """A classifier of three classes with random weights."""
    torch.manual_seed(0)
    config = Config(channels=3, classes=3, width=4)
    save_small(tmp_path / "judge.safetensors", config, SmallNet(config), ("cat", "dog", "ship"))
    return tmp_path / "judge.safetensors"


def test_the_bicubic_baseline_is_measured(originals: Path, tmp_path: Path) -> None:
    result = run("bicubic", "--scale", 2, "--hr", originals, "--json", tmp_path / "out" / "bicubic.json")
    assert result.exit_code == 0, result.output
    assert "PSNR Y, dB" in result.output
    assert "perceptual" not in result.output
    figures = json.loads((tmp_path / "out" / "bicubic.json").read_text())
    assert (figures["kind"], figures["scale"], figures["border_px"]) == ("bicubic", 2, 2)
    assert list(figures["pictures"]) == ["1", "2"]
    assert figures["mean"]["psnr_y_db"] > 30  # smooth pictures


def test_a_checkpoint_and_its_bundle_upscale_about_alike(
    originals: Path, tiny_bundle: TinyBundle, tmp_path: Path
) -> None:
    for name, subject in (
        ("checkpoint", weights(tmp_path, "esrgan")),
        ("bundle", tiny_bundle("esrgan", "float32").path),
    ):
        result = run(subject, "--hr", originals, "--json", tmp_path / f"{name}.json", "--threads", 1)
        assert result.exit_code == 0, result.output
    of_checkpoint, of_bundle = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("checkpoint", "bundle")
    )
    assert (of_checkpoint["kind"], of_checkpoint["model"], of_bundle["kind"], of_bundle["model"]) == (
        "checkpoint",
        "esrgan",
        "bundle",
        "esrgan-x4",
    )
    assert of_checkpoint["mean"]["psnr_y_db"] == pytest.approx(of_bundle["mean"]["psnr_y_db"], abs=0.05)


def test_an_open_setting_of_a_checkpoint_is_reported_and_can_be_set(originals: Path, tmp_path: Path) -> None:
    """One up-convolution is that of ×2, rarely of ×3: the file does not say."""
    torch.manual_seed(0)
    network = Old(scale=2, features=4, blocks=1, growth=2, inputs=3, outputs=3)
    torch.save(network.state_dict(), tmp_path / "x2.pth")
    target = tmp_path / "out.json"
    common = (tmp_path / "x2.pth", "--hr", originals, "--json", target)
    result = run(*common)
    assert result.exit_code == 0, result.output
    assert "scale=3" in result.output
    assert json.loads(target.read_text())["scale"] == 2
    result = run(*common, "--set", "scale=3")
    assert result.exit_code == 0, result.output
    assert "scale=3" not in result.output
    assert json.loads(target.read_text())["scale"] == 3


def test_a_perceptual_distance_adds_a_column(originals: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "vgg-normalised-conv3_1"
    torch.save(layers(NETS[name]).state_dict(), tmp_path / "vgg.pth")
    target = tmp_path / "bicubic.json"
    common = ("bicubic", "--scale", 4, "--hr", originals, "--json", target)
    result = run(*common, "--vgg19", tmp_path / "vgg.pth", "--features", name)
    assert result.exit_code == 0, result.output
    assert "perceptual" in result.output
    figures = json.loads(target.read_text())
    assert figures["features"] == name
    assert figures["mean"]["perceptual"] > 0


def test_a_server_upscales_and_draws(
    served: servers.Served,
    originals: Path,
    real: Path,
    judge: Path,
    tmp_path: Path,
) -> None:
    target = tmp_path / "server.json"
    result = run(served.address, "--model", "upscaler", "--hr", originals, "--json", target)
    assert result.exit_code == 0, result.output
    assert json.loads(target.read_text())["kind"] == "server"
    common = ("--data", real, "--classifier", judge, "--count", 30, "--json", target)
    result = run(served.address, "--model", "generator", *common)
    assert result.exit_code == 0, result.output
    figures = json.loads(target.read_text())
    assert figures["sets"]["generator"]["agreement"] is not None
    result = run(served.address, "--model", "plain", *common)
    assert result.exit_code == 0, result.output
    assert json.loads(target.read_text())["sets"]["plain"]["agreement"] is None


def test_a_servers_samples_are_of_the_seed_and_the_classes_asked_for(served: servers.Served) -> None:
    """The fake generator's samples grow brighter with the number of the class."""
    subject = ServerSubject(served.client, "generator")
    dark, bright = (subject.samples(4, np.full(4, label), 7) for label in (0, 2))
    assert (bright.reshape(4, -1).mean(axis=1) > dark.reshape(4, -1).mean(axis=1)).all()
    np.testing.assert_array_equal(subject.samples(4, np.full(4, 2), 7), bright)
    assert not np.array_equal(subject.samples(4, np.full(4, 2), 8), bright)


def test_a_translating_model_is_compared_with_the_originals_of_its_inputs(
    serve: servers.Serve, originals: Path, tmp_path: Path
) -> None:
    """What the network gives is known, so that the originals can be made from the inputs: only PNG's levels are lost."""
    translating = serve(servers.FakeTranslator())
    answers = tmp_path / "answers"
    answers.mkdir()
    for path in originals.iterdir():
        image = pixels.to_float(read_picture(path)) * 2 - 1
        answer = (servers.mirrored_at_the_mean(image[None])[0] + 1) / 2
        write_picture(answers / path.name, pixels.to_uint8(answer.transpose(1, 2, 0)))
    target = tmp_path / "translator.json"
    result = run(translating.address, "--hr", answers, "--lr", originals, "--json", target)
    assert result.exit_code == 0, result.output
    assert "translator on" in result.output
    assert json.loads(target.read_text())["mean"]["psnr_rgb_db"] > 50
    result = run(translating.address, "--hr", answers)
    assert result.exit_code == 1
    assert "lr: is missing; translator is for the task translate" in result.output
    result = run(translating.address, "--data", originals)
    assert "hr: is missing; translator is compared with originals" in result.output


def test_a_server_of_several_models_needs_a_name(served: servers.Served, originals: Path) -> None:
    for name in ((), ("--model", "nope")):
        result = run(served.address, *name, "--hr", originals)
        assert result.exit_code == 1
        assert "expected one of those served: generator, plain, upscaler" in result.output


def test_grey_samples_of_a_server_stay_grey() -> None:
    """A PNG says how many bands it has; decoding gives three."""
    sample = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    info = pb.ModelInfo(name="grey", task=pb.TASK_GENERATE, width=8)
    answer = SimpleNamespace(images=(pixels.encode(sample, "png"),) * 2)
    client = SimpleNamespace(models=lambda: [info], generate=lambda count, **options: answer)
    samples = ServerSubject(cast(Client, client), "").samples(2, None, 0)
    np.testing.assert_array_equal(samples, np.stack([sample.transpose(2, 0, 1)] * 2))


def test_samples_are_measured_beside_untrained_ones_and_the_floor(
    real: Path, judge: Path, tmp_path: Path
) -> None:
    target = tmp_path / "acgan.json"
    common = ("--data", real, "--classifier", judge, "--count", 30, "--seed", 5, "--json", target)
    result = run(weights(tmp_path, "acgan"), *common, "--untrained")
    assert result.exit_code == 0, result.output
    for heading in ("acgan", "untrained", "real test", "agreement", "ship"):
        assert heading in result.output
    figures = json.loads(target.read_text())
    assert figures["class_names"] == ["cat", "dog", "ship"]
    assert list(figures["sets"]) == ["acgan", "untrained", "real test"]
    assert figures["sets"]["real test"]["frechet"] < figures["sets"]["untrained"]["frechet"]
    for row in figures["sets"].values():
        assert row["count"] == 30
        assert sum(row["shares"]) == pytest.approx(1)
    run(weights(tmp_path, "acgan"), *common, "--untrained")
    assert json.loads(target.read_text()) == figures


def test_the_test_set_may_be_another_file(real: Path, judge: Path, tmp_path: Path) -> None:
    with np.load(real) as archive:
        arrays = {name: archive[name] for name in archive}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels)
    common = ("--classifier", judge, "--count", 30, "--json", tmp_path / "out.json")
    subject = weights(tmp_path, "dcgan")
    result = run(subject, "--data", tmp_path / "train.npz", *common)
    assert result.exit_code == 1
    assert "floor-data: " in result.output
    result = run(subject, "--data", tmp_path / "train.npz", "--floor-data", tmp_path / "test.npz", *common)
    assert result.exit_code == 0, result.output
    from_two_files = json.loads((tmp_path / "out.json").read_text())["sets"]
    assert run(subject, "--data", real, *common).exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text())["sets"] == from_two_files


def test_standard_figures_come_from_torch_fidelity(
    real: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def calculate_metrics(**options: Any) -> dict[str, float]:
        asked.append(options)
        return {
            "frechet_inception_distance": 12.0,
            "inception_score_mean": 3.0,
            "inception_score_std": 0.1,
        }

    library = ModuleType("torch_fidelity")
    library.calculate_metrics = calculate_metrics  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", library)
    common = ("--data", real, "--classifier", judge, "--count", 30, "--json", tmp_path / "out.json")
    result = run(weights(tmp_path, "dcgan"), *common, "--inception")
    assert result.exit_code == 0, result.output
    assert "Inception Score" in result.output
    assert json.loads((tmp_path / "out.json").read_text())["inception"]["dcgan"]["fid"] == 12
    for options in asked:
        for pictures in (options["input1"], options["input2"]):
            assert len(pictures) == 30
            assert (pictures[0].shape, pictures[0].dtype) == ((3, 32, 32), torch.uint8)


def test_more_samples_than_test_pictures_are_drawn_with_a_note(
    real: Path, judge: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.json"
    result = run(
        weights(tmp_path, "dcgan"), "--data", real, "--classifier", judge, "--count", 120, "--json", target
    )
    assert result.exit_code == 0, result.output
    assert "There are 30 test pictures for 120 samples" in result.output
    figures = json.loads(target.read_text())
    assert (figures["count"], figures["reference_count"]) == (120, 40)
    assert {name: row["count"] for name, row in figures["sets"].items()} == {"dcgan": 120, "real test": 30}


def test_where_torch_fidelity_is_missing_the_extra_is_named(
    real: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    result = run(weights(tmp_path, "dcgan"), "--data", real, "--classifier", judge, "--inception")
    assert result.exit_code == 1
    assert "inception: torch-fidelity is not installed" in result.output
    assert "'.[inception]'" in result.output


def test_missing_and_wrong_options_are_named_in_the_error(
    originals: Path, real: Path, judge: Path, tiny_bundle: TinyBundle, tmp_path: Path
) -> None:
    sampler, upscaler = weights(tmp_path, "acgan"), weights(tmp_path, "esrgan")
    refusals: dict[str, tuple[object, ...]] = {
        "subject: got 'nowhere', expected a checkpoint's file": ("nowhere",),
        "scale: is missing; bicubic needs --scale": ("bicubic", "--hr", originals),
        "hr: is missing; esrgan is compared with originals": (upscaler,),
        "device: got 'cuda:99', expected cpu, cuda or cuda:N": ("bicubic", "--device", "cuda:99"),
        "device: got 'nonsense', expected cpu": ("bicubic", "--device", "nonsense"),
        "set: got 'scale', expected KEY=VALUE": (upscaler, "--set", "scale"),
        "set: blocks: got 99, but esrgan.safetensors has": (upscaler, "--hr", originals, "--set", "blocks=99"),
        "set: is only for a checkpoint's file": ("bicubic", "--set", "scale=2"),
        "hr: no pictures in": (upscaler, "--hr", tmp_path / "empty"),
        "data: is missing; acgan draws samples": (sampler, "--classifier", judge),
        "classifier: is missing; acgan draws samples": (sampler, "--data", real),
        "python -m export.evaluation.classifier --data DATA --output": (sampler, "--data", real),
        "or the public ResNet-56 for CIFAR-10": (sampler, "--data", real),
        "no file at nowhere.safetensors; give a .safetensors that": (
            sampler, "--data", real, "--classifier", "nowhere.safetensors",
        ),
        "untrained: needs a checkpoint, whose configuration is built untrained; got a bundle": (
            tiny_bundle("acgan", "float32").path, "--data", real, "--classifier", judge, "--untrained",
        ),
        "vgg19: is missing; vgg-normalised-conv3_1 cannot be downloaded": (
            upscaler, "--hr", originals, "--features", "vgg-normalised-conv3_1",
        ),
        "no manifest.json": (tmp_path,),
        "Failed to connect to remote host": ("127.0.0.1:1", "--hr", originals),
    }  # fmt: skip
    (tmp_path / "empty").mkdir()
    for message, arguments in refusals.items():
        result = run(*arguments)
        assert result.exit_code == 1, (message, result.output)
        assert message in " ".join(result.output.split()), (message, result.output)
