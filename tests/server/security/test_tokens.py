"""Tokens: who may call, with which models; one answer to every wrong token; no token anywhere but where it was printed."""

from __future__ import annotations

import io
import logging
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import InvalidInput, ModelNotFound, PermissionDenied, Unauthenticated
from server.cli import main
from server.client import Client
from server.client.__main__ import main as client_main
from server.launch import launched
from server.security.access import Access
from server.security.certificates import Certificates, Files
from server.security.tokens import Tokens, hash_of, new_token, read, table
from tests.server.bundles import write_generator, write_upscaler
from tests.server.certificates import Authority
from tests.server.conftest import FakeGenerator, FakeUpscaler, Serve, Served, png, refusal, until

ALICE, BOB, CAROL, ROOT = (new_token() for _ in range(4))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    bob = table("bob", BOB) + 'models = ["generator", "absent"]\n'
    carol, root = table("carol", CAROL) + 'models = ["upscaler"]\n', table("root", ROOT) + "admin = true\n"
    file.write_text(table("alice", ALICE) + bob + carol + root)
    return file


@pytest.fixture(scope="module")
def guarded(serve: Serve, file: Path) -> Served:
    return serve(FakeUpscaler(), FakeGenerator(), FakeGenerator("plain", 0), access=Access(Tokens(file)))


@pytest.fixture
def alice(guarded: Served) -> Iterator[Client]:
    with Client(guarded.address, token=ALICE, retry=False) as client:
        yield client


@pytest.fixture
def bob(guarded: Served) -> Iterator[Client]:
    with Client(guarded.address, token=BOB, retry=False) as client:
        yield client


def test_a_token_opens_every_call_and_names_the_caller_in_the_log(guarded: Served, alice: Client) -> None:
    assert alice.upscale(png(5, 4)).width == 20
    assert alice.upscale(png(50, 40), on_progress=lambda done, total: None).width == 200
    assert len(alice.generate(2, model="plain").images) == 2
    assert [info.name for info in alice.models()] == ["generator", "plain", "upscaler"]
    until(lambda: sum(line.get("client") == "alice" for line in guarded.lines) >= 4)


WRONG = {
    "nothing": (),
    "another token": (("authorization", f"Bearer {new_token()}"),),
    "another scheme": (("authorization", f"Basic {ALICE}"),),
    "no scheme": (("authorization", ALICE),),
    "half of it": (("authorization", f"Bearer {ALICE[:20]}"),),
    "its hash": (("authorization", f"Bearer {hash_of(ALICE)}"),),
    "two of them": (("authorization", f"Bearer {ALICE}"), ("authorization", f"Bearer {BOB}")),
    "an empty one": (("authorization", "Bearer "),),
    "a long one": (("authorization", "Bearer " + "x" * 4000),),
}


@pytest.mark.parametrize("metadata", WRONG.values(), ids=WRONG)
def test_every_wrong_token_gets_the_same_answer(guarded: Served, metadata: Any) -> None:
    stream = iter([pb.UpscaleStreamRequest(header=pb.UpscaleRequest())])
    refusals = [
        refusal(lambda: guarded.stub.Upscale(pb.UpscaleRequest(image=png(4, 4)), metadata=metadata)),
        refusal(lambda: list(guarded.stub.UpscaleStream(stream, metadata=metadata))),
        refusal(lambda: guarded.stub.ListModels(pb.ListModelsRequest(), metadata=metadata)),
        refusal(lambda: guarded.stub.Generate(pb.GenerateRequest(count=0), metadata=metadata)),
    ]
    assert {error.code() for error in refusals} == {grpc.StatusCode.UNAUTHENTICATED}
    (message,) = {error.details() for error in refusals}
    assert "needs a valid token" in message


def test_who_was_refused_is_in_the_log(guarded: Served) -> None:
    """With its address: a firewall may be told."""
    metadata = (("authorization", "Bearer x"), ("x-request-id", "refused-1"))
    refusal(lambda: guarded.stub.ListModels(pb.ListModelsRequest(), metadata=metadata))
    (line,) = [line for line in guarded.lines if line.get("request_id") == "refused-1"]
    assert line["code"] == "UNAUTHENTICATED"
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert "client" not in line


def test_it_is_refused_before_its_message_has_arrived(guarded: Served) -> None:
    """The client begins a call and sends nothing: who waits for the message first would wait for long."""
    done = threading.Event()

    def nothing() -> Iterator[bytes]:
        done.wait(60)
        yield b""

    call = guarded.channel.stream_stream("/ganforge.v1.ImageGenerator/Upscale", None, None)(
        nothing(), timeout=30
    )
    assert refusal(lambda: list(call)).code() == grpc.StatusCode.UNAUTHENTICATED
    done.set()


def test_the_scheme_may_be_written_in_any_case(guarded: Served) -> None:
    metadata = (("authorization", f"bearer {ALICE}"),)
    assert len(guarded.stub.ListModels(pb.ListModelsRequest(), metadata=metadata).models) == 3


def test_health_needs_no_token_and_reflection_does(guarded: Served, serve: Serve) -> None:
    health = health_pb2_grpc.HealthStub(guarded.channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING

    def reflected(served: Served, *metadata: tuple[str, str]) -> list[Any]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        return list(stub.ServerReflectionInfo(iter([request]), metadata=metadata))

    assert refusal(lambda: reflected(guarded)).code() == grpc.StatusCode.UNAUTHENTICATED
    assert reflected(guarded, ("authorization", f"Bearer {ALICE}"))
    without = serve(FakeUpscaler(), reflection=False)
    assert refusal(lambda: reflected(without)).code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (new_token(), grpc.StatusCode.UNAUTHENTICATED),
        (ALICE, grpc.StatusCode.PERMISSION_DENIED),
        (ROOT, grpc.StatusCode.UNAVAILABLE),  # this server has no folder to reload
    ],
)
def test_only_a_token_of_an_administrator_may_administer(
    guarded: Served, token: str, code: grpc.StatusCode
) -> None:
    admin = pb_grpc.AdminStub(guarded.channel)
    metadata = (("authorization", f"Bearer {token}"),)
    error = refusal(lambda: admin.ReloadModels(pb.ReloadModelsRequest(), metadata=metadata))
    assert error.code() == code, error.details()


def test_a_service_that_nobody_thought_of_is_closed(guarded: Served) -> None:
    call = guarded.channel.unary_unary("/ganforge.v1.Forgotten/Method", None, None)
    assert refusal(lambda: call(b"")).code() == grpc.StatusCode.UNAUTHENTICATED


def test_only_the_allowed_models_are_listed_and_run(bob: Client) -> None:
    assert [info.name for info in bob.models()] == ["generator"]
    assert len(bob.generate(1, model="generator").images) == 1
    for name in ("plain", "upscaler", "nowhere"):
        with pytest.raises(PermissionDenied, match=f"bob may not use '{name}'; it may use absent, generator"):
            bob.generate(1, model=name)
    with pytest.raises(PermissionDenied, match="is empty, and the default is none that bob may use"):
        bob.upscale(png(4, 4))
    with pytest.raises(ModelNotFound, match="'absent' is not served here"):
        bob.generate(1, model="absent")


def test_a_caller_of_some_models_may_leave_out_the_name_of_the_default(guarded: Served) -> None:
    with Client(guarded.address, token=CAROL, retry=False) as carol:
        assert carol.upscale(png(5, 4)).model == "upscaler"
        assert carol.upscale(png(200, 150), into=io.BytesIO()).model == "upscaler"


def test_a_changed_file_counts_at_once_and_a_broken_one_not_at_all(tmp_path: Path) -> None:
    file, first, second = tmp_path / "tokens.toml", new_token(), new_token()
    file.write_text(table("first", first))
    tokens = Tokens(file, look_every_s=0)
    access = Access(tokens)

    def names() -> list[str]:
        return [caller.name for token in (first, second) if (caller := tokens.find(token))]

    assert names() == ["first"]
    file.write_text(table("first", first) + table("second", second))
    assert names() == ["first", "second"]
    with capture_logs() as lines:
        file.write_text(f'[second]\nsha256 = "{second}"\n')  # the token instead of its hash
        assert names() == ["first", "second"]
        assert names() == ["first", "second"]
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert "second.sha256: expected the 64 digits" in warning["reason"]
    assert second not in str(lines)
    file.write_text(table("second", second))
    assert names() == ["second"]
    with pytest.raises(Unauthenticated):  # revoked
        access.authenticate([("authorization", f"Bearer {first}")])


GOOD = f'sha256 = "{"0" * 64}"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no token"),
        ("[alice", "is not TOML"),
        ("alice = 1", "alice: is outside any table"),
        ("[alice]", "alice.sha256: expected the 64 digits"),
        ('[alice]\nsha256 = "ABC"', "alice.sha256: expected"),
        (
            f"[alice]\n{GOOD}max_pixels = 1",
            "alice.max_pixels: is no setting; there are sha256, models, max_active",
        ),
        (f"[alice]\n{GOOD}max_active_pixels = 0", "expected a whole number above 0"),
        (f"[alice]\n{GOOD}max_active_pixels = true", "got True, expected a whole number"),
        (f"[alice]\n{GOOD}pixels_per_second = inf", "got inf, expected a number above 0"),
        (f"[alice]\n{GOOD}pixels_per_second = nan", "got nan"),
        (f"[alice]\n{GOOD}burst_pixels = 5", "is given without pixels_per_second"),
        (f"[alice]\n{GOOD}models = []", "got [], expected a list of names"),
        (f'[alice]\n{GOOD}models = "esrgan"', "expected a list of names"),
        (f"[alice]\n{GOOD}admin = 1", "got 1, expected true or false"),
        (f'["two words"]\n{GOOD}', "got 'two words', expected 1 to 64"),
        (f"[alice]\n{GOOD}[bob]\n{GOOD}", "alice and bob have the same token"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "tokens.toml").write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(words)) as caught:
        read(tmp_path / "tokens.toml")
    assert str(caught.value).startswith(f"--tokens: {tmp_path}/tokens.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"tokens\.toml cannot be read: No such file"):
        Tokens(tmp_path / "tokens.toml")


@pytest.mark.parametrize("name", ["alice", "a.b-c_9"])
def test_the_command_makes_a_token_that_opens_a_server(tmp_path: Path, name: str) -> None:
    made = CliRunner().invoke(main, ["token", name])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert re.fullmatch(r"[\w-]{43}", token)
    assert token not in made.stderr
    (tmp_path / "tokens.toml").write_text(made.stderr)
    caller = Tokens(tmp_path / "tokens.toml").find(token)
    assert caller is not None
    assert (caller.name, caller.models, caller.admin) == (name, None, False)


def test_the_command_refuses_a_name_that_would_spoil_a_log() -> None:
    made = CliRunner().invoke(main, ["token", "two\nlines"])
    assert (made.exit_code, made.stdout) == (1, "")
    assert "expected 1 to 64 letters" in made.output


def test_a_client_certificate_names_the_caller(serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("carol")
    served = serve(FakeUpscaler(), certificates=Certificates(Files(server.cert, server.key, authority.file)))
    with Client(served.address, ca=authority.file, cert=client.cert, key=client.key) as caller:
        assert caller.upscale(png(5, 4)).width == 20
    until(lambda: any(line.get("client") == "carol" for line in served.lines))


@pytest.mark.parametrize("given", ["file", "environment"])
def test_no_token_is_in_a_log_an_error_or_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str
) -> None:
    """Of a process, with right and wrong tokens. The client's token comes from a file or the environment."""
    caplog.set_level(logging.DEBUG)
    write_upscaler(tmp_path / "bundles")
    write_generator(tmp_path / "bundles")
    right, wrong, file = new_token(), new_token(), tmp_path / "tokens.toml"
    file.write_text(table("alice", right) + 'models = ["generator"]\nmax_active_pixels = 128\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    flags = ("--tokens", str(file), "--metrics-port", str(metrics_port))
    said = []
    with launched(tmp_path / "bundles", log=tmp_path / "log", flags=flags) as server:
        for token in (right, wrong):
            options = []
            if given == "file":
                (tmp_path / "token").write_text(token + "\n")
                options = ["--token-file", str(tmp_path / "token")]
            else:
                monkeypatch.setenv("GANFORGE_TOKEN", token)
            for words in (["models"], ["generate", str(tmp_path / token[:8]), "--count", "9"], ["health"]):
                run = CliRunner().invoke(client_main, [*words, "--address", server.address, *options])
                said.append(run.output)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as page:
            said.append(page.read().decode())
    said += [(tmp_path / "log").read_text(), caplog.text]
    assert "generator" in said[0]
    assert "takes 576 pixels of the device, alice may use 128 at once" in said[1]
    assert "needs a valid token" in said[3]
    assert '"client": "alice"' in said[-2]
    everything = "\n".join(said)
    assert "ganforge_requests_total" in everything
    assert right not in everything
    assert wrong not in everything
    assert hash_of(right) not in everything
