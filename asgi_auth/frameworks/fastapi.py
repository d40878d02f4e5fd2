"""FastAPI: its exceptions, its security scheme, and its routes."""

import gc
from collections.abc import Mapping
from functools import cache
from types import FunctionType
from typing import Any

from fastapi.exceptions import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute, APIWebSocketRoute
from fastapi.security.base import SecurityBase


def http_refusal(status: int, detail: str | None, headers: Mapping[str, str]) -> Exception:
    """What FastAPI answers with this status and these headers, by the application's own handler if there is one."""
    return HTTPException(status, detail, headers)


def websocket_refusal(code: int) -> Exception:
    """What closes a websocket with this code."""
    return WebSocketException(code)


@cache
def security_scheme() -> Any:
    """What OpenAPI shows of a guard. It is never called."""
    return _BearerScheme()


class _BearerScheme(SecurityBase):
    def __init__(self) -> None:
        self.model = HTTPBearer(bearerFormat="JWT", description="The token of a sign-in")
        self.scheme_name = "asgi_auth"

    async def __call__(self, connection: HTTPConnection) -> Any:
        """Only its signature is read."""


def is_routed(endpoint: FunctionType) -> bool:
    """Whether a route of FastAPI has this very function already, so that a guard around it comes too late.

    A function that is bound to its name in its module may be routed once with a guard and once without. A decorator
    meets a function before it is bound. All objects of the process are searched, which takes milliseconds.
    """
    if endpoint.__globals__.get(endpoint.__name__) is endpoint:
        return False
    return any(_is_route(referrer, endpoint) for referrer in gc.get_referrers(endpoint))


def _is_route(referrer: object, endpoint: object) -> bool:
    if isinstance(referrer, dict):  # the attributes of a route
        return referrer.get("endpoint") is endpoint and "dependant" in referrer
    return isinstance(referrer, (APIRoute, APIWebSocketRoute))
