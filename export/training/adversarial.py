"""AdversarialTrainer: trains a generator against a discriminator. It has the steps of both players, for every GAN's recipe.

A recipe (export/models/<family>/recipes.py) subclasses it, or SampleTrainer if the generator draws samples. The subclass calls
`set_up` in its constructor, makes the batches, and may add losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export import data
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses, objectives
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Source, Stateful, Trainer, TrainingOptions
from runtime.errors import InvalidInput


@dataclass(frozen=True)
class AdversarialOptions(TrainingOptions):
    """The options that every GAN's recipe has.

    objective: one of objectives.OBJECTIVES. adversarial: its weight in the generator's loss.
    discriminator_steps: updates of the discriminator for each update of the generator.
    label_smoothing: the discriminator's target for real pictures is 1 minus this (one-sided smoothing).
    feature_matching: weight of this loss. gradient_penalty: its weight in the objective "wgan-gp".
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
    """The options for generators of samples. mirrored: the share of the real pictures that are mirrored at random."""

    mirrored: float = 0.0


class AdversarialTrainer(Trainer):
    """The steps of both players. A subclass makes the batches and the discriminator, and may add losses."""

    def set_up(
        self, generator: nn.Module, discriminator: nn.Module, options: AdversarialOptions, machine: Machine
    ) -> None:
        """Take both networks and make their optimizers. A subclass calls it once, in its constructor.

        Raises InvalidInput if the objective cannot be combined with the other options.
        """
        self.objective = objectives.get(options.objective, options.label_smoothing)
        if self.objective.penalised and options.discriminator_norm == "batch":
            raise InvalidInput(
                "discriminator_norm",
                f"got 'batch', but {options.objective!r} needs the gradient of each picture alone, and batch norm mixes the "
                "pictures of a batch; give --set discriminator_norm=none",
            )
        if self.objective.penalised and options.minibatch_kernels:
            raise InvalidInput(
                "minibatch_kernels",
                f"got {options.minibatch_kernels}, but {options.objective!r} needs the gradient of each picture alone, and "
                "minibatch discrimination compares the pictures of a batch; give --set minibatch_kernels=0",
            )
        self.settings, self.machine = options, machine
        self.discriminator_steps = options.discriminator_steps
        self.generator, self.discriminator = generator, machine.place(discriminator)
        # The same networks with gradients averaged over all processes. Updates call these.
        self.parallel_generator = machine.parallel(generator)
        self.parallel_discriminator = machine.parallel(discriminator)
        self.generator_optimizer = adam(generator, options)
        self.discriminator_optimizer = adam(discriminator, options)

    def discriminator_step(self, batch: Batch, *, generator_follows: bool) -> LossTerms:
        with self.machine.autocast():
            with nullcontext() if generator_follows else torch.no_grad():
                batch.fake = self.parallel_generator(*batch.inputs)
            fake_pictures = batch.fake.detach()
            real, fake = self.discriminate(batch.real), self.discriminate(fake_pictures)
            terms = {"discriminator": self.adversarial_losses(real, fake).discriminator}
            terms |= self.discriminator_extras(batch, real, fake)
            if self.objective.penalised:
                penalty = objectives.gradient_penalty(self.logits, batch.real, fake_pictures)
                terms["gradient_penalty"] = self.settings.gradient_penalty * penalty
        self.machine.step(self.discriminator_optimizer, total(terms))
        return detached(terms | self.figures(batch, real, fake))

    def generator_step(self, batch: Batch) -> LossTerms:
        assert batch.fake is not None, "the discriminator's step before makes the pictures"
        with frozen(self.discriminator), self.machine.autocast():
            fake = self.discriminate(batch.fake)
            real = fake  # no loss uses it then
            if self.objective.uses_real or self.settings.feature_matching:
                with torch.no_grad():
                    real = self.discriminate(batch.real)
            adversarial = self.adversarial_losses(real, fake).generator
            terms = {"generator": self.settings.adversarial * adversarial}
            if self.settings.feature_matching:
                matching = losses.feature_matching(fake.features.float(), real.features.float())
                terms["feature_matching"] = self.settings.feature_matching * matching
            terms |= self.generator_extras(batch, fake)
        self.machine.step(self.generator_optimizer, total(terms))
        return detached(terms)

    def discriminate(self, pictures: Tensor) -> DiscriminatorOutput:
        """The discriminator's output for `pictures`, [N, C, H, W], with logits in float32."""
        output = self.parallel_discriminator(pictures)
        return output._replace(logits=output.logits.float())

    def logits(self, pictures: Tensor) -> Tensor:
        return self.discriminate(pictures).logits

    def adversarial_losses(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput
    ) -> objectives.AdversarialLosses:
        smoothing = {"target": 1 - self.settings.label_smoothing} if self.objective.smooths else {}
        return self.objective.losses(real.logits, fake.logits, **smoothing)

    def discriminator_extras(
        self, batch: Batch, real: DiscriminatorOutput, fake: DiscriminatorOutput
    ) -> LossTerms:
        """More losses of the discriminator, by name, with their weights applied."""
        return {}

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        """More losses of the generator, by name, with their weights applied."""
        return {}

    def figures(self, batch: Batch, real: DiscriminatorOutput, fake: DiscriminatorOutput) -> LossTerms:
        """Figures to log that are not part of a loss, by name."""
        return {"real_logit": real.logits.mean(), "fake_logit": fake.logits.mean()}

    def optimizers(self) -> Mapping[str, Any]:
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator, "discriminator": self.discriminator, **self.optimizers()}


class SampleTrainer(AdversarialTrainer):
    """For generators of samples: reads the real pictures, and draws a batch's pictures and latents."""

    settings: SampleOptions

    def read(self, config: Any, options: SampleOptions, source: Source, machine: Machine) -> data.Labelled:
        """Read the pictures of `source` at the generator's size, and keep what batches need. Raises InvalidInput."""
        pictures = data.read_labelled(source.data, config.size, config.channels)
        self.config, self.seed, self.rows = config, source.seed, machine.rows(options.batch)
        self.images, self.skipped = pictures.images, pictures.skipped
        channels = "colour" if config.channels == 3 else "grey"
        self.dataset = (
            f"{len(self.images):,} {channels} pictures from {source.data}, at {config.size}×{config.size} px"
        )
        if pictures.labels is not None:
            self.dataset += f", labels {int(pictures.labels.min())} to {int(pictures.labels.max())}"
        return pictures

    def draw_batch(self, number: int) -> tuple[torch.Generator, Tensor, Tensor]:
        """Batch `number`: its random generator, the real pictures' indices [N] int64, and latents [N, Z] float32."""
        random, count = data.generator(self.seed, number), self.settings.batch
        chosen = torch.randint(len(self.images), (count,), generator=random)[self.rows]
        latent = torch.randn(count, self.config.latent_size, generator=random)[self.rows]
        return random, chosen, latent

    def real_pictures(self, chosen: Tensor, random: torch.Generator) -> Tensor:
        """The chosen pictures, some of them mirrored: [N, C, H, W] float32 in [-1, 1]."""
        images = self.images[chosen]
        if self.settings.mirrored:
            chances = torch.rand(self.settings.batch, generator=random)[self.rows]
            images = data.mirrored(images, chances < self.settings.mirrored)
        return data.as_floats(images) * 2 - 1


def known_labels(pictures: data.Labelled) -> Tensor:
    """The labels, [N] int64 from 0. Raises InvalidInput if the pictures have none."""
    if pictures.labels is None:
        raise InvalidInput(
            "data", "the pictures have no labels (`labels`, or subfolders), which this recipe learns from"
        )
    return pictures.labels


def adam(module: nn.Module, options: TrainingOptions) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=options.lr, betas=(options.beta1, options.beta2))


def total(terms: LossTerms) -> Tensor:
    return torch.stack([term.float() for term in terms.values()]).sum()


def detached(terms: LossTerms) -> LossTerms:
    return {name: value.detach() for name, value in terms.items()}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """A context manager: gradients flow through `module`, but none are computed for its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
