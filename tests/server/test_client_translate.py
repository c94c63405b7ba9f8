"""Translate through the Python client and the command line, with a model that takes whole pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime import pixels
from runtime.errors import InvalidInput
from runtime.pictures.reading import open_picture
from runtime.tensors import Array
from server.client import STREAM_FROM_BYTES
from tests.server.client_runs import contents, done, make_photos, run
from tests.server.conftest import (
    FakeTranslator,
    FakeUpscaler,
    Serve,
    Served,
    decoded,
    levels_apart,
    mirrored_at_the_mean,
    picture,
    png,
)

# More than the fakes' own: an image that needs the streaming call has more pixels than that.
MAX_WHOLE_PX = 25_000


@pytest.fixture(scope="module")
def translating(serve: Serve) -> Served:
    return serve(FakeTranslator(max_whole_px=MAX_WHOLE_PX), FakeUpscaler())


def translated(image: Array) -> Array:
    """[H, W, 3] uint8 → what the fake translator makes of the whole picture."""
    values = pixels.to_float(image)[None] * np.float32(2) - np.float32(1)
    return pixels.to_uint8(mirrored_at_the_mean(values)[0].transpose(1, 2, 0), -1, 1)


@pytest.mark.parametrize("side", [40, 150])
def test_the_client_translates_small_and_large_images(translating: Served, side: int) -> None:
    image = png(side, side)
    assert (len(image) > STREAM_FROM_BYTES) == (side == 150)
    answer = translating.client.translate(image)
    assert (answer.model, answer.format, answer.width, answer.height) == ("translator", "png", side, side)
    assert levels_apart(decoded(answer.image), translated(picture(side, side))) <= 1
    reports: list[tuple[int, int]] = []
    streamed = translating.client.translate(
        image, format="webp", lossless=True, on_progress=lambda done, total: reports.append((done, total))
    )
    assert reports[-1] == (1, 1)
    assert streamed.format == "webp"
    np.testing.assert_array_equal(decoded(streamed.image), decoded(answer.image))


def test_a_picture_larger_than_the_model_takes_is_refused_with_the_number(translating: Served) -> None:
    side = int(MAX_WHOLE_PX**0.5) + 1
    with pytest.raises(InvalidInput, match=str(MAX_WHOLE_PX)):
        translating.client.translate(png(side, side))


def test_answers_in_a_folder_are_named_for_the_model(translating: Served, tmp_path: Path) -> None:
    photos = make_photos(tmp_path)
    before = contents(photos)
    done(translating, "translate", photos, photos, "--recursive")
    after = contents(photos)
    assert set(after) - set(before) == {"a-translator.png", "b-translator.png", "sub/c-translator.png"}
    assert {name: after[name] for name in before} == before
    image = decoded((photos / "b-translator.png").read_bytes())
    assert levels_apart(image, translated(picture(6, 4))) <= 1
    # Once more: no result is translated again, and nothing is replaced.
    assert run(translating, "translate", photos, photos, "--recursive").exit_code == 1
    done(translating, "translate", photos, photos, "--recursive", "--skip-existing")
    assert contents(photos) == after


def test_a_file_becomes_a_file_of_the_named_format(translating: Served, tmp_path: Path) -> None:
    photos = make_photos(tmp_path)
    done(translating, "translate", photos / "a.png", tmp_path / "out.tiff", "--model", "translator")
    assert open_picture((tmp_path / "out.tiff").read_bytes(), max_pixels=10**6).header.format == "tiff"


def test_models_shows_defaults_and_the_largest_whole_picture(translating: Served) -> None:
    listed = run(translating, "models").output
    assert "translator *" in listed
    assert "upscaler *" in listed
    assert f"{MAX_WHOLE_PX:,} px" in listed
