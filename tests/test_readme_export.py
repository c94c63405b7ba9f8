"""The README's commands for building, training and evaluating run as they are, in a new folder.

Small data stands where a newcomer has his own, and options are added that only make a command shorter: fewer steps, a
tile that is not searched for. The commands run in the order of the page, since each may use what an earlier one made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from export.data import read_picture, write_picture
from export.data.resize import resize
from server.cli import SUBCOMMANDS
from tests.export.originals import Old
from tests.test_readme import ROOT, commands

LIMIT_S = 240  # of one command, on a busy machine
QUICK_BUILD = ("--tile", "96", "--halo", "8", "--target", "onnx")
QUICK_RUN = ("--steps", "2", "--threads", "1")


def offline_commands() -> list[list[str]]:
    """What follows `python` in each command of the pages that needs the export extra; a `ganforge` one too."""
    installed = [
        ["-m", "server.cli", *words[1:]]
        for words in commands("ganforge")
        if words[1] in SUBCOMMANDS and SUBCOMMANDS[words[1]].extra == "export"
    ]
    return [words[1:] for words in commands("python -m") if words[2].startswith("export.")] + installed


def shortened(words: list[str]) -> list[str]:
    """The command with options that make it shorter."""
    if {"--list", "--dry-run", "-h", "--help"} & set(words):
        return [*words, *(("--set", "width=8", "--set", "batch=4") if "dcgan" in words else ())]
    if {"export.build", "build"} & set(words) and "esrgan" in words:
        return [*words, *QUICK_BUILD]
    return [*words, *(QUICK_RUN if {"export.training", "train"} & set(words) else ())]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's commands name: a checkpoint, photographs, faces, Set5's layout."""
    folder = tmp_path_factory.mktemp("newcomer")
    portrait = read_picture(ROOT / "export/assets/portrait.png")
    for name, side in (("photographs/a.png", 200), ("photographs/b.png", 180), ("set5/HR/baby.png", 64)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(folder / name, np.ascontiguousarray(portrait[:side, :side]))
    reductions = folder / "set5/LR_bicubic/X4"
    reductions.mkdir(parents=True)
    write_picture(reductions / "babyx4.png", resize(read_picture(folder / "set5/HR/baby.png"), 1 / 4))
    (folder / "faces").mkdir()
    for number in range(12):
        write_picture(
            folder / f"faces/{number}.png", np.ascontiguousarray(portrait[number : 64 + number, :64])
        )
    torch.manual_seed(0)
    torch.save(
        Old(scale=4, inputs=3, outputs=3, features=8, blocks=1, growth=4).state_dict(),
        folder / "downloaded.pth",
    )
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_offline_commands_run_in_the_order_of_the_page(newcomer: Path) -> None:
    shown = offline_commands()
    assert len(shown) >= 10
    for words in shown:
        done = subprocess.run(
            [sys.executable, *shortened(words)],
            cwd=newcomer,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, " ".join(words) + "\n" + done.stdout + done.stderr
    made = {str(path.relative_to(newcomer)) for path in newcomer.rglob("*")}
    assert {"bundles/esrgan-x4/manifest.json", "bundles/dcgan/manifest.json", "mine.safetensors"} <= made
    assert {"runs/esrgan/esrgan.safetensors", "bundles/between/manifest.json"} <= made
    # What a dry run would make is not there.
    assert not {"bundles/mine", "runs/dcgan"} & made
