"""A generator against a discriminator: what every GAN's recipe shares, whatever the two look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export import data
from export.networks import discriminators
from export.networks.discriminators import Judged
from export.training import losses, objectives
from export.training.machine import Machine
from export.training.recipe import Batch, Losses, Options, Source, Stateful, Trainer
from runtime.errors import InvalidInput


@dataclass(frozen=True)
class AdversarialOptions(Options):
    """What every GAN's recipe has.

    objective: one of objectives.OBJECTIVES. adversarial: its weight in the generator's loss.
    discriminator_steps: updates of the discriminator for each of the generator.
    label_smoothing: how far below 1 the target of real pictures lies (one-sided).
    feature_matching: weight of that loss. gradient_penalty: of the one that "wgan-gp" has.
    minibatch_kernels: of minibatch discrimination; 0 for none.
    discriminator_width: maps after the discriminator's first layer. discriminator_norm: batch, instance,
        spectral or none.
    """

    beta1: float = 0.5
    objective: str = "non-saturating"
    adversarial: float = 1.0
    discriminator_steps: int = 1
    label_smoothing: float = 0.0
    feature_matching: float = 0.0
    gradient_penalty: float = 10.0
    minibatch_kernels: int = 0
    discriminator_width: int = 64
    discriminator_norm: str = "batch"


@dataclass(frozen=True)
class SampleOptions(AdversarialOptions):
    """Of generators of samples. mirrored: the share of the real pictures that are shown mirrored."""

    mirrored: float = 0.0


class AdversarialTrainer(Trainer):
    """Both players' steps. A recipe gives the batches and the discriminator, and may add losses."""

    def oppose(
        self, generator: nn.Module, discriminator: nn.Module, options: AdversarialOptions, machine: Machine
    ) -> None:
        """To be called once, by the constructor of a recipe."""
        self.objective = objectives.get(options.objective, options.label_smoothing)
        if self.objective.penalised and options.discriminator_norm == "batch":
            raise InvalidInput(
                "discriminator_norm",
                f"batch norm mixes the pictures whose slopes {options.objective!r} measures one by one; "
                "add --set discriminator_norm=none",
            )
        if self.objective.penalised and options.minibatch_kernels:
            raise InvalidInput(
                "minibatch_kernels",
                f"they compare the pictures whose slopes {options.objective!r} measures; set 0",
            )
        discriminators.finish(discriminator, options.discriminator_norm)
        self.settings, self.machine = options, machine
        self.discriminator_steps = options.discriminator_steps
        self.generator, self.discriminator = generator, machine.place(discriminator)
        self.generator_optimizer = adam(generator, options)
        self.discriminator_optimizer = adam(discriminator, options)

    def discriminator_step(self, batch: Batch) -> Losses:
        with self.machine.autocast():
            batch.fake = self.generator(*batch.inputs)  # the generator's step goes on from it
            fake_pictures = batch.fake.detach()
            real, fake = self.judge(batch.real), self.judge(fake_pictures)
            parts = {"discriminator": self.objective_losses(real, fake).discriminator}
            parts |= self.discriminator_extras(batch, real, fake)
            if self.objective.penalised:
                penalty = objectives.gradient_penalty(self.believe, batch.real, fake_pictures)
                parts["gradient_penalty"] = self.settings.gradient_penalty * penalty
        self.machine.descend(self.discriminator_optimizer, total(parts))
        return detached(parts | self.figures(batch, real, fake))

    def generator_step(self, batch: Batch) -> Losses:
        assert batch.fake is not None, (
            "the discriminator's step makes the pictures that the generator's judges"
        )
        with frozen(self.discriminator), self.machine.autocast():
            fake = self.judge(batch.fake)
            real = fake  # where no loss looks at it
            if self.objective.compares or self.settings.feature_matching:
                with torch.no_grad():
                    real = self.judge(batch.real)
            adversarial = self.objective_losses(real, fake).generator
            parts = {"generator": self.settings.adversarial * adversarial}
            if self.settings.feature_matching:
                matching = losses.feature_matching(fake.features.float(), real.features.float())
                parts["feature_matching"] = self.settings.feature_matching * matching
            parts |= self.generator_extras(batch, fake)
        self.machine.descend(self.generator_optimizer, total(parts))
        return detached(parts)

    def judge(self, pictures: Tensor) -> Judged:
        """The discriminator's opinion, logits in float32."""
        judged = self.discriminator(pictures)
        return judged._replace(logits=judged.logits.float())

    def believe(self, pictures: Tensor) -> Tensor:
        return self.judge(pictures).logits

    def objective_losses(self, real: Judged, fake: Judged) -> objectives.Losses:
        smoothing = {"target": 1 - self.settings.label_smoothing} if self.objective.smooths else {}
        return self.objective.losses(real.logits, fake.logits, **smoothing)

    def discriminator_extras(self, batch: Batch, real: Judged, fake: Judged) -> Losses:
        """Further losses of the discriminator, weighted."""
        return {}

    def generator_extras(self, batch: Batch, fake: Judged) -> Losses:
        """Further losses of the generator, weighted."""
        return {}

    def figures(self, batch: Batch, real: Judged, fake: Judged) -> Losses:
        """What else is worth watching; no part of any loss."""
        return {"real_logit": real.logits.mean(), "fake_logit": fake.logits.mean()}

    def optimizers(self) -> Mapping[str, Any]:
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator, "discriminator": self.discriminator, **self.optimizers()}


class SampleTrainer(AdversarialTrainer):
    """Of generators of samples: which real pictures and which latents a batch has."""

    settings: SampleOptions

    def read(self, config: Any, options: SampleOptions, source: Source, machine: Machine) -> data.Labelled:
        """The pictures of `source`, at the generator's size. Raises InvalidInput where there are none."""
        found = data.read_labelled(source.data, config.size, config.channels)
        self.config, self.seed, self.rows = config, source.seed, machine.rows(options.batch)
        self.images, self.skipped = found.images, found.skipped
        return found

    def draw(self, number: int) -> tuple[torch.Generator, Tensor, Tensor]:
        """Of the batch of this number: its random numbers, which pictures it has, [N] int64, and latents [N, Z]."""
        random, count = data.generator(self.seed, number), self.settings.batch
        chosen = torch.randint(len(self.images), (count,), generator=random)[self.rows]
        latent = torch.randn(count, self.config.latent_size, generator=random)[self.rows]
        return random, chosen, latent

    def shown_real(self, chosen: Tensor, random: torch.Generator) -> Tensor:
        """[N, C, H, W] float32 in [-1, 1] of the chosen pictures, some of them mirrored."""
        images = data.mirrored(self.images[chosen], self.settings.mirrored, random)
        return data.as_floats(images) * 2 - 1


def known_labels(found: data.Labelled) -> Tensor:
    """[N] int64 from 0. Raises InvalidInput where the pictures have none."""
    if found.labels is None:
        raise InvalidInput(
            "data", "the pictures have no labels (`labels`, or subfolders), which this recipe learns from"
        )
    return found.labels


def adam(module: nn.Module, options: Options) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=options.lr, betas=(options.beta1, options.beta2))


def total(parts: Losses) -> Tensor:
    return torch.stack([part.float() for part in parts.values()]).sum()


def detached(parts: Losses) -> Losses:
    return {name: value.detach() for name, value in parts.items()}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through `module` and none are worked out for its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
