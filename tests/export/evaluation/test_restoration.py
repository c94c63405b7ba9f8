"""Tests of comparing a network's answers with the originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.data import saved_as_jpeg, write_picture
from export.data.resize import resize
from export.evaluation.metrics import psnr_db, psnr_y_db, ssim
from export.evaluation.restoration import compare, mean, measure, pairs, perceptual_distance
from export.evaluation.subjects import BicubicSubject, Subject
from export.networks.features import NETS, Features
from runtime.errors import InvalidInput
from runtime.tasks.translate import TRANSLATE
from runtime.tasks.upscale import UPSCALE
from runtime.tensors import Array
from tests.export.evaluation.data import public


def noise(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Nearest(Subject):
    """Each pixel `scale` times; `offset` more rows than it should."""

    def __init__(self, scale: int, offset: int = 0) -> None:
        super().__init__("test", "nearest", UPSCALE, scale=scale)
        self.offset = offset

    def convert(self, image: Array) -> Array:
        large = image.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        return np.pad(large, ((0, self.offset), (0, 0), (0, 0)))


def test_each_picture_is_reduced_upscaled_and_compared_by_the_protocol(tmp_path: Path) -> None:
    images = {name: noise(42, 50, seed) for seed, name in enumerate(("a", "b"))}
    for name, image in images.items():
        write_picture(tmp_path / f"{name}.png", image)
    qualities = measure(Nearest(4), pairs(tmp_path, None, Nearest(4)))
    assert list(qualities) == ["a", "b"]
    truth = images["b"][:40, :48]  # what ×4 can reach
    upscaled = Nearest(4).convert(resize(truth, 1 / 4))
    quality = qualities["b"]
    assert quality.psnr_y_db == psnr_y_db(upscaled, truth, 4)
    assert quality.psnr_rgb_db == psnr_db(upscaled, truth, 4)
    assert quality.ssim_rgb == pytest.approx(ssim(upscaled, truth, 4))
    assert quality.perceptual is None
    both = mean(qualities)
    assert both.ssim_y == pytest.approx((qualities["a"].ssim_y + qualities["b"].ssim_y) / 2)
    assert both.perceptual is None


def test_reductions_that_are_given_are_taken(tmp_path: Path) -> None:
    for folder in ("HR", "LR"):
        (tmp_path / folder).mkdir()
    write_picture(tmp_path / "HR/a.png", noise(40, 48))
    write_picture(tmp_path / "LR/ax2.png", noise(20, 24, seed=1))
    pictures = pairs(tmp_path / "HR", tmp_path / "LR", Nearest(2))
    expected = compare(Nearest(2).convert(noise(20, 24, seed=1)), noise(40, 48), 2)
    assert measure(Nearest(2), pictures)["a"].psnr_y_db == pytest.approx(expected.psnr_y_db)
    with pytest.raises(InvalidInput, match=r"hr: no reduction of a\.png"):
        pairs(tmp_path / "HR", tmp_path / "LR", Nearest(3))


class Negative(Subject):
    """Translates a picture into its negative."""

    def __init__(self) -> None:
        super().__init__("test", "negative", TRANSLATE)

    def convert(self, image: Array) -> Array:
        return 255 - image


def test_a_translation_is_compared_with_the_original_of_its_input(tmp_path: Path) -> None:
    for folder, image in (("HR", noise(40, 48)), ("LR", 255 - noise(40, 48)), ("other", noise(40, 48))):
        (tmp_path / folder).mkdir()
        write_picture(tmp_path / folder / "a.png", image)
    exact = measure(Negative(), pairs(tmp_path / "HR", tmp_path / "LR", Negative()))["a"]
    wrong = measure(Negative(), pairs(tmp_path / "HR", tmp_path / "other", Negative()))["a"]
    assert exact.ssim_rgb == pytest.approx(1)
    assert wrong.psnr_rgb_db < 12
    # An upscaler's inputs are made from the originals; those of a translation cannot be.
    with pytest.raises(InvalidInput, match="lr: is missing; negative is for the task translate"):
        pairs(tmp_path / "HR", None, Negative())


def test_a_subject_that_answers_in_another_size_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", noise(40, 48))
    with pytest.raises(InvalidInput, match="subject: answered with 48×43 px, expected 48×40 px"):
        measure(Nearest(2, offset=3), pairs(tmp_path, None, Nearest(2)))


def test_perceptual_distance_is_the_mean_difference_of_features() -> None:
    torch.manual_seed(0)
    features = Features(NETS["vgg19-conv1_2"]).eval().requires_grad_(False)
    distance = perceptual_distance(features, torch.device("cpu"))
    image, other = noise(16, 16), noise(16, 16, seed=1)
    pair = [
        features(torch.from_numpy(picture.transpose(2, 0, 1)[None] / np.float32(255)))
        for picture in (image, other)
    ]
    assert distance(image, other) == pytest.approx(float((pair[0] - pair[1]).abs().mean()), rel=1e-5)
    assert distance(image, image) == 0
    # The border does not count: only the inner 12×12 differ from one another here.
    framed = image.copy()
    framed[:2] = 0
    assert compare(framed, image, 2, distance).perceptual == 0


def test_bicubic_on_set5_gives_the_published_figures() -> None:
    folder = public("set5")
    bicubic = BicubicSubject(4)
    both = mean(measure(bicubic, pairs(folder / "HR", folder / "LR_bicubic/X4", bicubic)))
    # 28.42 dB and 0.8104 in every paper; ours rounds to 8 bits between the passes.
    assert both.psnr_y_db == pytest.approx(28.42, abs=0.02)
    assert both.ssim_y == pytest.approx(0.8104, abs=0.002)


def test_bicubic_on_set5_saved_as_jpeg_falls_behind_with_the_quality() -> None:
    """Figures measured independently, with Pillow's encoder at its default of 4:2:0."""
    folder = public("set5")
    bicubic = BicubicSubject(4)
    figures = [
        mean(measure(bicubic, pairs(folder / "HR", folder / "LR_bicubic/X4", bicubic, jpeg))).psnr_y_db
        for jpeg in (95, 75, 50)
    ]
    assert figures == pytest.approx([28.33, 27.47, 26.64], abs=0.03)


def test_inputs_may_be_saved_as_jpeg_first(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_picture(folder / "a.png", noise(32, 32))
    (plain,) = pairs(folder, None, Nearest(2)).values()
    (saved,) = pairs(folder, None, Nearest(2), jpeg=50).values()
    assert torch.equal(saved.high, plain.high)
    expected = saved_as_jpeg(plain.low.permute(1, 2, 0).numpy(), 50)
    assert np.array_equal(saved.low.permute(1, 2, 0).numpy(), expected)
    assert not torch.equal(saved.low, plain.low)
