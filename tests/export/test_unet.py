"""pix2pix's U-Net as a bundle: verified in every precision, and served as torch computes it, at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from export.build.command import main as build
from export.build.compare import difference
from export.checkpoints import checkpoint
from export.models.cyclegan.generator import SPEC, Config
from export.models.cyclegan.unet import SkipBlock
from runtime import bundle as bundles
from runtime.backends import open_engine
from runtime.tiling.inline import run_picture


@pytest.fixture(scope="module", params=["instance", "batch", pytest.param("picture", marks=pytest.mark.slow)])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights that leave tanh's middle."""
    config = Config("unet", features=4, downs=3, norm=request.param, dropout=0.5)
    torch.manual_seed(0)
    network = SPEC.module(config).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.dim() == 4:
            value.mul_(8)
    path = tmp_path_factory.mktemp("unet") / f"{request.param}.safetensors"
    checkpoint.save(path, "cyclegan", config, network, ())
    return path


@pytest.mark.parametrize(
    "precision",
    ["fp32", pytest.param("fp16", marks=pytest.mark.slow), pytest.param("bf16", marks=pytest.mark.slow)],
)
def test_it_is_verified_and_pictures_of_any_size_are_answered_as_torch_answers_them(
    precision: str, weights: Path, tmp_path: Path
) -> None:
    options = ("--model", "cyclegan", "--weights", weights, f"--{precision}", "--target", "onnx")
    limit = ("--max-whole-px", "4096", "--output", tmp_path, "--name", "unet")
    result = CliRunner().invoke(build, [str(word) for word in (*options, *limit)])
    assert result.exit_code == 0, result.output
    bundle = bundles.load(tmp_path / "unet")
    assert (bundle.manifest.size_multiple, bundle.manifest.padding) == (8, "reflect")
    module = checkpoint.load("cyclegan", str(weights), {}).module.eval()
    engine, _ = open_engine(bundle)
    for height, width in ((1, 1), (3, 5), (7, 5), (17, 8), (40, 24)):
        picture = np.random.default_rng(height).random((3, height, width), np.float32)
        pads = [(0, -side % 8) for side in (height, width)]
        padded = torch.from_numpy(np.pad(picture, [(0, 0), *pads], "reflect"))[None]
        with torch.inference_mode():
            expected = (module(padded * 2 - 1)[0, :, :height, :width].numpy() + 1) / 2
        error = difference(run_picture(engine, picture), expected, peak=1.0)
        assert error.psnr_db >= SPEC.tolerances[bundle.manifest.precision].psnr_db, error
    engine.close()


def test_dropout_changes_what_is_learned_and_not_what_is_served() -> None:
    """Only between the halvings that have the most maps, but for the innermost: as in pix2pix, the three middle ones of 8."""
    network = SPEC.module(Config("unet", features=1, downs=8, dropout=0.5)).eval()
    dropped = [
        any(isinstance(layer, torch.nn.Dropout) for layer in block.model)
        for block in network.modules()
        if isinstance(block, SkipBlock)
    ]
    assert dropped == [False, False, False, True, True, True, False]
    picture = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        assert torch.equal(network(picture), network(picture))
        network.train()
        assert not torch.equal(network(picture), network(picture))


def test_the_sizes_of_the_paper() -> None:
    """As pytorch-CycleGAN-and-pix2pix prints them: 54.414 M."""
    with torch.device("meta"):
        network = SPEC.module(Config("unet", norm="batch"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 54_413_955
    assert SPEC.signature(Config("unet")).size_multiple == 256
