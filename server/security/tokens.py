"""The file of tokens (--tokens): who may call, what each may use and how much.

A TOML file with one table for each token, named for whoever uses it. `ganforge token NAME` prints a new token, once, and
its table:

    [alice]
    sha256 = "…"                       # of the token; the token itself is nowhere on the server
    models = ["esrgan-x4"]             # the models it may use; left out: all
    max_active_pixels = 50_000_000     # of its open calls together; left out: no limit
    pixels_per_second = 2_000_000      # on average; left out: no limit
    burst_pixels = 20_000_000          # at once, after a pause; left out: what comes together in ten seconds
    admin = true                       # may call the service Admin; left out: false

A token is 256 random bits, so that nobody can try all, and one SHA-256 of it is enough: scrypt and its like slow down the
guessing of passwords that people choose.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import InvalidInput
from server.security.callers import Caller, Quota
from server.security.reloaded import Reloaded

TOKEN_BYTES = 32
# What names a token: it is logged, and a label of metrics.
NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}")
KEYS = ("sha256", "models", "max_active_pixels", "pixels_per_second", "burst_pixels", "admin")
# The file is looked at no more often.
LOOK_EVERY_S = 1.0
LONGEST_TOKEN = 1024  # characters; longer ones are refused unhashed


class Tokens:
    """The callers of a file of tokens, read again when it changes. Raises InvalidInput if the file is wrong at first."""

    def __init__(self, file: Path, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._callers = Reloaded("tokens", [file], lambda: read(file), check_every_s=look_every_s)

    def find(self, token: str) -> Caller | None:
        """Whose token it is; None if nobody's.

        It is looked up by its hash, so how long a wrong one takes says at most something about hashes, from which no token
        follows: a comparison in constant time would add nothing.
        """
        if len(token) > LONGEST_TOKEN:
            return None
        return self._callers.current().get(hash_of(token))


def new_token() -> str:
    """A random token: 43 letters, digits and characters of _-."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """The SHA-256 digest of a token, in hexadecimal."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def table(name: str, token: str) -> str:
    """The lines of a file of tokens for this one. Raises InvalidInput if `name` cannot be one."""
    check_name(name)
    quoted = f'"{name}"' if "." in name else name
    return f'[{quoted}]\nsha256 = "{hash_of(token)}"\n'


def check_name(name: str) -> None:
    """Raises InvalidInput if a token cannot be called so."""
    if not NAME.fullmatch(name):
        raise InvalidInput("name", f"got {name!r:.80}, expected 1 to 64 letters, digits or characters of _.-")


def read(file: Path) -> Mapping[str, Caller]:
    """The callers of a file by the digest of their tokens. Raises InvalidInput naming the table and key that is wrong."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        callers: dict[str, Caller] = {}
        for name, values in tables.items():
            digest, caller = _caller(name, values)
            if digest in callers:
                raise InvalidInput("sha256", f"{callers[digest].name} and {name} have the same token")
            callers[digest] = caller
    except OSError as error:
        raise InvalidInput("--tokens", f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise InvalidInput("--tokens", f"{file} is not TOML: {error}") from error
    except InvalidInput as error:
        raise InvalidInput("--tokens", f"{file}: {error}") from error
    if not callers:
        raise InvalidInput("--tokens", f"{file} holds no token; `ganforge token NAME` makes one")
    return callers


def _caller(name: str, values: Any) -> tuple[str, Caller]:
    check_name(name)
    if not isinstance(values, dict):
        raise InvalidInput(
            name, f"is outside any table; expected a table [NAME] for each token, with {KEYS[0]}"
        )
    if unknown := sorted(values.keys() - set(KEYS)):
        raise InvalidInput(f"{name}.{unknown[0]}", f"is no setting; there are {', '.join(KEYS)}")
    digest = values.get("sha256")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        # What came may be the token itself: it is not repeated.
        raise InvalidInput(
            f"{name}.sha256", "expected the 64 digits that `ganforge token` printed, in lower case"
        )
    models = values.get("models")
    if models is not None and not (isinstance(models, list) and models and all(map(_is_name, models))):
        raise InvalidInput(f"{name}.models", f"got {models!r:.80}, expected a list of names of models")
    admin = values.get("admin", False)
    if not isinstance(admin, bool):
        raise InvalidInput(f"{name}.admin", f"got {admin!r:.80}, expected true or false")
    rate = _positive(name, values, "pixels_per_second", (int, float))
    burst = _positive(name, values, "burst_pixels", (int,))
    if burst is not None and rate is None:
        raise InvalidInput(f"{name}.burst_pixels", "is given without pixels_per_second, which it belongs to")
    active = _positive(name, values, "max_active_pixels", (int,))
    quota = Quota(active, rate, burst)
    return digest, Caller(name, frozenset(models) if models else None, quota, admin)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _positive(name: str, values: Mapping[str, Any], key: str, kinds: Iterable[type]) -> Any:
    value = values.get(key)
    if value is not None and not (type(value) in kinds and 0 < value < float("inf")):
        kind = "whole number" if float not in kinds else "number"
        raise InvalidInput(f"{name}.{key}", f"got {value!r:.80}, expected a {kind} above 0")
    return value
