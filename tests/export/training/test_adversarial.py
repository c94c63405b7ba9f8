"""Tests of both players' steps against losses computed by hand: what each minimises, with which weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.training.loop import train_step
from export.training.recipe import Batch
from tests.export.training.players import LinearDiscriminator, LinearGenerator, Players


def bce(logits: Tensor, target: float) -> Tensor:
    return -(target * F.logsigmoid(logits) + (1 - target) * F.logsigmoid(-logits)).mean()


def of_non_saturating(critic: LinearDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    return bce(critic(real).logits, 1.0) + bce(critic(fake).logits, 0.0)


def of_smoothed(critic: LinearDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    return bce(critic(real).logits, 0.75) + bce(critic(fake).logits, 0.0)


def of_wgan_gp(critic: LinearDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    """A linear critic's gradient is its weight, wherever it is taken."""
    slope = critic.linear.weight.norm()
    return critic(fake).logits.mean() - critic(real).logits.mean() + 3.0 * (slope - 1).square()


def of_relativistic(critic: LinearDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    on_real, on_fake = critic(real).logits, critic(fake).logits
    return (bce(on_real - on_fake.mean(), 1.0) + bce(on_fake - on_real.mean(), 0.0)) / 2


@pytest.mark.parametrize(
    ("options", "expected_loss"),
    [
        ({}, of_non_saturating),
        ({"label_smoothing": 0.25}, of_smoothed),
        ({"objective": "wgan-gp", "gradient_penalty": 3.0}, of_wgan_gp),
        ({"objective": "relativistic-average"}, of_relativistic),
    ],
    ids=["non-saturating", "smoothed", "wgan-gp", "relativistic-average"],
)
def test_the_discriminator_descends_its_whole_loss(
    options: dict[str, Any], expected_loss: Callable[..., Tensor]
) -> None:
    players = Players(**options)
    for number in range(2):  # the second time nothing of the first is left in the gradients
        batch, before = players.batch(number), copy.deepcopy(players.discriminator)
        terms = players.discriminator_step(batch, generator_follows=True)
        fake = cast(LinearGenerator, players.generator)(*batch.inputs).detach()
        loss = expected_loss(before, batch.real, fake)
        loss.backward()
        assert gradients_equal(players.discriminator, before)
        of_loss = sum(terms[name].item() for name in ("discriminator", "gradient_penalty") if name in terms)
        assert of_loss == pytest.approx(loss.item(), rel=1e-5)
        assert not torch.equal(players.discriminator.linear.weight, before.linear.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("options", "expected_loss"),
    [
        ({}, lambda real, fake: bce(fake.logits, 1.0)),
        ({"label_smoothing": 0.25}, lambda real, fake: bce(fake.logits, 1.0)),
        ({"adversarial": 0.3}, lambda real, fake: 0.3 * bce(fake.logits, 1.0)),
        (
            {"feature_matching": 2.0},
            lambda real, fake: (
                bce(fake.logits, 1.0) + 2.0 * (real.features.mean(0) - fake.features.mean(0)).square().mean()
            ),
        ),
        ({"extras": 0.7}, lambda real, fake: bce(fake.logits, 1.0) + 0.7 * fake.features.square().mean()),
        (
            {"objective": "relativistic-average"},
            lambda real, fake: (
                (bce(real.logits - fake.logits.mean(), 0.0) + bce(fake.logits - real.logits.mean(), 1.0)) / 2
            ),
        ),
    ],
    ids=["non-saturating", "smoothed", "weighted", "feature matching", "extras", "relativistic-average"],
)
def test_the_generator_descends_its_whole_loss(
    options: dict[str, Any], expected_loss: Callable[..., Tensor]
) -> None:
    players = Players(**options)
    for number in range(2):
        batch, before = players.batch(number), copy.deepcopy(players.generator)
        players.discriminator_step(batch, generator_follows=True)
        critic = copy.deepcopy(players.discriminator)  # as it is after its own update
        assert isinstance(critic, LinearDiscriminator)
        terms = players.generator_step(batch)
        loss = expected_loss(critic(batch.real), critic(before(*batch.inputs)))
        before.zero_grad()
        loss.backward()
        assert gradients_equal(players.generator, before)
        assert sum(term.item() for term in terms.values()) == pytest.approx(loss.item(), rel=1e-5)


def gradients_equal(module: nn.Module, expected: nn.Module) -> bool:
    pairs = zip(module.parameters(), expected.parameters(), strict=True)
    for parameter, other in pairs:
        assert parameter.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6)
    return True


def test_each_step_updates_only_its_own_player() -> None:
    players = Players()
    batch = players.batch(0)
    generator, discriminator = copy.deepcopy(players.generator), copy.deepcopy(players.discriminator)
    players.discriminator_step(batch, generator_follows=True)
    assert same(players.generator, generator)
    assert not same(players.discriminator, discriminator)
    discriminator = copy.deepcopy(players.discriminator)
    players.generator_step(batch)
    assert same(players.discriminator, discriminator)
    assert not same(players.generator, generator)
    assert all(parameter.requires_grad for parameter in players.discriminator.parameters())


def same(module: nn.Module, other: nn.Module) -> bool:
    pairs = zip(module.parameters(), other.parameters(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_the_generators_graph_is_built_only_where_its_own_update_uses_it() -> None:
    players, numbers = Players(discriminator_steps=3), []

    def take(number: int) -> Batch:
        numbers.append(number)
        return players.batch(number)

    for step in range(2):
        train_step(players, step, take)
    generator = players.generator
    assert isinstance(generator, LinearGenerator)
    assert generator.grad_enabled == [False, False, True] * 2
    assert numbers == [0, 1, 2, 3, 4, 5], "each update has its own batch"


def test_a_graph_that_nobody_uses_changes_no_result() -> None:
    """The critic's updates are the same whether the generator's graph is kept or not."""
    updated = []
    for follows in (False, True):
        players = Players(discriminator_steps=2, objective="wgan-gp")
        players.discriminator_step(players.batch(0), generator_follows=follows)
        updated.append(players.discriminator)
    assert same(*updated)
