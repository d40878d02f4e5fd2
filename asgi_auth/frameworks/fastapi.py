"""FastAPI: its exceptions and its security scheme."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi.exceptions import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase


def http_refusal(status: int, detail: str | None, headers: Mapping[str, str]) -> Exception:
    """The exception that FastAPI answers with this status and these headers, or with the application's own handler."""
    return HTTPException(status, detail, headers)


def websocket_refusal(code: int) -> Exception:
    """The exception that closes a websocket with this code."""
    return WebSocketException(code)


@cache
def security_scheme() -> Any:
    """The security scheme of a guard in OpenAPI. It is never called."""
    return _BearerScheme()


class _BearerScheme(SecurityBase):
    def __init__(self) -> None:
        self.model = HTTPBearer(bearerFormat="JWT", description="The token of a sign-in")
        self.scheme_name = "asgi_auth"

    async def __call__(self, connection: HTTPConnection) -> Any:
        """FastAPI only reads the signature."""
