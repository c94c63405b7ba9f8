"""A server that others can reach needs TLS or the operator's word; it leaves no core files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import InvalidInput
from server.launch import launched
from server.machine.addresses import host_of, is_loopback
from server.security.exposure import check_exposure
from tests.server.bundles import write_upscaler

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, tls=False, insecure=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.7", "example.org", "127.0.0.1.example.org", "0", "128.0.0.1"]
)
def test_other_hosts_need_tls_or_the_operators_word(host: str) -> None:
    with pytest.raises(InvalidInput, match="give --tls-cert and --tls-key, or listen on"):
        check_exposure(host, tls=False, insecure=False)
    check_exposure(host, tls=True, insecure=False)
    check_exposure(host, tls=False, insecure=True)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("127.0.0.1:50051", "127.0.0.1"),
        ("localhost:1", "localhost"),
        ("localhost", "localhost"),
        ("[::1]:50051", "::1"),
        ("dns:///example.org:443", "example.org"),
        ("dns://8.8.8.8/example.org:443", "example.org"),
        ("ipv4:127.0.0.1:50051", "127.0.0.1"),
        ("ipv6:[::1]:50051", "::1"),
        ("unix:/run/ganforge.sock", "localhost"),
        ("xds:///localhost", "xds:///localhost"),
    ],
)
def test_the_host_of_a_target(target: str, host: str) -> None:
    """A scheme that is not known gives no loopback host, so a token is not sent there."""
    assert host_of(target) == host or not is_loopback(host_of(target))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_command_refuses_to_serve_others_in_a_sentence(tmp_path: Path, host: str) -> None:
    write_upscaler(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "server", "--bundles", str(tmp_path), "--port", "0", "--host", host],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "serving on" not in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"--host: {host} can be reached from other machines" in line


def test_with_insecure_it_serves_others_and_leaves_no_core_files(tmp_path: Path) -> None:
    """Its soft and its hard limit: a process can only lower the latter."""
    write_upscaler(tmp_path / "bundles")
    flags = ("--host", "0.0.0.0", "--insecure")
    with launched(tmp_path / "bundles", log=tmp_path / "log", flags=flags) as server:
        limits = Path(f"/proc/{server.pid}/limits").read_text(encoding="utf-8")
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "what clients send crosses the network unencrypted" in log
    assert '"tls": false, "callers": "anybody", "bundles": "signed or not"' in log
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
