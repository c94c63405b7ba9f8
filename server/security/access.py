"""Access: finds out who makes a call, before any of its messages is read. server/grpc_front/front.py asks it.

With --tokens, every call but health checks needs a token, reflection included. Without, a client certificate names its
caller (--client-ca), and anybody else may call too where TLS lets them connect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc

from runtime.errors import Unauthenticated
from server.security.callers import ANYBODY, Caller
from server.security.tokens import Tokens

# One sentence for a token that is missing, malformed or wrong: it tells nobody which tokens exist.
REFUSAL = (
    "this call needs a valid token: the metadata `authorization: Bearer TOKEN`, with a token from whoever runs this "
    "server (clients of ganforge: --token-file or GANFORGE_TOKEN)"
)
COMMON_NAME = "x509_common_name"
LONGEST_NAME = 64  # characters of a certificate's name that are logged

Metadata = Iterable[tuple[str, str | bytes]]


class Access:
    """Tells who makes a call. tokens: None if calls need none."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    @property
    def needs_token(self) -> bool:
        """Whether calls need a token."""
        return self._tokens is not None

    def authenticate(
        self, metadata: Metadata | None, identity: Mapping[str, Iterable[bytes]] | None = None
    ) -> Caller:
        """Who makes a call with this metadata, over a connection with this auth context.

        Raises Unauthenticated, with the same message whatever is wrong with the token.
        """
        if self._tokens is None:
            return _certified(identity or {})
        values = [value for key, value in metadata or () if key == "authorization"]
        if len(values) == 1 and isinstance(values[0], str):
            scheme, _, token = values[0].partition(" ")
            caller = self._tokens.find(token.strip()) if scheme.lower() == "bearer" else None
            if caller is not None:
                return caller
        raise Unauthenticated(REFUSAL)


def _certified(identity: Mapping[str, Iterable[bytes]]) -> Caller:
    """The caller that its client certificate names, else ANYBODY. gRPC has checked the certificate.

    It is no administrator: every client of such a server has a certificate. A token can be one.
    """
    for name in identity.get(COMMON_NAME, ()):
        return Caller(name.decode("utf-8", "replace")[:LONGEST_NAME], admin=False)
    return ANYBODY


class Guard(grpc.aio.ServerInterceptor):
    """Refuses calls without a token, before their first message is read.

    exempt: prefixes of methods that need none, or whose handlers ask Access themselves. Everything else is refused, so
    that a service that is added later is not open by mistake.
    """

    def __init__(self, access: Access, exempt: tuple[str, ...]) -> None:
        self._access, self._exempt = access, exempt

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """gRPC calls this for each call that begins; `continuation` finds its handler."""
        if not handler_call_details.method.startswith(self._exempt):
            try:
                self._access.authenticate(handler_call_details.invocation_metadata)
            except Unauthenticated as error:
                return _refusing(str(error))
        return await continuation(handler_call_details)


def _refusing(message: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)

    return grpc.stream_stream_rpc_method_handler(refuse)  # a stream: it reads no message
