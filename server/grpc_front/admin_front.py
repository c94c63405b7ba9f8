"""The gRPC front of administrators: makes server/core/administration.py callable as the service Admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from protos import ganforge_pb2 as pb
from server.core.administration import Administration
from server.core.calls import Call
from server.grpc_front.exchange import Answer, Exchange
from server.models.reloading import Change

NAME = pb.DESCRIPTOR.services_by_name["Admin"].full_name


class AdminFront:
    """Answers the calls of the service Admin. answers: which method answers which call.

    opened: runs an answer inside the limits of the core, as for all other calls.
    """

    def __init__(
        self, administration: Administration, opened: Callable[[Answer, Exchange, Call], Awaitable[None]]
    ) -> None:
        self._administration = administration
        self.answers: Mapping[str, Answer] = {"ReloadModels": partial(opened, self._reload_models)}

    async def _reload_models(self, exchange: Exchange, call: Call) -> None:
        request = await exchange.request(pb.ReloadModelsRequest)
        done = await self._administration.reload_models(request.names, call)
        answer = pb.ReloadModelsResponse(
            added=map(_change, done.added),
            replaced=map(_change, done.replaced),
            removed=map(_change, done.removed),
            refused=map(_change, done.refused),
            unchanged=map(_change, done.unchanged),
        )
        await exchange.send(answer.SerializeToString())


def _change(change: Change) -> pb.ModelChange:
    return pb.ModelChange(name=change.name, version=change.version, reason=change.reason)
