"""Tests that a new family needs no other edits: three are added to a copy of the tree, and every command finds them.

tests/families/ holds them: a conditional MLP that draws 28×28, an SRResNet ×2 with [-1, 1] at both ends, and a
`translate` network that must see each picture whole. All is run as a newcomer would, by command and by name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from export.build import photographs
from export.build.compare import difference
from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.errors import InvalidInput
from server.client import Client
from tests.export.lively import lively
from tests.families.mlp import checkpoints as mlp_names
from tests.families.mlp import generator as mlp
from tests.families.restyle import generator as restyle
from tests.families.srresnet import checkpoints as srresnet_names
from tests.families.srresnet import generator as srresnet

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("export", "runtime", "protos", "server", "tests")
FAMILIES = ("mlp", "srresnet", "restyle")
LIMIT_PX = 96 * 96
Command = Callable[..., str]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with the three families in it, beside helpers that are no families."""
    root = tmp_path_factory.mktemp("tree")
    for room in ROOMS:
        shutil.copytree(
            ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    for family in FAMILIES:
        shutil.copytree(ROOT / "tests" / "families" / family, root / "export" / "models" / family)
    (root / "export" / "models" / "shapes.py").write_text('"""A helper module is no family."""\n')
    helpers = root / "export" / "models" / "helpers"
    helpers.mkdir()
    (helpers / "generator.py").write_text('"""Neither is a folder whose generator.py defines no SPEC."""\n')
    return root


@pytest.fixture(scope="module")
def run(tree: Path) -> Command:
    """Runs `python -m MODULE …` in the copy; what it printed. An exit status that is not `code` fails."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}

    def command(module: str, *arguments: object, code: int = 0) -> str:
        result = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    return command


@pytest.fixture(scope="module")
def checkpoints(tree: Path) -> dict[str, Path]:
    """A checkpoint of each family's tiny network, as other people's code would save it."""
    paths = {}
    for family, module in modules().items():
        state: dict[str, Tensor] = module.state_dict()
        theirs: dict[str, Any]
        if family == "mlp":
            theirs = {"model": {name: state[ours] for name, ours in mlp_names.names(layers=2).items()}}
        elif family == "srresnet":
            theirs = {name: state[ours] for name, ours in srresnet_names.names(blocks=1, ups=1).items()}
        else:
            theirs = state
        paths[family] = tree / f"{family}.pth"
        torch.save(theirs, paths[family])
    return paths


def modules() -> dict[str, nn.Module]:
    specs = {"mlp": mlp.SPEC, "srresnet": srresnet.SPEC, "restyle": restyle.SPEC}
    return {family: lively(spec) for family, spec in specs.items()}


SETTINGS = {
    "mlp": ("--classes", "ant,bee,cat"),
    "srresnet": ("--tile", "48", "--halo", "8"),
    "restyle": ("--set", "features=8", "--set", "layers=2", "--max-whole-px", str(LIMIT_PX)),
}


def test_families_are_found_by_their_spec_and_helpers_are_not_families(run: Command) -> None:
    listed = run("export.build", "--list")
    for line in ("mlp (generate)", "srresnet (upscale)", "restyle (translate)", "esrgan (upscale)"):
        assert line in listed.splitlines()
    assert "helpers" not in listed
    assert "shapes" not in listed


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_rehearsed_build_says_what_it_would_be(
    family: str, run: Command, checkpoints: dict[str, Path]
) -> None:
    weights = ("--weights", checkpoints[family])
    said = run("export.build", "--model", family, *weights, *SETTINGS[family], "--dry-run")
    expected = {
        "mlp": ("bundle:        bundles/mlp", "latent_size=8 classes=3 width=16 layers=2", "ant, bee, cat"),
        "srresnet": (
            "bundle:        bundles/srresnet-x2",
            "features=8 blocks=1 scale=2",
            "tile, halo:    48, 8",
        ),
        "restyle": ("bundle:        bundles/restyle", f"largest:       {LIMIT_PX} (pixels, never tiled)"),
    }
    assert all(words in said for words in expected[family]), said


@pytest.mark.slow
def test_checkpoints_of_other_code_bases_are_identified(run: Command, checkpoints: dict[str, Path]) -> None:
    said = run("export.inspect", checkpoints["mlp"])
    for words in ("PyTorch-GAN's cgan", "mlp", "latent_size:   8", "classes:       3"):
        assert words in said
    # Without its folder, the family's tensor names belong to a network that is recognised and refused.
    assert "leftthomas/SRGAN" in run("export.inspect", checkpoints["srresnet"])
    converted = checkpoints["mlp"].with_name("back.pth")
    run("export.convert", checkpoints["mlp"], converted, "--to", "cgan")
    before, after = torch.load(checkpoints["mlp"])["model"], torch.load(converted)
    kept = {name for name in before if not name.endswith("num_batches_tracked")}
    assert after.keys() == kept
    assert all(torch.equal(after[name], before[name]) for name in kept)


@pytest.mark.slow
def test_the_contract_tests_of_generators_hold(run: Command) -> None:
    """Parity with torch, independence of the batch, rewriting, precision: the project's own tests, by name."""
    chosen = f"({' or '.join(FAMILIES)}) and not bfloat16"
    said = run(
        "pytest", "-q", "tests/export/test_generators.py", "tests/export/test_rewrite.py", "-k", chosen
    )
    assert "failed" not in said
    assert f"{len(FAMILIES) * 8} passed" in said


@pytest.fixture(scope="module")
def served(tree: Path, run: Command, checkpoints: dict[str, Path]) -> Iterator[str]:
    """The address of a server, in the copy, of bundles built there."""
    for family, weights in checkpoints.items():
        options = ("--model", family, "--weights", weights, *SETTINGS[family], "--target", "onnx")
        said = run("export.build", *options)
        assert f"bundles/{family}" in said
    command = [sys.executable, "-m", "server", "--bundles", "bundles", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with (tree / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        try:
            ready = next((line for line in process.stdout if line.startswith("serving on ")), "")
            assert ready, (tree / "server.log").read_text()
            yield ready.removeprefix("serving on ").strip()
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


@pytest.mark.slow
def test_the_server_answers_as_torch_computes(served: str, tree: Path) -> None:
    picture = (photographs.crop(70, 90).transpose(1, 2, 0) * 255).round().astype(np.uint8)
    image, networks = pixels.encode(picture, "png"), modules()
    values = torch.from_numpy(pixels.to_float(picture))[None]  # [1, 3, 70, 90] in [0, 1]
    with Client(served) as client, torch.inference_mode():
        upscaled = decoded(client.upscale(image, format="png").image)
        assert close(upscaled, (networks["srresnet"](values * 2 - 1) + 1) / 2)
        translated = decoded(client.translate(image, format="png").image)
        assert close(translated, networks["restyle"](values))
        latent = torch.randn(2, 8)
        samples = client.generate(2, labels=["bee", "cat"], latents=latent.tolist(), format="png")
        expected = (networks["mlp"](latent, torch.tensor([1, 2])) + 1) / 2
        for sample, wanted in zip(samples.images, expected, strict=True):
            assert close(decoded(sample)[:, :, :1], wanted[None])
        models = {model.name: model for model in client.models()}
        assert models["restyle"].task == pb.TASK_TRANSLATE
        assert models["restyle"].max_whole_px == LIMIT_PX
        assert list(models["mlp"].class_names) == ["ant", "bee", "cat"]
        larger = pixels.encode(np.zeros((97, 97, 3), np.uint8), "png")
        with pytest.raises(InvalidInput, match=f"{LIMIT_PX:,}|{LIMIT_PX}"):
            client.translate(larger)


def decoded(image: bytes) -> np.ndarray:
    """[H, W, 3] uint8."""
    return pixels.decode(image, max_pixels=1 << 20)


def close(picture: np.ndarray, expected: Tensor) -> bool:
    """[H, W, C] uint8 against [1, C, H, W] in [0, 1]: no further off than rounding to 8 bits."""
    levels = expected[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    return difference(picture.astype(np.float32), levels, peak=255.0).max_abs <= 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (7, 5), (1, 40), (31, 2)])
def test_a_picture_that_the_network_cannot_take_is_answered_as_its_reflection_is(
    served: str, height: int, width: int
) -> None:
    """`restyle` takes even sides from 6 px."""
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    beyond = [max(side + side % 2, 6) - side for side in (height, width)]
    mirrored = np.pad(picture, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "reflect")
    values = torch.from_numpy(pixels.to_float(mirrored))[None]
    with Client(served) as client, torch.inference_mode():
        restyled = decoded(client.translate(pixels.encode(picture, "png"), format="png").image)
        expected = modules()["restyle"](values)[:, :, :height, :width]
    assert restyled.shape == picture.shape
    assert close(restyled, expected)


@pytest.mark.slow
def test_the_commands_of_the_client_serve_them(served: str, tree: Path, run: Command) -> None:
    source = tree / "in.png"
    source.write_bytes(pixels.encode(np.full((20, 30, 3), 200, np.uint8), "png"))
    address = ("--address", served)
    run("server.client", "upscale", *address, source, tree / "up.png")
    run("server.client", "translate", *address, source, tree / "other.png")
    run(
        "server.client", "generate", *address, tree / "drawn", "--count", "2", "--label", "ant", "--seed", "3"
    )
    assert decoded((tree / "up.png").read_bytes()).shape == (40, 60, 3)
    assert decoded((tree / "other.png").read_bytes()).shape == (20, 30, 3)
    assert [decoded(path.read_bytes()).shape for path in (tree / "drawn").iterdir()] == [(28, 28, 3)] * 2
    assert "restyle" in run("server.client", "models", *address)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mlp", "srresnet"])
def test_a_training_is_rehearsed_run_and_inspected(family: str, run: Command, tree: Path) -> None:
    data = training_data(tree, family)
    small = {"mlp": "width=16", "srresnet": "features=8"}[family]
    options = ("--model", family, "--data", data, "--set", small, "--set", "batch=4", "--threads", "1")
    assert "nothing was written" in run("export.training", *options, "--dry-run")
    run("export.training", *options, "--steps", "2", "--output", "run-" + family)
    weights = tree / f"run-{family}" / f"{family}.safetensors"
    assert all(torch.isfinite(tensor.float()).all() for tensor in load_file(weights).values())
    assert family in run("export.inspect", weights)
    said = run("export.build", "--model", family, "--weights", weights, "--dry-run")
    assert small in said


def training_data(tree: Path, family: str) -> Path:
    random = np.random.default_rng(0)
    if family == "srresnet":
        folder = tree / "photographs"
        folder.mkdir(exist_ok=True)
        picture = random.integers(0, 256, (64, 80, 3), dtype=np.uint8)
        (folder / "one.png").write_bytes(pixels.encode(picture, "png"))
        return folder
    path = tree / "digits.npz"
    images = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(40) % 10)
    return path


@pytest.mark.slow
def test_reports_name_the_whole_picture_limit(served: str, tree: Path) -> None:
    report = json.loads((tree / "bundles" / "restyle" / "report.json").read_text())
    assert report["whole"]["max_px"] == LIMIT_PX
    assert report["error"]["psnr_db"] >= 80
