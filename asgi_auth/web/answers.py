"""Answers in JSON, text or a page, and the headers of every answer.

The texts of failures are in ``errors``. ``sessions.Sessions.admit`` decides whether a user may sign in.
"""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Scope

from asgi_auth.errors import AuthenticationFailedError, AuthError, InvalidTokenError, MalformedRequestError
from asgi_auth.pages import Page
from asgi_auth.protocol.accept import prefers_json
from asgi_auth.protocol.bearer import challenge, shows_bearer
from asgi_auth.protocol.headers import allowed_lines, header_values
from asgi_auth.types import EMPTY


def wants_json(scope: Scope) -> bool:
    """Whether to answer JSON: Accept prefers it, or the body is JSON and Accept names no text type."""
    accept, content_types = (header_values(scope["headers"], name) for name in (b"accept", b"content-type"))
    return prefers_json(accept, json_body=_says_json(content_types))


def _says_json(content_types: list[str]) -> bool:
    return any(value.partition(";")[0].strip().lower() == "application/json" for value in content_types)


def wants_page(scope: Scope) -> bool:
    """Whether to answer with a page: Accept names HTML, and does not prefer JSON."""
    return not wants_json(scope) and any("text/html" in value for value in header_values(scope["headers"], b"accept"))


def problem(
    reason: AuthError, *, json: bool, more: Mapping[str, Any] = EMPTY, say: Callable[[str], str] = str
) -> Response:
    """The answer to a failure: problem details (RFC 9457), or a line of text, the detail and a line for each field.

    Args:
        reason: The failure.
        json: Whether to answer JSON.
        more: Further members of the problem details.
        say: Returns a text in the language of the client.
    """
    if json:
        content: dict[str, Any] = {"type": "about:blank", "title": say(reason.title), "status": reason.status}
        content["code"] = reason.code
        if reason.detail:
            content["detail"] = reason.detail
        if reason.fields:
            content["fields"] = {field: say(message) for field, message in reason.fields.items()}
        content.update(more)
        return JSONResponse(content, reason.status, media_type="application/problem+json")
    title = AuthenticationFailedError.title if isinstance(reason, AuthenticationFailedError) else reason.title
    lines = [say(title), reason.detail, *(f"{field}: {say(message)}" for field, message in reason.fields.items())]
    return PlainTextResponse("\n".join(filter(None, lines)), reason.status)


def reason_headers(reason: AuthError, scope: Scope, *, realm: str) -> dict[str, str]:
    """Headers required on every error response, also a custom one; a 401 has a challenge (RFC 9110 section 11.6.1)."""
    headers, error = dict(reason.headers), _challenge_error(reason, scope)
    if reason.status == 401 or error is not None:
        headers["WWW-Authenticate"] = challenge(realm=realm, error=error)
    return headers


def _challenge_error(reason: AuthError, scope: Scope) -> str | None:
    """The error value of RFC 6750 section 3.1; None if the request has no bearer token."""
    if not shows_bearer(allowed_lines(scope["headers"])):
        return None
    if isinstance(reason, MalformedRequestError):
        return "invalid_request"
    return reason.code if isinstance(reason, InvalidTokenError) else None


def draw(page: Page) -> Response:
    """The answer that shows *page*."""
    return HTMLResponse(page.html, page.status, headers=page.headers)


def unavailable(reason: AuthError) -> Response:
    """503 with Retry-After: a credential could not be checked."""
    return PlainTextResponse(reason.title, reason.status, headers=dict(reason.headers))


_NOTHING = "default-src 'none'; frame-ancestors 'none'"


def add_security_headers(response: Response) -> None:
    """Add the headers of every answer of the plug (TK-21, RD-4). The page's own policy is kept."""
    headers = response.headers
    headers["Cache-Control"] = "no-store"
    headers["X-Content-Type-Options"] = "nosniff"
    # A page with "no-referrer" posts "Origin: null", which is rejected as another site's.
    if headers.get("Referrer-Policy") != "strict-origin":  # stricter, and the browser still sends the Origin
        headers["Referrer-Policy"] = "same-origin"
    # An application's page may need styles and scripts. The library decides who may frame it (CF-8).
    is_page = headers.get("Content-Type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", "frame-ancestors 'none'" if is_page else _NOTHING)


def clear_site_data(response: Response, *kinds: str) -> None:
    """Tell the browser to delete these kinds of data of the site. Kinds that the header already names stay."""
    given = ",".join(response.headers.getlist("Clear-Site-Data")).split(",")
    named = [name for name in (each.strip() for each in given) if name]
    response.headers["Clear-Site-Data"] = ", ".join(dict.fromkeys([*named, *kinds]))
