"""Tests of each objective against values computed by hand, and of the signs of its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export.networks.discriminators import MinibatchDiscrimination, constrain_weights
from export.training import losses, objectives
from export.training.objectives import OBJECTIVES
from runtime.errors import InvalidInput

LN2 = math.log(2)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# Two logits of real pictures (2, 0) and two of fake ones (-1, 1), worked out on paper. softplus(-x) = -log sigmoid(x).
REAL, FAKE = (2.0, 0.0), (-1.0, 1.0)
ON_REAL = (softplus(-2) + softplus(0)) / 2  # real ones believed to be real
ON_FAKE = (softplus(-1) + softplus(1)) / 2  # fake ones believed to be fake; the same for "real", by symmetry
BY_HAND = {
    "non-saturating": (ON_REAL + ON_FAKE, ON_FAKE),
    "minimax": (ON_REAL + ON_FAKE, -ON_FAKE),
    "lsgan": (((2 - 1) ** 2 + (0 - 1) ** 2) / 4 + (1 + 1) / 4, ((-1 - 1) ** 2 + (1 - 1) ** 2) / 4),
    "hinge": ((0 + 1) / 2 + (0 + 2) / 2, 0.0),
    "wgan-gp": (0.0 - 1.0, 0.0),
    # The means are 1 and 0: real relative to fake (2, 0), fake relative to real (-2, 0).
    "relativistic-average": (ON_REAL, (softplus(2) + softplus(0)) / 2),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_equal_values_computed_by_hand(name: str) -> None:
    both = OBJECTIVES[name].losses(torch.tensor(REAL), torch.tensor(FAKE))
    assert (float(both.discriminator), float(both.generator)) == pytest.approx(BY_HAND[name], abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_part_real_from_fake_logits_and_raise_the_generators(name: str) -> None:
    real = torch.tensor([0.3, -0.2], requires_grad=True)
    fake = torch.tensor([0.1, 0.4], requires_grad=True)
    discriminator, generator = OBJECTIVES[name].losses(real, fake)
    of_real, of_fake = torch.autograd.grad(discriminator, (real, fake), retain_graph=True)
    assert (of_real < 0).all(), "a step down the gradient raises the logits of real pictures"
    assert (of_fake > 0).all(), "and lowers those of fake ones"
    (pull,) = torch.autograd.grad(generator, fake)
    assert (pull < 0).all(), "the generator wants its pictures believed"


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [("non-saturating", 2 * LN2, LN2), ("minimax", 2 * LN2, -LN2), ("relativistic-average", LN2, LN2)],
)
def test_losses_at_chance(name: str, discriminator: float, generator: float) -> None:
    both = OBJECTIVES[name].losses(torch.zeros(5), torch.zeros(5))
    assert (float(both.discriminator), float(both.generator)) == pytest.approx((discriminator, generator))


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=8), st.lists(st.floats(-20, 20), min_size=1, max_size=8)
)
def test_relativistic_average_is_its_definition(reals: list[float], fakes: list[float]) -> None:
    real, fake = torch.tensor(reals, dtype=torch.float64), torch.tensor(fakes, dtype=torch.float64)
    both = objectives.relativistic_average(real, fake)
    relative_real, relative_fake = real - fake.mean(), fake - real.mean()

    def minus_log(logits: Tensor) -> Tensor:  # -log sigmoid
        return torch.log1p(torch.exp(-logits)).mean()

    torch.testing.assert_close(both.discriminator, (minus_log(relative_real) + minus_log(-relative_fake)) / 2)
    torch.testing.assert_close(both.generator, (minus_log(-relative_real) + minus_log(relative_fake)) / 2)


def test_relativistic_means_carry_gradient_to_both_players() -> None:
    real, fake = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    discriminator, generator = objectives.relativistic_average(real, fake)
    # Each real logit: d/dr of mean softplus(-r) / 2 = -sigmoid(0) / 2 / 2, and as much again through the mean that the
    # fake ones are compared with, which the paper does not detach.
    of_real, of_fake = torch.autograd.grad(discriminator, (real, fake), retain_graph=True)
    torch.testing.assert_close(of_real, torch.full((2,), -0.25))
    torch.testing.assert_close(of_fake, torch.full((2,), 0.25))
    # Each fake logit in the generator's loss: the same.
    (of_fake,) = torch.autograd.grad(generator, fake, retain_graph=True)
    torch.testing.assert_close(of_fake, torch.full((2,), -0.25))
    assert torch.autograd.grad(generator, real, allow_unused=True)[0] is None


SMOOTHING = [name for name, objective in OBJECTIVES.items() if objective.smooths]


@pytest.mark.parametrize("name", SMOOTHING)
def test_label_smoothing_changes_the_discriminators_loss_alone(name: str) -> None:
    real, fake = (
        torch.tensor(REAL),
        torch.tensor([-1.0, 0.5]),
    )  # not FAKE: with a mean of 0 every target costs the same
    plain = OBJECTIVES[name].losses(real, fake)
    smoothed = OBJECTIVES[name].losses(real, fake, target=0.9)
    assert abs(float(smoothed.discriminator - plain.discriminator)) > 1e-3
    assert float(smoothed.generator) == float(plain.generator)


@pytest.mark.parametrize(
    ("name", "logit"),
    [("non-saturating", math.log(9.0)), ("minimax", math.log(9.0)), ("lsgan", 0.9), ("relativistic-average", math.log(9.0))],
)  # fmt: skip
def test_label_smoothing_is_least_where_real_pictures_reach_the_target(name: str, logit: float) -> None:
    # sigmoid(log 9) is 0.9. The relativistic term of the fake ones is left out: it pulls on the same logits.
    real = torch.tensor([logit], requires_grad=True)
    smoothed = OBJECTIVES[name].losses(real, torch.zeros(1), target=0.9)
    (slope,) = torch.autograd.grad(smoothed.discriminator, real)
    of_fakes = -0.5 * (1 - 0.9) if name == "relativistic-average" else 0.0  # d/dr of softplus(-r) / 2
    torch.testing.assert_close(slope, torch.tensor([of_fakes]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "smoothing", "message"),
    [
        ("hinge", 0.1, "'hinge' has no labels to smooth"),
        ("lsgan", 1.0, "got 1.0, expected at least 0 and less than 1"),
        ("gan", 0.0, "got 'gan', expected one of non-saturating"),
    ],
)
def test_an_objective_that_does_not_fit_is_named(name: str, smoothing: float, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        objectives.get(name, smoothing)


def test_the_gradient_penalty_of_a_linear_critic_is_known() -> None:
    weights = torch.tensor([3.0, 4.0])  # its slope is 5 everywhere

    def critic(pictures: Tensor) -> Tensor:
        return pictures.flatten(1) @ weights

    real, fake = torch.randn(6, 1, 1, 2), torch.randn(6, 1, 1, 2)
    torch.testing.assert_close(objectives.gradient_penalty(critic, real, fake), torch.tensor(16.0))


def test_the_gradient_penalty_is_taken_everywhere_between_real_and_generated() -> None:
    """A critic of half the squared length has the picture itself as gradient: its norm tells where it was taken."""
    real, fake = torch.zeros(20_000, 1, 1, 1), torch.full((20_000, 1, 1, 1), 2.0)
    torch.manual_seed(0)
    penalty = objectives.gradient_penalty(
        lambda pictures: pictures.flatten(1).square().sum(1) / 2, real, fake
    )
    # At 2u for u evenly in [0, 1], the mean of (2u - 1)² is 1/3, ± 0.002; at either end it would be 1.
    assert penalty.item() == pytest.approx(1 / 3, abs=0.01)


def test_the_gradient_penalty_leaves_mixed_precision() -> None:
    dtypes = []

    def critic(pictures: Tensor) -> Tensor:
        logits = pictures.flatten(1) @ torch.ones(2, 1)
        dtypes.append(logits.dtype)
        return logits.flatten()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        objectives.gradient_penalty(critic, torch.randn(4, 1, 1, 2), torch.randn(4, 1, 1, 2).bfloat16())
    assert dtypes == [torch.float32]


def test_the_gradient_penalty_teaches_the_critic() -> None:
    critic = nn.Linear(2, 1, bias=False)
    penalty = objectives.gradient_penalty(
        lambda pictures: critic(pictures.flatten(1)).flatten(),
        torch.randn(4, 1, 1, 2),
        torch.randn(4, 1, 1, 2),
    )
    penalty.backward()
    assert critic.weight.grad is not None
    assert critic.weight.grad.abs().sum() > 0


def test_feature_matching_compares_means() -> None:
    fake = torch.tensor([[0.0, 2.0], [2.0, 2.0]], requires_grad=True)
    real = torch.tensor([[3.0, 1.0], [1.0, 1.0]], requires_grad=True)
    loss = losses.feature_matching(fake, real)
    torch.testing.assert_close(loss, torch.tensor(1.0))  # means (1, 2) and (2, 1)
    loss.backward()
    assert fake.grad is not None
    assert real.grad is None


def test_the_auxiliary_classifier_takes_logits() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # softmax 1/4, 3/4
    torch.testing.assert_close(
        losses.auxiliary_classifier(logits, torch.tensor([1])), torch.tensor(math.log(4 / 3))
    )


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([[0, 0, 0, 0]] * 4, 0.0),  # every picture shows a little of every class
        ([[99, 0, 0, 0]] * 4, 0.0),  # all show the same class
        ([[99 * (row == column) for column in range(4)] for row in range(4)], -2 * LN2),  # each another one
        ([[99, 0, 0, 0], [0, 99, 0, 0]] * 2, -LN2),  # two of four classes
    ],
)
def test_categorical_is_least_where_every_class_is_shown(shown: list[list[float]], expected: float) -> None:
    assert losses.categorical(torch.tensor(shown, dtype=torch.float32)).item() == pytest.approx(
        expected, abs=1e-5
    )


def test_minibatch_discrimination_sees_a_collapsed_batch() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(features=6, kernels=3)
    same, different = torch.randn(1, 6).expand(4, 6), 10 * torch.randn(4, 6)
    torch.testing.assert_close(
        layer(same)[:, 6:], torch.full((4, 3), 3.0)
    )  # three others, each at distance 0
    assert (layer(different)[:, 6:] < 1).all()
    torch.testing.assert_close(layer(different)[:, :6], different)


def test_spectral_norm_holds_every_layer_to_a_slope_of_one() -> None:
    torch.manual_seed(0)
    layers = nn.Linear(8, 6), nn.Linear(6, 1)
    nn.init.normal_(layers[0].weight, std=30)
    critic = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    constrain_weights(critic, "spectral")
    inputs = torch.randn(4, 8)
    for _ in range(50):  # the power iteration takes a step a pass
        critic(inputs)
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)
