"""How a client reaches its server: the channel's encryption, its token, and what failed connections mean.

Client (connection.py) makes a Security of its arguments. Only gRPC and the standard library are needed.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from runtime.errors import InvalidInput, NotReady
from server.machine.addresses import host_of, is_loopback
from server.statuses import from_rpc_error

# What gRPC says of a failed connection, and what to check. {ca}, {name}: of the client.
UNKNOWN_CA = "the server's certificate is not signed by {ca}; check --ca (GANFORGE_CA) and that this is the right server"
CAUSES = (
    ("certificate has expired", "the server's certificate has expired; its operator must renew it"),
    ("CERTIFICATE_VERIFY_FAILED", UNKNOWN_CA),
    ("certificate signature failure", UNKNOWN_CA),  # a CA of the same name with another key
    (
        "Hostname Verification Check failed",
        "the server's certificate is not for {name}; use a name that it is for, or give that name as --server-name",
    ),
    ("WRONG_VERSION_NUMBER", "the server answers without TLS; check the port, or leave out --tls and --ca"),
)
CLOSED = "Socket closed", "Connection reset"

TOKEN_VARIABLE = "GANFORGE_TOKEN"
# Parameters of Client for which a variable names a file.
FILE_VARIABLES = {"ca": "GANFORGE_CA", "cert": "GANFORGE_CERT", "key": "GANFORGE_KEY"}
NAME_VARIABLE, TLS_VARIABLE = "GANFORGE_SERVER_NAME", "GANFORGE_TLS"


def of_environment() -> dict[str, Any]:
    """The parameters of Client that the environment's variables give; those of the command line have options too."""
    files = {name: os.environ.get(variable) for name, variable in FILE_VARIABLES.items()}
    given: dict[str, Any] = {name: Path(file) for name, file in files.items() if file}
    texts = {"server_name": os.environ.get(NAME_VARIABLE), "token": os.environ.get(TOKEN_VARIABLE)}
    tls = {"tls": True} if os.environ.get(TLS_VARIABLE, "").lower() in ("1", "true", "yes", "on") else {}
    return given | tls | {name: text for name, text in texts.items() if text}


@dataclass(frozen=True)
class Security:
    """How to reach the server at `address`; the fields are those of Client. Raises InvalidInput if they do not fit.

    A token is sent only over TLS or to this machine: anybody on the way could use it.
    """

    address: str
    tls: bool | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = [name for name in ("ca", "cert", "key", "server_name") if getattr(self, name) is not None]
        if self.tls is False and given:
            raise InvalidInput("tls", f"is off, and {given[0]} is given, which only TLS needs; leave out one")
        if (self.cert is None) != (self.key is None):
            raise InvalidInput(
                "cert", "a client certificate needs both its file and its key's: --cert and --key"
            )
        if self.token is None:
            return
        if not self.token.isascii() or not self.token.isprintable() or not self.token.strip():
            raise InvalidInput("token", "is empty or has characters that no token has; check its file")
        if not self.encrypted and not is_loopback(host_of(self.address)):
            raise InvalidInput(
                "token",
                f"it would be sent to {self.address} unencrypted; give --tls, or --ca with the server's CA",
            )

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS: if asked for, or if a file for it is given."""
        return any((self.tls, self.ca, self.cert, self.server_name))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries."""
        return (("authorization", f"Bearer {self.token.strip()}"),) if self.token else ()

    def channel(self, options: Sequence[tuple[str, str | int]]) -> grpc.Channel:
        """A channel to the server. Raises InvalidInput naming a file that is missing or wrong."""
        if not self.encrypted:
            # A proxy of the environment (http_proxy) would see a token on its way to this machine.
            proxy = [("grpc.enable_http_proxy", 0)] if self.token else []
            return grpc.insecure_channel(self.address, [*options, *proxy])
        self._check_files()
        ca, key, cert = (file.read_bytes() if file else None for file in (self.ca, self.key, self.cert))
        name = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.secure_channel(self.address, credentials, [*options, *name])

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Context manager that turns the grpc.RpcError of its block into an error of runtime/errors.py.

        If the connection itself failed, the message says what to check.
        """
        try:
            yield
        except grpc.RpcError as error:
            ours = from_rpc_error(error)
            advice = self._advice(str(ours)) if isinstance(ours, NotReady) else None
            if advice is not None:
                ours = NotReady(f"cannot connect to {self.address}: {advice}")
            raise ours from error

    def _advice(self, message: str) -> str | None:
        ca = self.ca or "a public CA"
        name = self.server_name or host_of(self.address)
        for sign, advice in CAUSES:
            if sign in message:
                return advice.format(ca=ca, name=name)
        if "failed to connect" in message and any(sign in message for sign in CLOSED):
            if not self.encrypted:
                return "it closed the connection; if it expects TLS, give --tls, or --ca with its CA"
            return "it closed the connection; if it asks clients for certificates, give --cert and --key signed by its CA"
        return None

    def _check_files(self) -> None:
        """gRPC says nothing of wrong files but that no connection could be made."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for name in ("ca", "cert", "key"):
            file: Path | None = getattr(self, name)
            try:
                if file is not None:
                    file.read_bytes()
            except OSError as error:
                raise InvalidInput(name, f"{file} cannot be read: {error.strerror}") from error
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise InvalidInput(
                "ca", f"{self.ca} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
            ) from error
        try:
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        except ssl.SSLError as error:
            raise InvalidInput(
                "cert",
                f"{self.cert} and {self.key} are not a certificate and its unencrypted key, both in PEM "
                f"({error.reason or 'not readable'})",
            ) from error
