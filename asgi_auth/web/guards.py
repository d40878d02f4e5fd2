"""require: the guard of an endpoint, as a decorator under Starlette and as a dependency under FastAPI."""

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, overload
from urllib.parse import quote

from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.websockets import WebSocket

from asgi_auth.authentication import Authentication
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    ForbiddenError,
    InvalidTokenError,
    MalformedRequestError,
    NotFreshError,
)
from asgi_auth.protocol.bearer import challenge
from asgi_auth.protocol.paths import public_path
from asgi_auth.protocol.return_to import MAX_CHARACTERS, safe_return_to
from asgi_auth.runtime.jobs import logger
from asgi_auth.types import AuthState, Session
from asgi_auth.web.answers import problem, reason_headers, wants_json
from asgi_auth.web.bodies import AfterBody

F = TypeVar("F", bound=Callable[..., Any])

POLICY_VIOLATION = 1008
"""The WebSocket close code for somebody who may not (RFC 6455 section 7.4.1)."""

_WITHOUT_DEPENDS = (
    "require() guards nothing without Depends: write Annotated[User, Depends(require())] for a parameter, or "
    "dependencies=[Depends(require())]"
)


def require(*scopes: str, redirect: str | None = None, fresh: timedelta | None = None) -> "Require":
    """Let in only who is signed in, has every scope, and if asked has proven it lately.

    The same arguments give the same object, so that FastAPI's ``dependency_overrides`` finds it.

    >>> require("admin") is require("admin")
    True

    Args:
        scopes: What must be in ``request.auth.scopes``; ``authenticated`` goes without saying.
        redirect: A local path, such as a sign-in page, to send browsers to instead of 401 and of "not fresh";
            ``return_to`` is added to its query. Both as the browser sees them, with the prefix of a proxy.
        fresh: A factor must have been proven in this session no longer ago. A remembered session is never fresh.

    Raises:
        ConfigurationError: *redirect* leads away, or *fresh* is no timedelta.
        TypeError: a scope is not text: the parentheses of ``@require()`` were forgotten.
    """
    if not all(isinstance(scope, str) for scope in scopes):
        raise TypeError("scopes are text; without any it is @require(), with parentheses")
    if redirect is not None and safe_return_to(redirect) is None:
        raise ConfigurationError("require: redirect must be a local path, such as '/sign_in'")
    if fresh is not None and not isinstance(fresh, timedelta):
        raise ConfigurationError("require: fresh must be a timedelta")
    return _required(scopes, redirect, fresh)


@functools.cache
def _required(scopes: tuple[str, ...], redirect: str | None, fresh: timedelta | None) -> "Require":
    return Require(scopes, redirect, fresh)


class Require:
    """What :func:`require` returns. ``@require(…)`` guards an endpoint; ``Depends(require(…))`` returns the user."""

    def __init__(self, scopes: tuple[str, ...], redirect: str | None, fresh: timedelta | None) -> None:
        self._scopes, self._redirect, self._fresh = scopes, redirect, fresh

    @overload
    def __call__(self, connection: HTTPConnection) -> Coroutine[Any, Any, Any]: ...
    @overload
    def __call__(self, connection: F) -> F: ...
    def __call__(self, connection: Any) -> Any:
        """Guard an endpoint, or, as a dependency, one request.

        As a dependency the check is made before anything is awaited, so that it cannot be forgotten.
        """
        if not isinstance(connection, HTTPConnection):
            return self._guard(connection)
        return self._admitted(self._check_dependency(connection))

    @staticmethod
    async def _admitted(user: Any) -> Any:
        return user

    def _check_dependency(self, connection: HTTPConnection) -> Any:
        reason = self.check(connection)
        if reason is None:
            return connection.scope["asgi_auth"].user
        if connection.scope["type"] == "websocket":
            raise WebSocketException(POLICY_VIOLATION)
        if self._redirects(reason):
            raise HTTPException(303, headers={"Location": self._sign_in_url(connection)})
        headers = reason_headers(reason, connection.scope, realm=_realm(connection))
        raise HTTPException(reason.status, detail=reason.title, headers=headers)

    # --- deciding

    def check(self, connection: HTTPConnection) -> AuthError | None:
        """Why this request may not pass; None if it may. Reads the scope only."""
        state = connection.scope.get("asgi_auth")
        if not isinstance(state, AuthState) or state.session is None:
            return _why_anonymous(state)
        missing = self._scopes and set(self._scopes) - set(connection.auth.scopes)
        if missing:
            needed = challenge(realm=_realm(connection), error="insufficient_scope", scope=" ".join(self._scopes))
            return ForbiddenError(f"missing scopes: {sorted(missing)}", headers={"WWW-Authenticate": needed})
        if self._fresh is not None and not _is_fresh(connection, state.session, self._fresh):
            return NotFreshError("the last proof is too old")
        return None

    def _redirects(self, reason: AuthError) -> bool:
        known_but_not_allowed = isinstance(reason, ForbiddenError) and not isinstance(reason, NotFreshError)
        return self._redirect is not None and not known_but_not_allowed

    def _sign_in_url(self, connection: HTTPConnection) -> str:
        """The sign-in page with a way back, if the request is one that can be repeated."""
        page, scope = str(self._redirect), connection.scope
        path = public_path(scope["path"], scope.get("root_path", ""), scope.get("app_root_path"))
        query = scope.get("query_string", b"")
        if scope["method"] not in ("GET", "HEAD") or len(path) + len(query) > MAX_CHARACTERS:
            return page
        here = safe_return_to(quote(path, errors="replace") + (f"?{query.decode('latin-1')}" if query else ""))
        if here is None:
            return page
        return f"{page}{'&' if '?' in page else '?'}return_to={quote(here, safe='')}"

    def _refuse(self, request: Request, reason: AuthError) -> Response:
        if self._redirects(reason):
            return AfterBody(RedirectResponse(self._sign_in_url(request), 303), request)
        response = problem(reason, json=wants_json(request.scope))
        response.headers.update(reason_headers(reason, request.scope, realm=_realm(request)))
        return AfterBody(response, request)

    # --- as a decorator

    def _guard(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(endpoint).parameters)
        name = next((name for name in ("request", "websocket") if name in names), None)
        if name is None:
            raise TypeError(f"{endpoint!r} takes neither 'request' nor 'websocket'")
        index = names.index(name)
        if name == "websocket":
            return self._guard_websocket(endpoint, index)
        if inspect.iscoroutinefunction(endpoint):
            return self._guard_async(endpoint, index)
        return self._guard_sync(endpoint, index)

    def _guard_websocket(self, endpoint: Callable[..., Any], index: int) -> Callable[..., Any]:
        @functools.wraps(endpoint)
        async def guarded(*args: Any, **kwargs: Any) -> None:
            websocket: WebSocket = kwargs["websocket"] if "websocket" in kwargs else args[index]
            if self.check(websocket) is None:
                await endpoint(*args, **kwargs)
            else:
                await websocket.close(POLICY_VIOLATION)  # before accept, which a client sees as 403

        return guarded

    def _guard_async(self, endpoint: Callable[..., Any], index: int) -> Callable[..., Any]:
        @functools.wraps(endpoint)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            request: Request = kwargs["request"] if "request" in kwargs else args[index]
            reason = self.check(request)
            return await endpoint(*args, **kwargs) if reason is None else self._refuse(request, reason)

        return guarded

    def _guard_sync(self, endpoint: Callable[..., Any], index: int) -> Callable[..., Any]:
        @functools.wraps(endpoint)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            request: Request = kwargs["request"] if "request" in kwargs else args[index]
            reason = self.check(request)
            return endpoint(*args, **kwargs) if reason is None else self._refuse(request, reason)

        return guarded

    # --- as a dependency of FastAPI

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:
        """The type; where FastAPI is loaded, its marker of a dependency, so that it reads ``dependency`` of a guard.

        FastAPI asks a default value and the parts of ``Annotated`` only whether they are such markers. A guard that is
        none would be a mere default, in whose place any client may send a value.
        """
        params = sys.modules.get("fastapi.params")
        return type(self) if params is None else params.Depends

    @property
    def dependency(self) -> NoReturn:
        """Raises: TypeError: FastAPI was given the guard itself, not ``Depends(require(…))``."""
        raise TypeError(_WITHOUT_DEPENDS)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> NoReturn:
        """Raises: TypeError: the same, in an ``Annotated`` where FastAPI looks at another marker."""
        raise TypeError(_WITHOUT_DEPENDS)

    @property
    def __wrapped__(self) -> Any:
        """FastAPI looks through this to find out that the dependency is async and which security scheme it documents.

        AttributeError where there is no FastAPI, as if it did not exist.
        """
        if "fastapi" not in sys.modules:
            raise AttributeError("__wrapped__")
        return _security_scheme()


@functools.cache
def _security_scheme() -> Any:
    from fastapi.openapi.models import HTTPBearer
    from fastapi.security.base import SecurityBase

    class BearerScheme(SecurityBase):
        """What OpenAPI shows; never called."""

        def __init__(self) -> None:
            self.model = HTTPBearer(bearerFormat="JWT", description="The token of a sign-in")
            self.scheme_name = "asgi_auth"

        async def __call__(self, connection: HTTPConnection) -> Any:
            """Only its signature is read."""

    return BearerScheme()


def _authentication(connection: HTTPConnection) -> Authentication[Any] | None:
    state = connection.scope.get("asgi_auth")
    found = state.authentication if isinstance(state, AuthState) else None
    return found if isinstance(found, Authentication) else None


def _is_fresh(connection: HTTPConnection, session: Session, within: timedelta) -> bool:
    auth = _authentication(connection)
    return auth is not None and auth.sessions.is_fresh(session, within)


def _realm(connection: HTTPConnection) -> str:
    auth = _authentication(connection)
    return "" if auth is None else auth.app_name  # no middleware: nobody is signed in


def _why_anonymous(state: object) -> AuthError:
    if not isinstance(state, AuthState):  # a mistake that otherwise looks like a wrong password
        logger.error("require: wrap the application in SessionUserMiddleware or BearerUserMiddleware; nobody gets in")
    error = state.error if isinstance(state, AuthState) else None
    if isinstance(error, (InvalidTokenError, MalformedRequestError)):
        return error
    return AuthenticationFailedError("nobody is signed in" if error is None else error.reason)
