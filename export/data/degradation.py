"""Makes low-resolution crops as photographs really are: blurred, noisy, resized and saved as JPEG, more than once.

The second-order degradation of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3 and figure 2): two rounds of blur,
resizing, noise and JPEG, then a sinc filter and JPEG in either order. DegradationOptions has every probability and range; the
defaults are those of its training of RealESRNet. A share of the crops can be reduced plainly instead: MATLAB's bicubic, then
perhaps JPEG. A crop depends only on the picture, its place and a seed. Recipes give `DegradationOptions.reduction()` to Crops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.data import kernels
from export.data.pictures import saved_as_jpeg
from export.data.resize import resized_part
from runtime.errors import InvalidInput

# (picture [S·H, S·W, 3] uint8, rows and columns of its reduction, seed) → that part of the reduction, uint8.
Reduction = Callable[[np.ndarray, range, range, int], np.ndarray]

Range = tuple[float, float]  # least and most
SHAPES = tuple((profile, isotropic) for profile in kernels.PROFILES for isotropic in (True, False))
BETAS: Mapping[str, Range] = {"gaussian": (1.0, 1.0), "generalised": (0.5, 4.0), "plateau": (1.0, 2.0)}
RESIZES = ("area", "bilinear", "bicubic")
SUBSAMPLED = (
    0.75  # the share of JPEGs whose colours have half the resolution, as cameras and phones write them
)
JPEG_BLOCK_PX, LEAST_MARGIN_PX = 8, 4  # around a crop, so that its place within JPEG's blocks varies


@dataclass(frozen=True)
class DegradationOptions:
    """Options are probabilities in [0, 1] unless said otherwise; ranges are "least,most", and drawn from uniformly.

    plain: share of the crops that are only reduced (bicubic); plain_jpeg: of these, the share saved as JPEG.
    second: that a crop goes through the second round.
    blur, second_blur: that a round blurs; sinc, second_sinc: that its kernel is then a sinc filter.
    kernel_shapes: how often which other kernel is drawn: Gaussian, generalised Gaussian and plateau, each isotropic and then
    anisotropic, six shares. blur_sigma, second_blur_sigma: ranges, in pixels.
    resize, second_resize: shares of enlarging, reducing and keeping the size; resize_range, second_resize_range: of the factor.
    noise: that a round adds noise; gaussian: that it is Gaussian, else Poisson; grey_noise: that it is grey.
    noise_sigma, second_noise_sigma: ranges in grey levels (of 255); poisson, second_poisson: ranges of its strength.
    jpeg: that a round saves as JPEG; jpeg_quality: the range of its quality. final_sinc: that the end has a sinc filter.
    """

    plain: float = 0.0
    plain_jpeg: float = 1.0
    second: float = 1.0
    blur: float = 1.0
    second_blur: float = 0.8
    sinc: float = 0.1
    second_sinc: float = 0.1
    final_sinc: float = 0.8
    kernel_shapes: str = "0.45,0.25,0.12,0.03,0.12,0.03"
    blur_sigma: str = "0.2,3"
    second_blur_sigma: str = "0.2,1.5"
    resize: str = "0.2,0.7,0.1"
    second_resize: str = "0.3,0.4,0.3"
    resize_range: str = "0.15,1.5"
    second_resize_range: str = "0.3,1.2"
    noise: float = 1.0
    gaussian: float = 0.5
    grey_noise: float = 0.4
    noise_sigma: str = "1,30"
    second_noise_sigma: str = "1,25"
    poisson: str = "0.05,3"
    second_poisson: str = "0.05,2.5"
    jpeg: float = 1.0
    jpeg_quality: str = "30,95"

    def reduction(self, scale: int) -> Degradation:
        """The degradation to 1/`scale` of the size. Raises InvalidInput naming an option with an impossible value."""
        return Degradation(self, scale)


@dataclass(frozen=True)
class Round:
    """One round's probabilities and ranges, parsed."""

    blur: float
    sinc: float
    sigma: Range
    resize: tuple[float, ...]
    factor: Range
    noise_sigma: Range
    poisson: Range


class Degradation:
    """A Reduction: call it with a picture, the rows and columns of its reduction that are wanted, and a seed. Thread-safe."""

    def __init__(self, options: DegradationOptions, scale: int) -> None:
        self.options, self.scale = options, scale
        for name in CHANCES:
            if not 0 <= getattr(options, name) <= 1:
                raise InvalidInput(
                    name, f"got {getattr(options, name)}, expected a probability between 0 and 1"
                )
        self.shapes = shares(options, "kernel_shapes", len(SHAPES))
        self.quality = limits(options, "jpeg_quality", 1, 100)
        self.rounds = tuple(
            Round(
                blur=getattr(options, f"{which}blur"),
                sinc=getattr(options, f"{which}sinc"),
                sigma=limits(options, f"{which}blur_sigma", 0.05, 20),
                resize=shares(options, f"{which}resize", 3),
                factor=limits(options, f"{which}resize_range", 0.05, 4),
                noise_sigma=limits(options, f"{which}noise_sigma", 0, 255),
                poisson=limits(options, f"{which}poisson", 0, 100),
            )
            for which in ("", "second_")
        )

    def __call__(self, image: np.ndarray, rows: range, columns: range, seed: int) -> np.ndarray:
        """[S·H, S·W, 3] uint8 → [len(rows), len(columns), 3] uint8."""
        random = np.random.default_rng(seed)
        around = [
            with_margin(part, length // self.scale, random)
            for part, length in zip((rows, columns), image.shape[:2], strict=True)
        ]
        if random.random() < self.options.plain:
            low = resized_part(image, 1 / self.scale, *around)
            if random.random() < self.options.plain_jpeg:
                low = self.saved(low, random)
        else:
            top, left = (slice(self.scale * part.start, self.scale * part.stop) for part in around)
            low = self.degraded(image[top, left], random)
        down, right = (part.start - wider.start for part, wider in zip((rows, columns), around, strict=True))
        return low[down : down + len(rows), right : right + len(columns)]

    def degraded(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """[S·H, S·W, 3] uint8 → [H, W, 3] uint8, through both rounds and the end."""
        options = self.options
        whole, low = image.shape[:2], tuple(length // self.scale for length in image.shape[:2])
        draws = torch.Generator().manual_seed(int(random.integers(2**62)))
        x = floats(image)
        first, second = self.rounds
        x = self.blurred(x, first, random)
        x = resized(x, whole, first, random)
        x = self.with_noise(x, first, random, draws)
        x = self.jpeg(x, random)
        if random.random() < options.second:
            x = self.blurred(x, second, random)
            x = resized(x, low, second, random)
            x = self.with_noise(x, second, random, draws)
        if random.random() < 0.5:  # either order, as resizing and sharpening come before or after saving
            return bytes_of(self.jpeg(self.end(x, low, random), random))
        return bytes_of(self.end(self.jpeg(x, random), low, random))

    def blurred(self, x: Tensor, one: Round, random: np.random.Generator) -> Tensor:
        if random.random() >= one.blur:
            return x
        if random.random() < one.sinc:
            return filtered(x, kernels.random_sinc(random))
        profile, isotropic = SHAPES[random.choice(len(SHAPES), p=self.shapes)]
        first = float(random.uniform(*one.sigma))
        sigma = (first, first if isotropic else float(random.uniform(*one.sigma)))
        turn, beta = float(random.uniform(-np.pi, np.pi)), float(random.uniform(*BETAS[profile]))
        return filtered(x, kernels.blur(profile, kernels.random_side(random), sigma, turn, beta))

    def with_noise(
        self, x: Tensor, one: Round, random: np.random.Generator, draws: torch.Generator
    ) -> Tensor:
        if random.random() >= self.options.noise:
            return x
        grey = random.random() < self.options.grey_noise
        if random.random() < self.options.gaussian:
            sigma = float(random.uniform(*one.noise_sigma)) / 255
            noise = sigma * torch.randn((1, 1 if grey else 3, *x.shape[2:]), generator=draws)
        else:
            light = x.mean(1, keepdim=True) if grey else x
            light = (light * 255).round().clamp(0, 255) / 255
            levels = 2.0 ** np.ceil(np.log2(max(len(light.unique()), 2)))
            shot = torch.poisson(light * levels, generator=draws) / levels - light
            noise = float(random.uniform(*one.poisson)) * shot
        return (x + noise).clamp(0, 1)

    def jpeg(self, x: Tensor, random: np.random.Generator) -> Tensor:
        if random.random() >= self.options.jpeg:
            return x
        return floats(self.saved(bytes_of(x), random))

    def saved(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """[H, W, 3] uint8 → the same shape, after saving it as JPEG at a random quality."""
        subsampled = random.random() < SUBSAMPLED
        least, most = (round(end) for end in self.quality)
        return saved_as_jpeg(image, int(random.integers(least, most, endpoint=True)), subsampled=subsampled)

    def end(self, x: Tensor, size: tuple[int, ...], random: np.random.Generator) -> Tensor:
        """`x` at `size`, with a sinc filter or without."""
        x = interpolated(x, size, RESIZES[random.integers(len(RESIZES))])
        return filtered(x, kernels.random_sinc(random)) if random.random() < self.options.final_sinc else x


CHANCES = [name for name, kind in DegradationOptions.__annotations__.items() if kind == "float"]


def with_margin(part: range, length: int, random: np.random.Generator) -> range:
    """`part` of an axis of `length` pixels with some pixels more at both ends, as far as there are any."""
    before = LEAST_MARGIN_PX + int(random.integers(JPEG_BLOCK_PX))
    return range(max(part.start - before, 0), min(part.stop + LEAST_MARGIN_PX, length))


def resized(x: Tensor, base: tuple[int, ...], one: Round, random: np.random.Generator) -> Tensor:
    """`x` at a random factor of the size `base`, by a random one of RESIZES."""
    least, most = one.factor
    enlarged, reduced = random.uniform(1, max(most, 1)), random.uniform(min(least, 1), 1)
    factor = (enlarged, reduced, 1.0)[random.choice(3, p=one.resize)]
    size = tuple(max(round(length * factor), 1) for length in base)
    return interpolated(x, size, RESIZES[random.integers(len(RESIZES))])


def interpolated(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    """[1, 3, H, W] → [1, 3, *size], in [0, 1]. As Real-ESRGAN does, bilinear and bicubic without antialiasing."""
    if x.shape[2:] == size:
        return x
    corners = {} if mode == "area" else {"align_corners": False}
    return F.interpolate(x, size=size, mode=mode, **corners).clamp(0, 1)


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """[1, 3, H, W] → the same shape, each channel filtered by `kernel`, mirrored at the edges."""
    pad = kernel.shape[-1] // 2
    mode = "reflect" if min(x.shape[2:]) > pad else "replicate"
    planes = F.pad(x, (pad, pad, pad, pad), mode=mode).transpose(0, 1)
    return F.conv2d(planes, kernel[None, None]).transpose(0, 1).clamp(0, 1)


def floats(image: np.ndarray) -> Tensor:
    """[H, W, 3] uint8 → [1, 3, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255


def bytes_of(x: Tensor) -> np.ndarray:
    """[1, 3, H, W] float32 in [0, 1] → [H, W, 3] uint8."""
    return (x[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def numbers(options: DegradationOptions, name: str, count: int) -> tuple[float, ...]:
    text = getattr(options, name)
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not np.isfinite(found).all():
        raise InvalidInput(name, f"got {text!r}, expected {count} numbers separated by commas")
    return found


def limits(options: DegradationOptions, name: str, least: float, most: float) -> Range:
    """The range "least,most". Raises InvalidInput unless `least` ≤ its ends ≤ `most`, in this order."""
    low, high = numbers(options, name, 2)
    if not least <= low <= high <= most:
        raise InvalidInput(
            name, f"got {getattr(options, name)!r}, expected two numbers from {least:g} to {most:g}, rising"
        )
    return low, high


def shares(options: DegradationOptions, name: str, count: int) -> tuple[float, ...]:
    """`count` shares, divided by their sum. Raises InvalidInput if one is negative, or all are 0."""
    found = numbers(options, name, count)
    if min(found) < 0 or not sum(found):
        raise InvalidInput(
            name, f"got {getattr(options, name)!r}, expected {count} shares of 0 or more, not all 0"
        )
    return tuple(share / sum(found) for share in found)
