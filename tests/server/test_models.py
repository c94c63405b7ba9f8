"""The model of a request: by name, or the default of its task."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from protos import ganforge_pb2 as pb
from runtime.errors import InvalidInput, ModelNotFound
from server.__main__ import main
from server.models.models import Models
from tests.server.conftest import FakeGenerator, FakeUpscaler, Serve, png, refusal


def defaults(serve: Serve, *names: str, **options: dict[str, str]) -> list[str]:
    """The models that ListModels marks as defaults, of a server with upscalers of these names and a generator."""
    served = serve(*map(FakeUpscaler, names), FakeGenerator(), **options)
    return [info.name for info in served.client.models() if info.is_default]


def test_the_only_model_of_a_task_is_its_default(serve: Serve) -> None:
    assert defaults(serve, "mine") == ["generator", "mine"]


def test_of_several_models_the_demos_is_the_default(serve: Serve) -> None:
    assert defaults(serve, "a", "esrgan-x4", "z") == ["esrgan-x4", "generator"]


def test_without_a_demo_model_several_models_have_no_default(serve: Serve) -> None:
    assert defaults(serve, "a", "z") == ["generator"]


def test_a_default_may_be_named(serve: Serve) -> None:
    assert defaults(serve, "a", "esrgan-x4", "z", defaults={"upscale": "z"}) == ["generator", "z"]


def test_a_request_without_a_model_runs_on_the_default(serve: Serve) -> None:
    served = serve(FakeUpscaler("a"), FakeUpscaler("b"), defaults={"upscale": "b"})
    assert served.client.upscale(png(4, 4)).model == "b"
    assert served.client.upscale(png(4, 4), model="a").model == "a"


def test_without_a_default_a_request_without_a_model_is_refused_with_the_names(serve: Serve) -> None:
    served = serve(FakeUpscaler("a"), FakeUpscaler("b"), FakeGenerator())
    error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=png(4, 4))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    for word in ("a, b", "--default upscale=NAME"):
        assert word in error.details()
    assert served.client.generate(1).model == "generator"


def test_the_demos_samplers_have_an_order() -> None:
    engines = [FakeGenerator("acgan"), FakeGenerator("dcgan")]
    models = Models(engines)
    assert models.find("generate", "").name == "dcgan"
    models.close()


@pytest.mark.parametrize("name", ["nope", "generator"])
def test_an_impossible_default_is_refused(name: str) -> None:
    with pytest.raises(
        ModelNotFound, match=f"--default upscale={name}: the models that can upscale are a, b"
    ):
        Models([FakeUpscaler("a"), FakeUpscaler("b"), FakeGenerator()], {"upscale": name})


def test_a_model_of_another_task_is_not_the_default() -> None:
    models = Models([FakeUpscaler("a"), FakeGenerator()])
    with pytest.raises(ModelNotFound, match="no model that can translate is served here"):
        models.find("translate", "")
    with pytest.raises(InvalidInput, match="no model here can translate"):
        models.find("translate", "a")
    models.close()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["upscale"], "expected TASK=MODEL"),
        (["upscale="], "expected TASK=MODEL"),
        (["paint=a"], "one of upscale, translate, generate"),
        (["upscale=a", "upscale=b"], "two models for upscale"),
    ],
)
def test_a_default_flag_that_cannot_be_read_is_refused(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    arguments = [part for flag in flags for part in ("--default", flag)]
    done = CliRunner().invoke(main, ["--bundles", str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
