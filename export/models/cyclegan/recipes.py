"""This family's recipes, which `python -m export.training` finds in RECIPES. cycle.py trains.

Paper: Zhu et al. 2017 (arXiv 1703.10593): least squares, cycle λ 10, identity 0.5 λ, a pool of 50 pictures, Adam 2e-4 with
betas (0.5, 0.999), batch 1 of 256 px crops from pictures of 286 px, 200 epochs with a linear decay to 0 over the last 100.
The moving average, which is exported, is not in the paper.
"""

from __future__ import annotations

from export.models.cyclegan.cycle import CycleOptions, CycleTrainer
from export.training.recipe import Recipe

EPOCHS, PICTURES = 200, 1334  # of the paper's horse2zebra: an epoch sees the larger of its sides once

RECIPES = {
    "compact": Recipe(
        "two folders without pairs, on a CPU: 4 blocks, 16 to 64 maps, 96 px crops, half an hour",
        CycleTrainer,
        CycleOptions(
            steps=10_000,
            crop_px=96,
            load_px=112,
            discriminator_width=32,
        ),
        {"features": 16, "blocks": 4},
    ),
    "paper": Recipe(
        "the paper's: 9 blocks, 256 px crops, batch 1, 200 epochs of 1,334 pictures",
        CycleTrainer,
        CycleOptions(steps=EPOCHS * PICTURES),
    ),
}
