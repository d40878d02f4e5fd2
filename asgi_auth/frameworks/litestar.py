"""Litestar: its exceptions."""

from collections.abc import Mapping

from litestar.exceptions import HTTPException, NotAuthorizedException, PermissionDeniedException, WebSocketException

_KINDS: Mapping[int, type[HTTPException]] = {401: NotAuthorizedException, 403: PermissionDeniedException}


def http_refusal(status: int, detail: str | None, headers: Mapping[str, str]) -> Exception:
    """What Litestar answers with this status and these headers, by the application's own handler if there is one."""
    kind = _KINDS.get(status, HTTPException)
    return kind(detail=detail or "", status_code=status, headers=dict(headers))


def websocket_refusal(code: int) -> Exception:
    """What closes a websocket with this code."""
    return WebSocketException(detail="Access denied", code=code)
