"""Caller: who makes a call and what it may do. server/security/access.py finds it out, every Call carries one."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import PermissionDenied

BURST_S = 10.0


@dataclass(frozen=True)
class Quota:
    """Limits of one caller, in the pixels that admission counts: those that the device computes, halos included.

    max_active_pixels: of its calls that are open, together. pixels_per_second: on average. None: no limit.
    burst_pixels: of a rate, at once, after a pause; None: what comes together in BURST_S seconds.
    """

    max_active_pixels: int | None = None
    pixels_per_second: float | None = None
    burst_pixels: int | None = None

    @property
    def burst_px(self) -> float:
        """The most pixels at once that the rate allows."""
        if self.burst_pixels is not None:
            return self.burst_pixels
        return BURST_S * self.pixels_per_second if self.pixels_per_second else 0.0


@dataclass(frozen=True)
class Caller:
    """Who makes a call.

    name: of its token or client certificate; empty if it has none. It is logged and counted, so it is no secret.
    models: the only ones that it may use; None: all. quota: its limits. admin: whether it may call the service Admin.
    """

    name: str = ""
    models: frozenset[str] | None = None
    quota: Quota = Quota()
    admin: bool = True

    def may_use(self, model: str) -> bool:
        """Whether it may use this model and see it in ListModels."""
        return self.models is None or model in self.models

    def check_model(self, model: str) -> None:
        """Raises PermissionDenied, naming the models that it may use, if this is none of them."""
        if not self.may_use(model):
            raise PermissionDenied(
                f"model: {self.name} may not use {model!r}; it may use {', '.join(sorted(self.models or ()))}"
            )

    def check_admin(self) -> None:
        """Raises PermissionDenied unless it may call the service Admin."""
        if not self.admin:
            raise PermissionDenied(
                f"{self.name} may not administer this server; its token needs admin = true"
            )


# Who calls a server without tokens and client certificates.
ANYBODY = Caller()
