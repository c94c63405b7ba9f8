"""grpc.health.v1: answers Check, List and Watch from server/health.py.

"" and the name of the service stand for the whole server. A part is called SERVICE/PART, for example
"ganforge.v1.ImageGenerator/disk" or "ganforge.v1.ImageGenerator/model/esrgan-x4". Check always works, also beyond the limit
on open calls; watches are counted apart from calls, and limited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from grpc_health.v1 import health_pb2

from runtime.errors import ModelNotFound, NotReady, Overloaded
from server.core.calls import Call
from server.grpc_front.exchange import Answer, Exchange
from server.health import Health
from server.limits import Limits

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
RETRY_AFTER_S = 30.0
Response = health_pb2.HealthCheckResponse


class HealthFront:
    """The health service of one server. service: the full name of the service that it is about."""

    def __init__(self, health: Health, service: str, limits: Limits) -> None:
        self._health, self._service, self._limits = health, service, limits
        self._watches: Counter[str] = Counter()
        self.answers: Mapping[str, Answer] = {
            "Check": self._check,
            "List": self._list,
            "Watch": self._watch,
        }

    async def _check(self, exchange: Exchange, call: Call) -> None:
        request = await exchange.request(health_pb2.HealthCheckRequest)
        status = self._status(request.service)
        if status == Response.SERVICE_UNKNOWN:
            raise ModelNotFound("service: nothing of that name reports its health here")
        await exchange.send(Response(status=status).SerializeToString())

    async def _list(self, exchange: Exchange, call: Call) -> None:
        await exchange.request(health_pb2.HealthListRequest)
        names = ["", self._service, *(f"{self._service}/{part}" for part in self._health.parts())]
        statuses = {name: Response(status=self._status(name)) for name in names}
        await exchange.send(health_pb2.HealthListResponse(statuses=statuses).SerializeToString())

    async def _watch(self, exchange: Exchange, call: Call) -> None:
        request = await exchange.request(health_pb2.HealthCheckRequest)
        client, most = call.origin, self._limits.max_watches
        if self._watches.total() >= most or self._watches[client] >= max(1, most // 2):
            raise Overloaded(
                f"{self._watches.total()} health watches are open, {self._watches[client]} of them from here; at most "
                f"{most} may be (--max-watches), half of them from one client; use Check",
                retry_after_s=RETRY_AFTER_S,
                reason="watches",
            )
        self._watches[client] += 1
        try:
            with self._health.changes() as changed:
                last: health_pb2.HealthCheckResponse.ServingStatus | None = None
                while True:
                    status = self._status(request.service)
                    if status != last:
                        await exchange.send(Response(status=status).SerializeToString())
                        last = status
                    if self._health.drained:
                        raise NotReady("the server is stopping")
                    await changed.wait()
                    changed.clear()
        finally:
            self._watches[client] -= 1
            self._watches += Counter()  # forget clients without watches

    def _status(self, name: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        """The status of the whole server or a part, by its name in grpc.health.v1."""
        part = "" if name in ("", self._service) else name.removeprefix(f"{self._service}/")
        healthy = None if name and part == name else self._health.healthy(part)
        if healthy is None:
            return Response.SERVICE_UNKNOWN
        return Response.SERVING if healthy else Response.NOT_SERVING
