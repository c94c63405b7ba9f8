"""The server's certificate and key, and the CA of its clients; read again when the files change.

server/__main__.py makes a Certificates of --tls-cert, --tls-key and --client-ca; the gRPC front listens with its
`credentials`. gRPC asks for the certificate at each new connection, so a new one needs no restart, and the connections
that are open keep the one they began with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from runtime.errors import InvalidInput
from server.logs import log
from server.security.reloaded import Reloaded

# An expiry is announced this long before, or for the last fifth of a shorter life.
WARN_BEFORE = timedelta(days=14)
WARN_SHARE = 1 / 5
# One warning a day.
WARN_EVERY_S = 24 * 3600.0


@dataclass(frozen=True)
class Files:
    """The files of --tls-cert (with the intermediate certificates after it), --tls-key and --client-ca, all in PEM."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, checked. expires: when it does. warn_from: when that is near."""

    configuration: grpc.ServerCertificateConfiguration
    expires: datetime
    warn_from: datetime


class Certificates:
    """The credentials of a server. Raises InvalidInput naming the flag and file if something is wrong with one.

    now: the time, as datetime.now(UTC).
    """

    def __init__(self, files: Files, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._files, self._now = files, now
        every = [files.cert, files.key, *([files.client_ca] if files.client_ca else [])]
        self._pair = Reloaded("certificate", every, self._read)
        self._served = self._pair.current()
        self._warned_s: float | None = None
        self._warn(self._served)

    @property
    def expires(self) -> datetime:
        """When the certificate of new connections expires."""
        return self._served.expires

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC listens with. With a CA of clients, connections without a certificate of it are refused."""
        return grpc.dynamic_ssl_server_credentials(
            self._served.configuration,
            self._changed,  # type: ignore[arg-type]  # may return None, which grpc-stubs does not know
            require_client_authentication=self._files.client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on one of its threads, for each new connection: the new certificate, None for the same as before."""
        pair = self._pair.current()
        self._warn(pair)
        if pair is self._served:
            return None
        self._served = pair
        return pair.configuration

    def _read(self) -> Pair:
        pair = read_pair(self._files, self._now())
        log.info("certificate", file=str(self._files.cert), expires=pair.expires.isoformat())
        self._warned_s = None
        return pair

    def _warn(self, pair: Pair) -> None:
        """Log that the certificate expires soon, once a day."""
        if self._now() < pair.warn_from:
            return
        if self._warned_s is None or time.monotonic() - self._warned_s > WARN_EVERY_S:
            self._warned_s = time.monotonic()
            log.warning(
                "the certificate expires soon; put a new one into its file, no restart is needed",
                file=str(self._files.cert),
                expires=pair.expires.isoformat(),
            )


def read_pair(files: Files, now: datetime) -> Pair:
    """Read and check the files. Raises InvalidInput if they do not fit each other, or the certificate is not valid now."""
    chain, key = _content("--tls-cert", files.cert), _content("--tls-key", files.key)
    leaf = _certificates("--tls-cert", files.cert, chain)[0]
    _check_key(files, leaf, key)
    first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not first <= now <= last:
        raise InvalidInput(
            "--tls-cert",
            f"{files.cert} is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, and now it is "
            f"{now:%Y-%m-%d %H:%M}; renew it",
        )
    roots = None
    if files.client_ca is not None:
        roots = _content("--client-ca", files.client_ca)
        _certificates("--client-ca", files.client_ca, roots)
    configuration = grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)
    return Pair(configuration, last, last - min(WARN_BEFORE, (last - first) * WARN_SHARE))


def _content(flag: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(flag, f"{file} cannot be read: {error.strerror}") from error


def _certificates(flag: str, file: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise InvalidInput(
            flag, f"{file} holds no certificate that can be read; expected PEM (-----BEGIN CERTIFICATE-----)"
        ) from error


def _check_key(files: Files, leaf: x509.Certificate, content: bytes) -> None:
    """Raises InvalidInput if the key is not one, is encrypted, is of a kind that TLS does not take, or not the leaf's."""
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise InvalidInput(
            "--tls-key",
            f"{files.key} is encrypted, and nobody is there to give its password; decrypt it: openssl pkey -in … -out …",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            "--tls-key",
            f"{files.key} holds no private key that can be read; expected PEM (-----BEGIN PRIVATE KEY-----)",
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise InvalidInput(
            "--tls-key", f"{files.key} is a {type(key).__name__}; gRPC takes RSA and elliptic-curve keys"
        )
    if key.public_key() != leaf.public_key():
        raise InvalidInput("--tls-key", f"{files.key} is the key of another certificate than {files.cert}")
