"""SRVGGNet's recipes, which `python -m export.training` finds in RECIPES: the generator alone, by L1.

There is no paper of this network. `psnr` and `photo` have the options of Real-ESRGAN's first stage (arXiv 2107.10833, section 4.1
and its RealESRNet): `psnr` on pictures reduced by bicubic, `photo` on its degraded ones. `compact` takes minutes of one thread of
a CPU, with a warm-up, one cosine and a high learning rate.
"""

from __future__ import annotations

from export.models.srvgg.generator import SPEC
from export.training.recipe import NEEDED, Recipe
from export.training.restoration import PhotoOptions, PixelOptions, PixelTrainer


class SrvggTrainer(PixelTrainer):
    spec = SPEC


RECIPES = {
    "compact": Recipe(
        "on a CPU: 10 convolutions of 32 maps, 8 crops of 36 px, a quarter of an hour",
        SrvggTrainer,
        PixelOptions(steps=6000, batch=8, patch_px=36, lr=1e-3, schedule="cosine", warmup=0.01),
        {"features": 32, "convolutions": 10},
    ),
    "psnr": Recipe(
        "Real-ESRGAN's first stage on clean pictures: batch 48 of 256 px, L1, a million steps",
        SrvggTrainer,
        PixelOptions(steps=1_000_000, batch=48, patch_px=64, lr=2e-4, beta2=0.99),
    ),
    "photo": Recipe(
        "photographs as they are: Real-ESRGAN's blur, resizing, noise and JPEG, twice; batch 48 of 256 px, L1, a million steps",
        SrvggTrainer,
        PhotoOptions(steps=1_000_000, batch=48, patch_px=64, lr=2e-4, beta2=0.99),
        start=NEEDED,
    ),
}
