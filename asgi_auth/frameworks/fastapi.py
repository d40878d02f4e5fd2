"""FastAPI: its exceptions and its security scheme."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi.exceptions import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
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
