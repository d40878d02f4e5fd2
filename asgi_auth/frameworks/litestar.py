"""Litestar: its exceptions."""

from collections.abc import Mapping

from litestar.exceptions import HTTPException, NotAuthorizedException, PermissionDeniedException, WebSocketException

_KINDS: Mapping[int, type[HTTPException]] = {401: NotAuthorizedException, 403: PermissionDeniedException}


def http_refusal(status: int, detail: str | None, headers: Mapping[str, str]) -> Exception:
    """The exception that Litestar answers with this status and these headers, or with the application's own handler."""
    kind = _KINDS.get(status, HTTPException)
    return kind(detail=detail or "", status_code=status, headers=dict(headers))


def websocket_refusal(code: int) -> Exception:
    """The exception that closes a websocket with this code."""
    return WebSocketException(detail="Access denied", code=code)
