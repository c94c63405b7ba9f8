"""Trains two generators on two sets of pictures without pairs. recipes.py names CycleTrainer; its options are CycleOptions.

Zhu et al. 2017 (arXiv 1703.10593), in the order of pytorch-CycleGAN-and-pix2pix: both generators make one update, then both
discriminators, which are shown generated pictures of earlier steps too (`PicturePool`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import data
from export.evaluation.metrics import psnr_db
from export.models.cyclegan.discriminator import Discriminator, check_crop
from export.models.cyclegan.generator import SPEC
from export.training import losses, objectives
from export.training.adversarial import adam, detached, frozen, total
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Source, Stateful, Trainer, TrainingOptions
from runtime.errors import InvalidInput

SAMPLE_CROPS = 4  # rows in a picture of samples


@dataclass(frozen=True)
class CycleOptions(TrainingOptions):
    """crop_px: side of the random crops. load_px: pictures are first reduced to this shorter side; 0 for none.

    cache_gib: memory for decoded pictures.
    objective: one of objectives.OBJECTIVES. adversarial: its weight; 2 since objectives.lsgan halves its terms, and the
    paper halves the discriminators' alone. cycle: weight of L1 after both translations, λ. identity: weight of L1 between
    a picture and its translation into what it is already, as a share of `cycle`.
    pool: generated pictures of each kind that are kept for the discriminators; 0 for none.
    discriminator_width, discriminator_layers, discriminator_norm: of both discriminators (discriminator.py).
    """

    batch: int = 1
    beta1: float = 0.5
    schedule: str = "linear"
    crop_px: int = 256
    load_px: int = 286
    cache_gib: float = 8.0
    objective: str = "lsgan"
    adversarial: float = 2.0
    cycle: float = 10.0
    identity: float = 0.5
    pool: int = 50
    discriminator_width: int = 64
    discriminator_layers: int = 3
    discriminator_norm: str = "instance"


class Translations(NamedTuple):
    """Batches [N, 3, H, W] in [-1, 1]: made of the other kind, brought back to their own, and translated into their own."""

    made_b: Tensor
    made_a: Tensor
    back_a: Tensor
    back_b: Tensor
    same_a: Tensor
    same_b: Tensor


class Generators(nn.Module):
    """Both generators as one module: what is averaged and saved, and what one update calls once.

    identity: whether its output has same_a and same_b; without, they are the inputs themselves.
    """

    def __init__(self, a_to_b: nn.Module, b_to_a: nn.Module, *, identity: bool) -> None:
        super().__init__()
        self.a_to_b, self.b_to_a, self.identity = a_to_b, b_to_a, identity

    def forward(self, a: Tensor, b: Tensor) -> Translations:
        made_b, made_a = self.a_to_b(a), self.b_to_a(b)
        same_a, same_b = (self.b_to_a(a), self.a_to_b(b)) if self.identity else (a, b)
        return Translations(made_b, made_a, self.b_to_a(made_b), self.a_to_b(made_a), same_a, same_b)


class PicturePool:
    """Generated pictures of earlier steps (Shrivastava et al. 2017, arXiv 1612.07828), so that a discriminator does not
    forget them. size: how many it keeps; 0 for none. What it draws comes from torch's random generator.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: list[Tensor] = []  # [C, H, W] each

    def exchange(self, pictures: Tensor) -> Tensor:
        """[N, C, H, W] → as many: each picture itself, or, half of the time once the pool is full, one of the pool, whose
        place it takes.
        """
        shown = []
        for picture in pictures:
            if len(self.pictures) < self.size:
                self.pictures.append(picture.clone())
            elif self.size and float(torch.rand(())) < 0.5:
                place = int(torch.randint(self.size, ()))
                picture, self.pictures[place] = self.pictures[place].to(picture.device), picture.clone()
            shown.append(picture)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)

    def state_dict(self) -> dict[str, Any]:
        return {"pictures": torch.stack(self.pictures) if self.pictures else torch.empty(0)}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.pictures = list(state_dict["pictures"])[: self.size]


class CycleTrainer(Trainer):
    """Least squares, cycle consistency and identity: the losses of both directions, added."""

    exports = MappingProxyType({"a-to-b": "a_to_b", "b-to-a": "b_to_a"})
    generator: Generators

    def __init__(
        self, generator: nn.Module, config: Any, options: CycleOptions, source: Source, machine: Machine
    ) -> None:
        self.settings, self.machine = options, machine
        self.objective = objectives.get(options.objective, 0.0)
        if self.objective.uses_real or self.objective.penalised:
            raise InvalidInput(
                "objective", f"got {options.objective!r}, which this recipe does not implement"
            )
        if source.pretrained:
            raise InvalidInput(
                "start",
                "got weights of one generator, but this recipe trains two, from random weights; to continue a run, give "
                "--resume",
            )
        check_crop(options.crop_px, options.discriminator_layers)
        self.read(config, options, source)
        second = machine.place(SPEC.module(config))
        self.generator = Generators(generator, second, identity=options.cycle * options.identity > 0)
        self.discriminators = nn.ModuleDict(
            {kind: machine.place(self.make_discriminator(config)) for kind in ("a", "b")}
        )
        # The same networks with gradients averaged over all processes. Updates call these.
        self.parallel_generator = machine.parallel(self.generator)
        self.judges = {kind: machine.parallel(net) for kind, net in self.discriminators.items()}
        self.generator_optimizer = adam(self.generator, options)
        self.discriminator_optimizer = adam(self.discriminators, options)
        self.pools = {kind: PicturePool(options.pool) for kind in ("a", "b")}

    def read(self, config: Any, options: CycleOptions, source: Source) -> None:
        """Read the pictures of both kinds, and those to measure on. Raises InvalidInput."""
        if config.in_channels != 3 or config.out_channels != 3:
            raise InvalidInput(
                "set", "in_channels and out_channels: expected 3 for both, since this recipe trains on RGB"
            )
        multiple = SPEC.signature(config).size_multiple
        if options.crop_px % multiple:
            raise InvalidInput("crop_px", f"got {options.crop_px}, expected a multiple of {multiple}")
        self.size_multiple = multiple
        self.seed, self.rows = source.seed, self.machine.rows(options.batch)
        self.pictures = data.Unpaired(
            source.data, crop_px=options.crop_px, load_px=options.load_px, cache_gib=options.cache_gib
        )
        self.skipped = self.pictures.skipped
        a, b = self.pictures.sides
        self.dataset = f"{source.data}, {a}; {b}; in crops of {options.crop_px} px"
        self.held_out = data.read_sides(source.validation) if source.validation else ({}, {})
        if source.validation:
            counts = " and ".join(str(len(side)) for side in self.held_out)
            self.dataset += f"; validated on {counts} from {source.validation}"

    def make_discriminator(self, config: Any) -> Discriminator:
        return Discriminator(
            channels=config.out_channels,
            width=self.settings.discriminator_width,
            layers=self.settings.discriminator_layers,
            norm=self.settings.discriminator_norm,
        )

    def batch(self, number: int) -> Batch:
        """inputs: a, b; real: b; [N, 3, crop, crop] float32 in [-1, 1]."""
        random = data.generator(self.seed, number)
        a, b = (side * 2 - 1 for side in self.pictures.batch(random, self.settings.batch, part=self.rows))
        return Batch(b, (a, b))

    def generator_step(self, batch: Batch) -> LossTerms:
        """Update both generators, then both discriminators."""
        a, b = batch.inputs
        made, terms = self.update_generators(a, b)
        with self.machine.autocast():
            judged = {
                f"discriminator_{kind}": self.adversarial_losses(
                    self.logits(kind, real), self.logits(kind, self.pools[kind].exchange(fake.detach()))
                ).discriminator
                for kind, real, fake in (("a", a, made.made_a), ("b", b, made.made_b))
            }
        self.machine.step(self.discriminator_optimizer, total(judged))
        return terms | detached(judged)

    def update_generators(self, a: Tensor, b: Tensor) -> tuple[Translations, LossTerms]:
        settings = self.settings
        with frozen(self.discriminators), self.machine.autocast():
            made = Translations(*(picture.float() for picture in self.parallel_generator(a, b)))
            terms = {}
            for kind, fake in (("a", made.made_a), ("b", made.made_b)):
                logits = self.logits(kind, fake)
                terms[f"generator_{kind}"] = (
                    settings.adversarial * self.adversarial_losses(logits, logits).generator
                )
            terms["cycle_a"] = settings.cycle * losses.pixel(made.back_a, a)
            terms["cycle_b"] = settings.cycle * losses.pixel(made.back_b, b)
            if self.generator.identity:
                weight = settings.cycle * settings.identity
                terms["identity_a"] = weight * losses.pixel(made.same_a, a)
                terms["identity_b"] = weight * losses.pixel(made.same_b, b)
        self.machine.step(self.generator_optimizer, total(terms))
        return made, detached(terms)

    def logits(self, kind: str, pictures: Tensor) -> Tensor:
        """The discriminator's logits for pictures of a kind, one for each patch, float32."""
        return self.judges[kind](pictures).logits.float()

    def adversarial_losses(self, real: Tensor, fake: Tensor) -> objectives.AdversarialLosses:
        return self.objective.losses(real, fake)

    def optimizers(self) -> Mapping[str, Any]:
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def parts(self) -> Mapping[str, Stateful]:
        return {
            "generator_a_to_b": self.generator.a_to_b,
            "generator_b_to_a": self.generator.b_to_a,
            **{f"discriminator_{kind}": net for kind, net in self.discriminators.items()},
            **{f"pool_{kind}": pool for kind, pool in self.pools.items()},
            **self.optimizers(),
        }

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture with columns for A, A → B, A → B → A, B, B → A, B → A → B. It shows the same crops each time."""
        crops = self.pictures.batch(data.generator(self.seed + 1, 0), SAMPLE_CROPS)
        a, b = (side.to(self.machine.device) * 2 - 1 for side in crops)
        made = generator(a, b)
        strips = torch.stack((a, made.made_b, made.back_a, b, made.made_a, made.back_b), dim=1)
        return data.as_grid((strips.flatten(0, 1) + 1).cpu() / 2, columns=6)

    @torch.inference_mode()
    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        """PSNR in dB after both translations, and of each translation where A and B hold pictures of the same names."""
        figures: dict[str, list[float]] = {}
        sides = dict(zip("ab", self.held_out, strict=True))
        for there, back in (("a", "b"), ("b", "a")):
            forth = generator.get_submodule(f"{there}_to_{back}")
            home = generator.get_submodule(f"{back}_to_{there}")
            for name, picture in sides[there].items():
                made = self.translated(forth, picture)
                cycle = figures.setdefault(f"cycle_{there}_db", [])
                cycle.append(difference_db(self.translated(home, made), picture))
                if name in sides[back]:
                    translation = figures.setdefault(f"{there}_to_{back}_db", [])
                    translation.append(difference_db(made, sides[back][name]))
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def translated(self, generator: nn.Module, picture: Tensor) -> Tensor:
        return translated(generator, picture, self.size_multiple, self.machine.device)


@torch.inference_mode()
def translated(
    generator: nn.Module, picture: Tensor, size_multiple: int, device: torch.device | None = None
) -> Tensor:
    """A whole picture, [3, H, W] uint8, through a generator on `device`: the same.

    Its sides grow by reflection to multiples of `size_multiple`, as a server's do, and are cut.
    """
    height, width = picture.shape[1:]
    padding = (0, -width % size_multiple, 0, -height % size_multiple)
    image = F.pad(data.as_floats(picture[None]) * 2 - 1, padding, mode="reflect")
    output = (generator(image.to(device)).cpu()[0, :, :height, :width] + 1) / 2
    return data.planes(data.as_picture(output))


def difference_db(picture: Tensor, other: Tensor) -> float:
    """PSNR in dB of two pictures, [3, H, W] uint8, over all channels."""
    return psnr_db(picture.numpy(), other.numpy(), 0)
