"""What administrators may do over the network: reload the models. The core of the service Admin, without any protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from urllib.parse import unquote

from runtime.errors import NotReady, PermissionDenied
from server.background import in_background
from server.core.calls import Call
from server.machine.addresses import host_of, is_loopback
from server.models.reloading import Reload, Reloader


class Administration:
    """The calls of administrators. reloader: None until the models are warm."""

    def __init__(self) -> None:
        self.reloader: Reloader | None = None

    def reloads(self) -> Mapping[str, int]:
        """How many models were "added", "replaced", "removed" and "refused" by reloads."""
        return self.reloader.counts() if self.reloader else {}

    async def reload_models(self, names: Collection[str], call: Call) -> Reload:
        """Make the models follow the folder of bundles now. names: only these; none: all. It goes on if the caller gives up.

        Raises PermissionDenied unless the caller is an administrator, or nameless on the server's own machine; NotReady
        while the server starts; BundleError if the folder cannot be read.
        """
        call.caller.check_admin()
        if not call.caller.name and not is_loopback(host_of(unquote(call.peer))):
            raise PermissionDenied(
                "models can be reloaded only from the server's own machine, or with a token that has admin = true"
            )
        if self.reloader is None:
            raise NotReady("the server is warming up; try again shortly")
        reloading = in_background("reload", self.reloader.reload, tuple(names))
        return await asyncio.shield(asyncio.wrap_future(reloading))
