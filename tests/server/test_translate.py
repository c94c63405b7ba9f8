"""Translate and TranslateStream through gRPC, with a model that takes whole pictures: never tiled, never resized."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import pyvips

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.errors import InvalidInput
from runtime.tensors import Array
from server.core.calls import Call
from server.core.requests import ImageAnswer, ImageRequest
from server.core.service import Service
from server.limits import Limits
from server.models.models import Models
from tests.server.conftest import (
    MAX_WHOLE_PX,
    FakeTranslator,
    FakeUpscaler,
    Serve,
    Served,
    decoded,
    levels_apart,
    mirrored_at_the_mean,
    picture,
    png,
    refusal,
)
from tests.server.kinds import vips


@pytest.fixture(scope="module")
def translating(serve: Serve) -> Served:
    return serve(FakeTranslator(), FakeUpscaler())


def translated(image: Array) -> Array:
    """[H, W, 3] uint8 → what the fake makes of the whole picture."""
    values = pixels.to_float(image)[None] * 2 - 1
    return pixels.to_uint8(mirrored_at_the_mean(values)[0].transpose(1, 2, 0), -1, 1)


def stream(image: bytes, **options: object) -> Iterator[pb.TranslateStreamRequest]:
    yield pb.TranslateStreamRequest(header=pb.TranslateRequest(**options))  # type: ignore[arg-type]
    for start in range(0, len(image), 1000):
        yield pb.TranslateStreamRequest(data=image[start : start + 1000])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (33, 7), (160, 125), (7, 200)])
def test_the_answer_is_that_of_the_whole_picture(translating: Served, width: int, height: int) -> None:
    answer = translating.stub.Translate(pb.TranslateRequest(image=png(width, height)))
    assert (answer.width, answer.height) == (width, height)
    assert (answer.format, answer.model) == (pb.IMAGE_FORMAT_PNG, "translator")
    assert answer.timing.tiles == 1
    assert levels_apart(decoded(answer.image), translated(picture(width, height))) <= 1


def test_the_stream_gives_progress_then_a_header_then_the_file(translating: Served) -> None:
    parts = list(translating.stub.TranslateStream(stream(png(120, 90), model="translator")))
    kinds = [part.WhichOneof("part") for part in parts]
    header_at = kinds.index("header")
    assert kinds[:header_at] == ["progress"]
    assert set(kinds[header_at + 1 :]) == {"data"}
    assert (parts[0].progress.tiles_done, parts[0].progress.tiles_total) == (1, 1)
    assert not parts[header_at].header.image
    answer = b"".join(part.data for part in parts[header_at + 1 :])
    assert levels_apart(decoded(answer), translated(picture(120, 90))) <= 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_picture_too_large_to_be_seen_whole_is_refused_with_the_limit(
    translating: Served, streamed: bool
) -> None:
    fits, too_large = png(200, MAX_WHOLE_PX // 200), png(200, MAX_WHOLE_PX // 200 + 1)
    assert translating.stub.Translate(pb.TranslateRequest(image=fits)).width == 200
    if streamed:
        error = refusal(lambda: list(translating.stub.TranslateStream(stream(too_large))))
    else:
        error = refusal(lambda: translating.stub.Translate(pb.TranslateRequest(image=too_large)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert str(MAX_WHOLE_PX) in error.details()
    assert "translator cannot be tiled" in error.details()


def test_list_models_says_how_large_a_picture_may_be(translating: Served) -> None:
    infos = {info.name: info for info in translating.client.models()}
    assert (infos["translator"].task, infos["translator"].max_whole_px) == (pb.TASK_TRANSLATE, MAX_WHOLE_PX)
    assert infos["upscaler"].max_whole_px == 0
    assert all(info.is_default for info in infos.values())


def rgba(width: int, height: int) -> Array:
    """[H, W, 4] uint8: noise, and a transparency with hidden, opaque and half transparent parts."""
    alpha = np.repeat(np.array([[0, 128, 255]], np.uint8), -(-width // 3), axis=1)[:, :width]
    return np.dstack([picture(width, height), np.repeat(alpha, height, axis=0)])


def read(file: bytes) -> Array:
    image = pyvips.Image.new_from_buffer(file, "")
    return np.asarray(image.numpy())


def test_transparency_does_not_go_through_a_translator_and_is_unchanged(translating: Served) -> None:
    given = rgba(60, 40)
    answer = read(
        translating.stub.Translate(pb.TranslateRequest(image=vips(given, "srgb").pngsave_buffer())).image
    )
    assert answer.shape == given.shape
    assert np.array_equal(answer[..., 3], given[..., 3])


def test_transparency_is_resized_with_an_answer_of_another_size(serve: Serve) -> None:
    served = serve(FakeTranslator(scale=2))
    given = rgba(60, 40)
    answer = read(
        served.stub.Translate(pb.TranslateRequest(image=vips(given, "srgb").pngsave_buffer())).image
    )
    assert answer.shape == (80, 120, 4)
    inside = (slice(4, -4), slice(4, 34))  # away from where the transparency changes
    assert not answer[..., 3][inside].any()
    assert (answer[:, 90:, 3] == 255).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [({"quality": 0}, "quality"), ({"format": 77}, "format"), ({"model": "upscaler"}, "model")],
)
def test_wrong_requests_of_translate_are_refused(
    translating: Served, options: dict[str, object], field: str
) -> None:
    request = pb.TranslateRequest(image=png(4, 4), **options)  # type: ignore[arg-type]
    error = refusal(lambda: translating.stub.Translate(request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(field)


async def ignore(answer: ImageAnswer) -> None:
    pass


async def test_another_size_than_the_models_own_cannot_be_asked_for() -> None:
    """No message of gRPC has the field; the core refuses it to every front."""
    service = Service(Limits())
    service.ready(Models([FakeTranslator()]))
    with pytest.raises(InvalidInput, match=r"outscale: got 2\.0"):
        await service.image(
            "translate", ImageRequest(outscale=2.0), png(4, 4), ignore, Call.begin("Translate")
        )
    service.close()


def test_limits_hold_for_translate_too(serve: Serve) -> None:
    served = serve(FakeTranslator(), limits=Limits(max_pixels=500))
    error = refusal(lambda: served.stub.Translate(pb.TranslateRequest(image=png(30, 30))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "500" in error.details()
