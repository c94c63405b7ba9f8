"""This family's recipes, which `python -m export.training` finds in RECIPES. cycle.py trains without pairs, pix2pix.py with.

CycleGAN: Zhu et al. 2017 (arXiv 1703.10593): least squares, cycle λ 10, identity 0.5 λ, a pool of 50 pictures, Adam 2e-4 with
betas (0.5, 0.999), batch 1 of 256 px crops from pictures of 286 px, 200 epochs with a linear decay to 0 over the last 100.
pix2pix: Isola et al. 2017 (arXiv 1611.07004): a U-Net, L1 100, Adam 2e-4 with betas (0.5, 0.999), batch 1, and for its
facades 200 epochs of 400 pictures (106,000 steps of the maps) at 286 px, cropped to 256 px and mirrored. The paper's batch
norm over a batch of one picture is instance norm, which does the same when pictures are served.
The moving average, which is exported, is in neither paper.
The compact recipe without pairs has discriminators whose patches of 34 px suit its small pictures, and a higher learning rate
for its few steps.
"""

from __future__ import annotations

from export.models.cyclegan.cycle import CycleOptions, CycleTrainer
from export.models.cyclegan.pix2pix import PairOptions, PairTrainer
from export.training.recipe import Recipe

EPOCHS, PICTURES = 200, 1334  # of the paper's horse2zebra: an epoch sees the larger of its sides once
PAIRS = 400  # of the facades of pix2pix

RECIPES = {
    "compact": Recipe(
        "two folders without pairs, on a CPU: 3 blocks of 64 maps, 64 px crops, half an hour",
        CycleTrainer,
        CycleOptions(
            steps=3000,
            lr=8e-4,
            ema_decay=0.995,
            crop_px=64,
            load_px=72,
            discriminator_width=16,
            discriminator_layers=2,
        ),
        {"features": 16, "blocks": 3},
    ),
    "paper": Recipe(
        "the paper's: 9 blocks, 256 px crops, batch 1, 200 epochs of 1,334 pictures",
        CycleTrainer,
        CycleOptions(steps=EPOCHS * PICTURES),
    ),
    "pix2pix": Recipe(
        "pairs, as pix2pix's paper: a U-Net of 8 halvings, 256 px crops, batch 1, 200 epochs of 400 pairs",
        PairTrainer,
        PairOptions(steps=EPOCHS * PAIRS),
        {"architecture": "unet", "dropout": 0.5},
    ),
    "pix2pix-compact": Recipe(
        "pairs, on a CPU: a U-Net of 6 halvings, 16 to 128 maps, 128 px crops, ten minutes",
        PairTrainer,
        PairOptions(steps=4000, batch=4, lr=4e-4, crop_px=128, load_px=160, discriminator_width=32),
        {"architecture": "unet", "features": 16, "downs": 6},
    ),
}
