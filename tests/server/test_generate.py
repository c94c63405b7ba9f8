"""Generate through gRPC: reproducible samples, labels and latents."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import ganforge_pb2 as pb
from runtime import latents, pixels
from runtime.pictures.reading import open_picture
from tests.server.conftest import (
    CLASSES,
    LATENT,
    SIDE,
    FakeGenerator,
    Serve,
    Served,
    decoded,
    levels_apart,
    png,
    refusal,
)


def test_the_samples_are_the_networks_own(served: Served) -> None:
    answer = served.stub.Generate(pb.GenerateRequest(model="generator", count=5, seed=3))
    assert (answer.width, answer.height, answer.format) == (SIDE, SIDE, pb.IMAGE_FORMAT_PNG)
    assert (answer.seed, answer.model, answer.timing.tiles) == (3, "generator", 5)
    labels = latents.draw_labels(3, 0, 5, CLASSES)
    assert list(answer.labels) == labels.tolist()
    whole = FakeGenerator().run({"latent": latents.draw(3, 0, 4, LATENT), "label": labels[:4]})["sample"]
    for image, sample in zip(answer.images, whole, strict=False):
        assert levels_apart(decoded(image), pixels.to_uint8(sample.transpose(1, 2, 0), -1, 1)) <= 1


def test_sample_k_is_the_same_for_any_count_alone_and_under_load(served: Served) -> None:
    def images(count: int) -> list[bytes]:
        return list(served.client.generate(count, model="generator", seed=11).images)

    alone = [decoded(image) for image in images(64)]
    with ThreadPoolExecutor(8) as pool:
        load = [pool.submit(served.client.upscale, png(100, 100, seed=n)) for n in range(8)]
        counted = {count: pool.submit(images, count) for count in (1, 5, 64)}
        for count, answer in counted.items():
            samples = [decoded(image) for image in answer.result(60)]
            assert len(samples) == count
            assert max(map(levels_apart, samples, alone[:count])) <= 1
        for request in load:
            request.result(60)


def test_no_seed_draws_one_and_echoes_it(served: Served) -> None:
    first, second = (served.client.generate(2, model="plain") for _ in range(2))
    assert first.seed != second.seed
    assert served.client.generate(2, model="plain", seed=first.seed).images == first.images


@settings(max_examples=30)
@given(st.integers(0, 2**64 - 1), st.integers(1, 9))
def test_any_seed_and_count_are_served(served: Served, seed: int, count: int) -> None:
    answer = served.client.generate(count, model="generator", seed=seed)
    assert (answer.seed, len(answer.images), len(answer.labels)) == (seed, count, count)


def test_one_label_applies_to_all_samples_and_may_be_a_name(served: Served) -> None:
    one_label = served.client.generate(4, model="generator", seed=5, labels=[2])
    names = served.client.generate(4, model="generator", seed=5, labels=["class2"] * 4)
    mixed = served.client.generate(4, model="generator", seed=5, labels=[0, 2, 0, 2])
    assert one_label.labels == names.labels == (2, 2, 2, 2)
    assert one_label.images == names.images
    assert mixed.images[1::2] == one_label.images[1::2]
    assert mixed.images[0] != one_label.images[0]


def test_latents_of_the_caller_are_used_as_they_are(served: Served) -> None:
    given = latents.draw(9, 0, 3, LATENT)
    seeded = served.client.generate(3, model="plain", seed=9)
    asked = served.client.generate(3, model="plain", latents=given.tolist())
    assert asked.images == seeded.images
    assert asked.seed == 0


def test_latents_without_labels_draw_labels_from_the_seed_that_is_echoed(served: Served) -> None:
    answer = served.client.generate(3, model="generator", latents=np.zeros((3, LATENT)).tolist())
    assert list(answer.labels) == latents.draw_labels(answer.seed, 0, 3, CLASSES).tolist()


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff"])
def test_samples_are_encoded_in_other_formats(served: Served, format: str) -> None:
    answer = served.client.generate(1, model="plain", format=format)
    assert open_picture(answer.images[0], max_pixels=10**6).header.format == format


def test_a_small_truncation_draws_near_the_mean(served: Served) -> None:
    mean = served.client.generate(1, model="plain", latents=[[0.0] * LATENT]).images[0]
    near = served.client.generate(1, model="plain", seed=1, truncation=1e-6).images[0]
    assert levels_apart(decoded(near), decoded(mean)) <= 1


def test_an_empty_model_name_means_the_only_model_of_the_task(serve: Serve) -> None:
    alone = serve(FakeGenerator())
    assert alone.client.generate(1).model == "generator"
    error = refusal(lambda: alone.stub.Upscale(pb.UpscaleRequest(image=png(2, 2))))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "generator (generate)" in error.details()
