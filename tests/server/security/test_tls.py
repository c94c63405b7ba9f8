"""TLS and mutual TLS from a client's view; certificates that change while calls run; mistakes that are explained."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from runtime.errors import InvalidInput, NotReady
from server.client import Client
from server.client.__main__ import main
from server.client.security import of_environment
from server.grpc_front.front import Keepalive
from server.launch import launched
from server.security.certificates import Certificates, Files
from server.security.options import Security
from tests.server.bundles import write_upscaler
from tests.server.certificates import Authority, Issued, private_pem
from tests.server.conftest import FakeUpscaler, Serve, Served, held, png


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def encrypted(serve: Serve, authority: Authority) -> Served:
    server = authority.issue("server")
    return serve(FakeUpscaler(), certificates=Certificates(Files(server.cert, server.key)))


@pytest.fixture(scope="module")
def mutual(serve: Serve, authority: Authority) -> Served:
    server = authority.issue("mutual")
    return serve(FakeUpscaler(), certificates=Certificates(Files(server.cert, server.key, authority.file)))


def width(address: str, **options: Any) -> int:
    with Client(address, retry=False, timeout_s=20, **options) as client:
        return client.upscale(png(5, 4)).width


def fails(address: str, **options: Any) -> str:
    with pytest.raises(NotReady) as caught:
        width(address, **options)
    return str(caught.value)


def test_a_client_with_the_ca_is_served(encrypted: Served, authority: Authority) -> None:
    assert width(encrypted.address, ca=authority.file) == 20
    with Client(encrypted.address, ca=authority.file) as client:
        assert client.serving()
        assert client.upscale(png(200, 150), format="png", on_progress=lambda done, total: None).width == 800


def test_a_failed_connection_says_what_to_check(
    encrypted: Served, served: Served, authority: Authority, tmp_path: Path
) -> None:
    for name in ("ca", "another"):
        stranger = Authority(tmp_path, name)
        assert f"not signed by {stranger.file}; check --ca" in fails(encrypted.address, ca=stranger.file)
    assert "not signed by a public CA" in fails(encrypted.address, tls=True)
    assert "not for example.org" in fails(encrypted.address, ca=authority.file, server_name="example.org")
    assert "give --tls" in fails(encrypted.address)
    assert "answers without TLS" in fails(served.address, tls=True)


def test_mutual_tls_wants_a_certificate_of_its_ca(
    mutual: Served, authority: Authority, tmp_path: Path
) -> None:
    known, unknown = authority.issue("known client"), Authority(tmp_path).issue("unknown client")
    assert width(mutual.address, ca=authority.file, cert=known.cert, key=known.key) == 20
    assert "give --cert and --key" in fails(mutual.address, ca=authority.file)
    assert "give --cert and --key" in fails(
        mutual.address, ca=authority.file, cert=unknown.cert, key=unknown.key
    )


def serial(address: str) -> int:
    """Of the certificate that a new connection is shown."""
    host, port = address.split(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        context.wrap_socket(plain) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def replace(place: Issued, new: Issued) -> None:
    """As a careful operator does: each file at once."""
    for source, target in ((new.cert, place.cert), (new.key, place.key)):
        unfinished = target.with_suffix(".new")
        shutil.copy(source, unfinished)
        unfinished.replace(target)


def test_certificates_change_while_a_stream_is_in_flight(serve: Serve, authority: Authority) -> None:
    """New connections see the new certificate; the stream that began before ends as if nothing had happened."""
    place = authority.issue("rotated")
    first, second = place.serial, authority.issue("rotated", stem="next")
    engine = FakeUpscaler()
    served = serve(engine, certificates=Certificates(Files(place.cert, place.key)))
    with Client(served.address, ca=authority.file, retry=False) as client, ThreadPoolExecutor(1) as pool:
        with held(engine):
            under_way = pool.submit(client.upscale, png(300, 200), on_progress=lambda done, total: None)
            engine.entered.wait(20)
            assert serial(served.address) == first
            replace(place, second)
            assert serial(served.address) == second.serial
            assert width_while_held(served, authority)
            assert not under_way.done()
        assert under_way.result(60).width == 1200


def width_while_held(served: Served, authority: Authority) -> bool:
    """Whether a new connection is made and answered, by a call that needs no engine."""
    with Client(served.address, ca=authority.file, retry=False) as client:
        return [info.name for info in client.models()] == ["upscaler"]


def warnings(lines: list[Any]) -> list[str]:
    return [line["reason"] for line in lines if line["log_level"] == "warning" and "reason" in line]


def test_files_that_do_not_fit_keep_the_old_certificate(serve: Serve, authority: Authority) -> None:
    """Whatever is in the files meanwhile: the key of another certificate, half a file, nothing; one warning for each."""
    place = authority.issue("kept")
    first, second = place.serial, authority.issue("kept", stem="kept-next")
    served = serve(FakeUpscaler(), certificates=Certificates(Files(place.cert, place.key)))
    good = place.cert.read_bytes()
    expired = authority.issue("kept", stem="kept-old", starts_in=-timedelta(days=9), lasts=timedelta(days=1))
    steps = [
        (second.cert.read_bytes(), "is the key of another certificate"),
        (good[: len(good) // 2], "holds no certificate"),
        (b"", "holds no certificate"),
        (expired.cert.read_bytes(), "another certificate"),
    ]
    for content, reason in steps:
        before = len(served.lines)
        place.cert.write_bytes(content)
        assert serial(served.address) == first
        assert serial(served.address) == first
        (warning,) = warnings(served.lines[before:])
        assert reason in warning
    before = len(served.lines)
    place.cert.unlink()
    assert serial(served.address) == first
    assert "cannot be read: No such file" in warnings(served.lines[before:])[0]
    replace(place, second)
    assert serial(served.address) == second.serial
    assert any(line["event"] == "reloaded" for line in served.lines[before:])


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_that_says_nothing_is_closed(serve: Serve, authority: Authority, tls: bool) -> None:
    issued = authority.issue("patient")
    certificates = Certificates(Files(issued.cert, issued.key)) if tls else None
    served = serve(FakeUpscaler(), certificates=certificates, keepalive=Keepalive(handshake_within_ms=100))
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as silent:
        while silent.recv(1000):  # the server's settings, then the end; else the socket times out
            pass


def test_the_log_is_json_whatever_strangers_send(authority: Authority, tmp_path: Path) -> None:
    """gRPC's core would write a line of its own for each failed handshake."""
    write_upscaler(tmp_path / "bundles")
    issued = authority.issue("scanned")
    flags = ("--tls-cert", str(issued.cert), "--tls-key", str(issued.key))
    with launched(tmp_path / "bundles", log=tmp_path / "log", flags=flags) as server:
        host, port = server.address.split(":")
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"x" * 500):
            with socket.create_connection((host, int(port)), timeout=20) as stranger, suppress(OSError):
                stranger.sendall(data)
                while stranger.recv(1000):
                    pass
    for line in (tmp_path / "log").read_text().splitlines():
        assert json.loads(line)["event"]


def test_no_call_fails_while_certificates_change_again_and_again(serve: Serve, authority: Authority) -> None:
    """Calls on new connections all the time, while the two files are replaced one after the other, thirty times."""
    place = authority.issue("renewed")
    pairs = [authority.issue("renewed", stem=f"renewed-{number}") for number in range(2)]
    served = serve(FakeUpscaler(), certificates=Certificates(Files(place.cert, place.key)))
    done = threading.Event()

    def call() -> int:
        calls = 0
        while not done.is_set():
            calls += width(served.address, ca=authority.file) == 20
        return calls

    with ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(call) for _ in range(2)]
        for number in range(30):
            replace(place, pairs[number % 2])
            assert serial(served.address) == pairs[number % 2].serial
        done.set()
        assert min(caller.result(60) for caller in callers) > 0


def wrong(authority: Authority, folder: Path) -> Iterator[tuple[Files, str, str]]:
    """Files with a mistake, the flag that the message must name, and what it must say."""
    good, other = authority.issue("good"), authority.issue("other")
    yield Files(folder / "none.pem", good.key), "--tls-cert", "none.pem cannot be read: No such file"
    yield Files(good.cert, folder / "none.key"), "--tls-key", "none.key cannot be read: No such file"
    yield Files(folder, good.key), "--tls-cert", "cannot be read: Is a directory"
    yield Files(good.key, good.key), "--tls-cert", "good.key holds no certificate"
    yield Files(good.cert, good.cert), "--tls-key", "good.pem holds no private key"
    yield Files(good.cert, other.key), "--tls-key", "other.key is the key of another certificate than"
    yield Files(good.cert, good.key, good.key), "--client-ca", "good.key holds no certificate"
    old = authority.issue("old", starts_in=-timedelta(days=9), lasts=timedelta(days=1))
    yield Files(old.cert, old.key), "--tls-cert", "renew it"
    early = authority.issue("early", starts_in=timedelta(days=1))
    yield Files(early.cert, early.key), "--tls-cert", "is valid from"
    locked, secret = folder / "locked.key", BestAvailableEncryption(b"secret")
    key = load_pem_private_key(good.key.read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    yield Files(good.cert, locked), "--tls-key", "is encrypted"
    edwards = folder / "edwards.key"
    edwards.write_bytes(private_pem(ed25519.Ed25519PrivateKey.generate()))  # type: ignore[arg-type]
    yield Files(good.cert, edwards), "--tls-key", "gRPC takes RSA and elliptic-curve keys"


def test_mistakes_at_the_start_name_the_flag_and_the_file(authority: Authority, tmp_path: Path) -> None:
    for files, flag, words in wrong(authority, tmp_path):
        with pytest.raises(InvalidInput) as caught:
            Certificates(files)
        assert caught.value.field == flag
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Security(tls_cert=Path("file")), "--tls-cert: is given without --tls-key"),
        (Security(tls_key=Path("file")), "--tls-key: is given without --tls-cert"),
        (Security(client_ca=Path("file")), "--client-ca: is given without --tls-cert and --tls-key"),
    ],
)
def test_half_of_the_flags_are_refused(given: Security, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        given.certificates("127.0.0.1")


@pytest.mark.parametrize(
    ("lasts", "left", "warns"),
    [
        (timedelta(days=365), timedelta(days=15), False),
        (timedelta(days=365), timedelta(days=13), True),
        (timedelta(days=10), timedelta(days=3), False),  # renewed every few days: nearly over is a fifth
        (timedelta(days=10), timedelta(days=1), True),
    ],
)
def test_the_expiry_is_logged_and_warned_of(
    authority: Authority, lasts: timedelta, left: timedelta, warns: bool
) -> None:
    issued = authority.issue("expiring", lasts=lasts)
    expires = x509.load_pem_x509_certificate(issued.cert.read_bytes()).not_valid_after_utc
    with capture_logs() as lines:
        Certificates(Files(issued.cert, issued.key), now=lambda: expires - left)
    assert [line["expires"] for line in lines if line["event"] == "certificate"] == [expires.isoformat()]
    assert any("expires soon" in line["event"] for line in lines) is warns


def test_the_command_line_reaches_a_server_with_mutual_tls(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By options, and by the environment's variables."""
    write_upscaler(tmp_path / "bundles")
    server, client = authority.issue("process"), authority.issue("caller")
    flags = ["--tls-cert", server.cert, "--tls-key", server.key, "--client-ca", authority.file]
    flags += ["--host", "0.0.0.0"]  # with TLS it may
    with launched(tmp_path / "bundles", log=tmp_path / "log", flags=list(map(str, flags))) as running:
        address = "127.0.0.1:" + running.address.rpartition(":")[2]
        options = ["--ca", authority.file, "--cert", client.cert, "--key", client.key]
        words = ["models", "--address", address, *map(str, options)]
        assert "upscaler" in CliRunner().invoke(main, words).output
        refused = CliRunner().invoke(main, words[:-4])
        assert "give --cert and --key" in refused.output
        names = ("GANFORGE_CA", "GANFORGE_CERT", "GANFORGE_KEY")
        for name, value in zip(names, (authority.file, client.cert, client.key), strict=True):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("GANFORGE_ADDRESS", address)
        assert "is serving" in CliRunner().invoke(main, ["health"]).output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tls": False, "ca": "server.pem"}, "is off, and ca is given"),
        ({"tls": True, "cert": "server.pem"}, "needs both"),
        ({"ca": "nowhere.pem"}, "nowhere.pem cannot be read"),
        ({"ca": "server.key"}, "server.key holds no certificate"),
        (
            {"tls": True, "cert": "server.pem", "key": "other.key"},
            "are not a certificate and its unencrypted key",
        ),
        ({"token": "secret"}, "would be sent to example.org:1 unencrypted"),
        ({"token": "two\nlines", "tls": True}, "has characters that no token has"),
        ({"token": " ", "tls": True}, "is empty"),
    ],
)
def test_options_of_the_client_that_do_not_fit(
    authority: Authority, options: dict[str, Any], words: str
) -> None:
    folder = authority.issue("server").cert.parent
    authority.issue("other")
    files = {
        name: folder / value if name in ("ca", "cert", "key") else value for name, value in options.items()
    }
    with pytest.raises(InvalidInput, match=words) as caught:
        Client("example.org:1", **files)
    assert "secret" not in str(caught.value)


def test_the_environment_gives_what_the_options_give(
    encrypted: Served, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For programs without those options, such as `export.evaluate`."""
    assert of_environment() == {}
    values = {"CA": str(authority.file), "SERVER_NAME": "localhost", "TOKEN": "secret", "TLS": "1"}
    for name, value in values.items():
        monkeypatch.setenv(f"GANFORGE_{name}", value)
    expected = {"ca": authority.file, "server_name": "localhost", "token": "secret", "tls": True}
    assert of_environment() == expected
    assert width(encrypted.address, **of_environment()) == 20
