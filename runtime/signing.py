"""Signatures of bundles: ed25519 over the bytes of manifest.json, in manifest.json.sig beside it.

The manifest has the hash of every other file, so its signature covers the whole bundle. `ganforge keygen` makes a pair of
keys, `ganforge sign` signs a bundle, and runtime/bundle.py checks the signature where a Trust is given (`python -m server
--trust KEY.pub`). Keys are PEM files as OpenSSL writes them, and the signature is of the manifest's bytes alone, so that
other tools can sign and check too (docs/security.md).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from runtime.errors import BundleError, InvalidInput
from runtime.files import write_text

SIGNATURE = "manifest.json.sig"
PUBLIC_SUFFIX = ".pub"
# A signature's file has some 200 bytes.
LONGEST_BYTES = 4096
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True)
class TrustedKey:
    """A public key. name: what messages call it, its file and its fingerprint."""

    key: Ed25519PublicKey
    name: str


class Trust:
    """The keys by one of which a bundle must be signed. Raises InvalidInput if a file holds no such key."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._keys = tuple(read_public(file) for file in files)

    def check(self, manifest: bytes, signature_file: Path) -> None:
        """Raises BundleError, saying which keys are expected, unless one of them has signed these bytes."""
        expected = " or ".join(key.name for key in self._keys)
        signer, signature = _read_signature(signature_file, expected)
        for trusted in self._keys:
            try:
                trusted.key.verify(signature, manifest)
                return
            except InvalidSignature:
                continue
        if signer in {fingerprint(trusted.key) for trusted in self._keys}:
            raise BundleError(
                f"its manifest is not the one that {signer} signed; expected a signature by {expected}"
            )
        raise BundleError(f"it is signed by the key {signer}; expected a signature by {expected} (--trust)")


def keygen(file: Path) -> Path:
    """Make a private key in `file`, which only its owner may read, and its public key in FILE.pub, which is returned.

    Raises InvalidInput if one of the files exists.
    """
    public_file = file.with_name(file.name + PUBLIC_SUFFIX)
    for path in (file, public_file):
        if os.path.lexists(path):
            raise InvalidInput(
                "KEY", f"{path} exists, and a key that is overwritten is lost; name another file"
            )
    private = Ed25519PrivateKey.generate()
    # Made with its permissions, so that nobody can open it before they are set.
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_text(public_file, public.decode())
    return public_file


def sign(folder: Path, manifest: bytes, key: Ed25519PrivateKey) -> Path:
    """Write the signature of the bundle at `folder`, whose manifest has these bytes. Returns the signature's file."""
    signature = base64.b64encode(key.sign(manifest)).decode()
    content = {"key": fingerprint(key.public_key()), "signature": signature}
    write_text(folder / SIGNATURE, json.dumps(content, indent=2) + "\n")
    return folder / SIGNATURE


def read_private(file: Path) -> Ed25519PrivateKey:
    """The private key in a file. Raises InvalidInput."""
    try:
        key = load_pem_private_key(_content("--key", file), password=None)
    except TypeError as error:
        raise InvalidInput("--key", f"{file} is encrypted; decrypt it: openssl pkey -in … -out …") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            "--key", f"{file} holds no private key in PEM; `ganforge keygen` makes one"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput("--key", f"{file} is a {type(key).__name__}; expected ed25519: `ganforge keygen`")
    return key


def read_public(file: Path) -> TrustedKey:
    """The public key in a file. Raises InvalidInput."""
    try:
        key = load_pem_public_key(_content("--trust", file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            "--trust", f"{file} holds no public key in PEM; expected the .pub file of `ganforge keygen`"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput("--trust", f"{file} is a {type(key).__name__}; expected an ed25519 key")
    return TrustedKey(key, f"{file.name} ({fingerprint(key)})")


def fingerprint(key: Ed25519PublicKey) -> str:
    """Names a public key: the SHA-256 of its 32 bytes, in the form in which SSH shows it."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def _content(flag: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(flag, f"{file} cannot be read: {error.strerror}") from error


def _read_signature(file: Path, expected: str) -> tuple[str, bytes]:
    """Who says to have signed, and the signature. The name is for messages only: it proves nothing."""
    try:
        with file.open("rb") as opened:
            content = json.loads(opened.read(LONGEST_BYTES))
        signer, signature = content["key"], base64.b64decode(content["signature"], validate=True)
    except FileNotFoundError as error:
        raise BundleError(
            f"it is not signed; expected a signature by {expected} (--trust): sign it with ganforge sign"
        ) from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{SIGNATURE} is no signature; expected one by {expected} (--trust): sign it with ganforge sign"
        ) from error
    is_name = isinstance(signer, str) and FINGERPRINT.fullmatch(signer)
    return (signer if is_name else "of no name"), signature
