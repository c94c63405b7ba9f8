"""`python -m server` follows its folder of bundles: on `ganforge reload`, on SIGHUP and with --watch."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from protos import ganforge_pb2 as pb
from runtime.errors import ModelNotFound, NotReady, PermissionDenied
from server.client import Client
from server.client.__main__ import main
from server.core.calls import Call
from server.launch import launched
from server.limits import Limits
from server.models.reloading import Reloader
from server.security.access import Access
from server.security.callers import Caller
from server.security.tokens import Tokens, new_token, table
from tests.server.bundles import write_generator, write_upscaler
from tests.server.conftest import Serve, png, until
from tests.server.versions import Opener, Painter, write_version

# The RPC and the command.


def test_the_rpc_says_what_it_did(serve: Serve, tmp_path: Path) -> None:
    first = write_version(tmp_path, 1, "a")
    served = serve(Painter(first), open_bundle=Opener())
    with pytest.raises(NotReady, match="warming up"):
        served.client.reload_models()
    served.service.administration.reloader = Reloader(served.models, tmp_path)
    second = write_version(tmp_path, 2, "a")
    write_version(tmp_path, 3, "b")
    (write_version(tmp_path, 4, "c").path / "model.onnx").write_bytes(b"")
    done = served.client.reload_models()
    assert [(change.name, change.version) for change in done.replaced] == [("a", second.version)]
    assert [change.name for change in done.added] == ["b"]
    assert [change.name for change in done.refused] == ["c"]
    assert "model.onnx was altered" in done.refused[0].reason
    assert {info.name: info.version for info in served.client.models()}["a"] == second.version
    assert served.client.upscale(png(8, 8), model="a").timing.model_version == second.version

    assert served.service.stats().reloads == {"added": 1, "replaced": 1, "removed": 0, "refused": 1}
    until(lambda: served.models.stats().open == 2)
    assert served.models.stats().opened == 3

    done = served.client.reload_models(["b"])
    assert [change.name for change in done.unchanged] == ["b"]
    arguments = ["reload", "--address", served.address]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "refused c: " in refused.output
    assert f"unchanged a ({second.version})" in refused.output
    assert CliRunner().invoke(main, [*arguments, "a"]).exit_code == 0


@pytest.mark.parametrize(
    ("peer", "is_allowed"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("unix:/run/ganforge.sock", True),
        ("ipv4:192.0.2.1:4711", False),
        ("ipv6:%5B2001:db8::1%5D:4711", False),
        ("", False),
    ],
)
def test_without_tokens_only_callers_on_this_machine_may_reload(
    serve: Serve, tmp_path: Path, peer: str, is_allowed: bool
) -> None:
    served = serve(Painter(write_version(tmp_path, 1)))
    administration = served.service.administration
    administration.reloader = Reloader(served.models, tmp_path)
    reload = administration.reload_models((), Call.begin("ReloadModels", peer=peer))
    if is_allowed:
        assert served.run(reload).unchanged
    else:
        with pytest.raises(PermissionDenied, match="only from the server's own machine"):
            served.run(reload)


@pytest.mark.parametrize("admin", [True, False])
def test_with_a_token_it_must_be_an_administrators(serve: Serve, tmp_path: Path, admin: bool) -> None:
    served = serve(Painter(write_version(tmp_path, 1)))
    administration = served.service.administration
    administration.reloader = Reloader(served.models, tmp_path)
    call = Call.begin("ReloadModels", peer="ipv4:127.0.0.1:1" if not admin else "ipv4:192.0.2.1:1")
    call.caller = Caller("somebody", admin=admin)
    if admin:
        assert served.run(administration.reload_models((), call)).unchanged
    else:
        with pytest.raises(PermissionDenied, match="admin = true"):
            served.run(administration.reload_models((), call))


def test_a_token_without_admin_may_not_reload(serve: Serve, tmp_path: Path) -> None:
    guests, operators = new_token(), new_token()
    tokens, bundles = tmp_path / "tokens.toml", tmp_path / "bundles"
    tokens.write_text(table("guest", guests) + table("operator", operators) + "admin = true\n")
    served = serve(Painter(write_version(bundles, 1)), access=Access(Tokens(tokens)))
    served.service.administration.reloader = Reloader(served.models, bundles)
    with Client(served.address, token=guests) as guest, pytest.raises(PermissionDenied):
        guest.reload_models()
    with Client(served.address, token=operators) as operator:
        assert operator.reload_models().unchanged


def test_a_reload_may_take_longer_than_a_stream_may_idle(serve: Serve, tmp_path: Path) -> None:
    opener = Opener()
    served = serve(Painter(write_version(tmp_path, 1)), open_bundle=opener, limits=Limits(idle_s=0.2))
    served.service.administration.reloader = Reloader(served.models, tmp_path)
    write_version(tmp_path, 2)
    opener.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(served.client.reload_models)
        assert opener.entered.wait(30)
        assert not wait([reload], 1.0).done
        opener.gate.set()
        assert reload.result(30).replaced


def test_a_reload_goes_on_when_its_caller_gives_up(serve: Serve, tmp_path: Path) -> None:
    opener = Opener()
    served = serve(Painter(write_version(tmp_path, 1)), open_bundle=opener)
    served.service.administration.reloader = Reloader(served.models, tmp_path)
    write_version(tmp_path, 2)
    opener.gate.clear()
    call: Any = served.client._admin.ReloadModels.future(pb.ReloadModelsRequest())
    assert opener.entered.wait(30)
    call.cancel()
    until(lambda: served.calls("CANCELLED") == 1)
    opener.gate.set()
    until(lambda: len(opener.opened(2)) == 1 and served.models.stats().open == 1)
    assert served.client.upscale(png(8, 8)).image
    assert call.code() == grpc.StatusCode.CANCELLED


# The process.


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def names(client: Client) -> list[str]:
    return [info.name for info in client.models()]


def test_a_server_reloads_on_sighup_and_keeps_the_old_model_for_a_bad_bundle(tmp_path: Path) -> None:
    bundles, log = tmp_path / "bundles", tmp_path / "log"
    write_upscaler(bundles)
    with launched(bundles, log=log) as server, Client(server.address) as client:
        version = client.models()[0].version
        write_generator(bundles)
        graph = bundles / "upscaler" / "model.onnx"
        graph.write_bytes(graph.read_bytes() + b"x")
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: names(client) == ["generator", "upscaler"])
        assert client.generate(1).images
        answer = client.upscale(png(20, 20))
        assert answer.timing.model_version == version
        shutil.rmtree(bundles / "generator")
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: names(client) == ["upscaler"])
        with pytest.raises(ModelNotFound):
            client.generate(1)
    (refused,) = [event for event in events(log) if event["event"] == "bundle refused"]
    assert "model.onnx was altered" in refused["reason"]
    assert [event["refused"] for event in events(log) if event["event"] == "reloaded"] == [1, 1]


def test_a_server_that_watches_an_empty_folder_is_ready_with_its_first_bundle(tmp_path: Path) -> None:
    bundles, log = tmp_path / "bundles", tmp_path / "log"
    bundles.mkdir()
    first = Path(shutil.move(write_upscaler(tmp_path / "elsewhere").path, bundles / ".first"))

    def put() -> None:
        until(lambda: log.exists() and "waiting for the first bundle" in log.read_text())
        first.rename(bundles / "upscaler")

    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(put)
        with launched(bundles, log=log, flags=["--watch", "--lazy"], timeout_s=60) as server:
            putting.result()
            with Client(server.address) as client:
                assert client.serving()
                (info,) = client.models()
                assert (info.state, info.backend) == ("idle", "")
                assert client.upscale(png(20, 20)).width == 80
                (info,) = client.models()
                assert (info.state, info.backend) == ("serving", "openvino")
                shutil.rmtree(bundles / "upscaler")
                until(lambda: not client.serving())
                write_generator(bundles)
                until(client.serving)
                assert names(client) == ["generator"]
