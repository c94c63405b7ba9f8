"""The flags of the group "Security" of `python -m server`, and what they become. server/options.py lists the group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from runtime.errors import InvalidInput
from runtime.signing import Trust
from server.logs import log
from server.machine.addresses import is_loopback
from server.option_groups import Group, option
from server.security.access import Access
from server.security.certificates import Certificates, Files
from server.security.exposure import check_exposure
from server.security.tokens import Tokens


@dataclass(frozen=True)
class Security:
    """How connections are protected, and who may call.

    tls_cert, tls_key, client_ca: files in PEM. insecure: serve others without TLS. tokens: file of tokens; None: none are
    needed. reflection: whether gRPC's reflection is offered. trust: public keys by one of which bundles must be signed;
    none: signatures are not looked at.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    insecure: bool = False
    tokens: Path | None = None
    reflection: bool = True
    trust: tuple[Path, ...] = ()

    def summary(self) -> dict[str, str]:
        """Who may call and what is served, for the log."""
        callers = "with a token" if self.tokens else "with a certificate" if self.client_ca else "anybody"
        return {"callers": callers, "bundles": "signed" if self.trust else "signed or not"}

    def trusted(self) -> Trust | None:
        """The keys by one of which bundles must be signed; None if they need not be. Raises InvalidInput."""
        return Trust(self.trust) if self.trust else None

    def access(self) -> Access:
        """Who may call. Raises InvalidInput if the file of tokens is wrong."""
        return Access(Tokens(self.tokens) if self.tokens else None)

    def certificates(self, host: str) -> Certificates | None:
        """The certificates to listen with on `host`; None to listen without TLS.

        Raises InvalidInput if a file is missing or wrong, or if the server would be open to others without TLS.
        """
        if self.tls_cert is None or self.tls_key is None:
            given = {"--tls-cert": self.tls_cert, "--tls-key": self.tls_key, "--client-ca": self.client_ca}
            if any(given.values()):
                missing = " and ".join(flag for flag in ("--tls-cert", "--tls-key") if not given[flag])
                present = next(flag for flag, file in given.items() if file)
                raise InvalidInput(
                    present, f"is given without {missing}; TLS needs a certificate and its key"
                )
            check_exposure(host, tls=False, insecure=self.insecure)
            if not is_loopback(host):
                log.warning("what clients send crosses the network unencrypted (--insecure)", host=host)
            return None
        return Certificates(Files(self.tls_cert, self.tls_key, self.client_ca))


_FILE = click.Path(path_type=Path)
SECURITY = Group(
    "Security",
    "security",
    Security,
    [
        option("--tls-cert", _FILE, "Certificate (chain) of the server, PEM. Read again when it changes."),
        option("--tls-key", _FILE, "Its private key, PEM, not encrypted."),
        option(
            "--client-ca", _FILE, "CA of clients, PEM: only clients with a certificate of it may connect."
        ),
        option("--insecure", bool, "Serve other machines without TLS.", is_flag=True, default=False),
        option(
            "--tokens", _FILE, "TOML file of tokens (docs/security.md); then every call but health needs one."
        ),
        option(
            "--trust",
            _FILE,
            "Public key (ganforge keygen): serve only bundles that it has signed. Repeat for more keys.",
            multiple=True,
        ),
        click.Option(
            ["--reflection/--no-reflection"],
            default=True,
            help="Let clients list the services by gRPC's reflection; with --tokens it needs a token.",
        ),
    ],
)
