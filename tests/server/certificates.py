"""Certificates for tests: a CA, and certificates of it for servers and clients, as PEM files."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

YEAR = timedelta(days=365)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Issued:
    """The files of a certificate and its key. serial: of the certificate, in hexadecimal."""

    cert: Path
    key: Path
    serial: int


class Authority:
    """A certificate authority; `file` holds its certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(name, self._key, timedelta(), YEAR, is_ca=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        stem: str | None = None,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
        starts_in: timedelta = timedelta(),
        lasts: timedelta = YEAR,
    ) -> Issued:
        """A certificate in STEM.pem and STEM.key; stem: the name's, if not given."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(name, key, starts_in, lasts, hosts=hosts)
        cert_file, key_file = (self._folder / f"{stem or name}{suffix}" for suffix in (".pem", ".key"))
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(private_pem(key))
        return Issued(cert_file, key_file, certificate.serial_number)

    def _signed(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        starts_in: timedelta,
        lasts: timedelta,
        *,
        is_ca: bool = False,
        hosts: tuple[str, ...] = (),
    ) -> x509.Certificate:
        starts = datetime.now(UTC) - timedelta(minutes=5) + starts_in
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(starts)
            .not_valid_after(starts + lasts)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
