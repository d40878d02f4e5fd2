"""require: the guard of an endpoint: a decorator under Starlette, a dependency of FastAPI, a guard of Litestar."""

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from datetime import timedelta
from typing import Annotated, Any, NoReturn, TypeVar, overload
from urllib.parse import quote
from weakref import WeakSet

from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope
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
    RateLimitedError,
)
from asgi_auth.protocol.bearer import challenge, shows_bearer
from asgi_auth.protocol.headers import allowed_lines
from asgi_auth.protocol.paths import public_path
from asgi_auth.protocol.return_to import MAX_CHARACTERS, safe_return_to
from asgi_auth.recognition import AUTHENTICATED
from asgi_auth.runtime.jobs import logger
from asgi_auth.types import AuthState, Session
from asgi_auth.web.answers import problem, reason_headers, wants_json
from asgi_auth.web.bodies import AfterBody
from asgi_auth.web.mounting import parts

F = TypeVar("F", bound=Callable[..., Any])

POLICY_VIOLATION = 1008
"""The WebSocket close code for a client without permission (RFC 6455 section 7.4.1)."""

_WITHOUT_DEPENDS = (
    "require() guards nothing without Depends: write Annotated[User, Depends(require())] for a parameter, or "
    "dependencies=[Depends(require())]"
)
_NO_REQUEST = (
    "require: {} takes neither 'request' nor 'websocket': write def {}; under FastAPI write "
    "dependencies=[Depends(require())], under Litestar guards=[require()]"
)
_CONNECTIONS = {"Request": "request", "HTTPConnection": "request", "WebSocket": "websocket"}
"""The parameter that an endpoint should have, by the annotation of a parameter with another name."""
_NO_ENDPOINT = (
    "{!r} is neither an HTTPEndpoint nor a WebSocketEndpoint of Starlette; under Litestar write guards=[require()]"
)


class _Unwrapped:
    """An object that FastAPI must receive inside ``Depends``. Without it FastAPI raises an error with a message.

    FastAPI only checks whether a default value, or a part of ``Annotated``, is one of its markers. It treats any other
    object as a plain default, and any client can send a value in its place.
    """

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:
        """The type. If FastAPI is loaded, its marker of a dependency; FastAPI then reads ``dependency``.

        Raises:
            TypeError: FastAPI analyzes a parameter. It would take the last of several markers and drop this one.
        """
        if "fastapi.params" not in sys.modules:
            return type(self)
        asking = sys._getframe(1)  # of analyze_param, or of a comprehension in it
        name = asking.f_code.co_qualname
        if name.startswith("analyze_param") and asking.f_globals.get("__name__") == "fastapi.dependencies.utils":
            raise TypeError(_WITHOUT_DEPENDS)
        return sys.modules["fastapi.params"].Depends

    @property
    def dependency(self) -> NoReturn:
        """Raises: TypeError: FastAPI received this object itself, not ``Depends(require(…))``."""
        raise TypeError(_WITHOUT_DEPENDS)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> NoReturn:
        """Raises: TypeError: FastAPI received this object as a type, or inside a type."""
        raise TypeError(_WITHOUT_DEPENDS)


class Guards(_Unwrapped):
    """``require(*scopes, redirect=None, fresh=None, factor=None)`` lets a user in who meets every condition.

    The user must be signed in and have every scope. The same arguments give the same object, so that FastAPI's
    ``dependency_overrides`` finds it.

    >>> require("admin") is require("admin")
    True

    Args:
        scopes: What must be in ``request.auth.scopes``. None: ``authenticated``, which a credential with scopes of its
            own does not have.
        redirect: A local path, such as a sign-in page. Browsers are sent there instead of 401 and of "not fresh";
            ``return_to`` is added to its query. Both are as the browser sees them, with the prefix of a proxy. A client
            that prefers JSON or shows a bearer token is never redirected.
        fresh: A factor must have been proven in this session no longer ago. A remembered session is never fresh.
        factor: This factor must have been proven in this session, by name of the strategy; with *fresh*, no longer ago
            than that. Otherwise the answer is that of "not fresh".

    Raises:
        ConfigurationError: *redirect* is not a local path, *fresh* is not a timedelta, or *factor* is not a name.
        TypeError: a scope is not text: the parentheses of ``@require()`` were forgotten.
    """

    __name__ = "require"

    def __call__(
        self,
        *scopes: str,
        # The marker makes FastAPI refuse Depends(require), without parentheses, when the route is declared.
        redirect: Annotated[str | None, _Unwrapped()] = None,
        fresh: timedelta | None = None,
        factor: str | None = None,
    ) -> "Require":
        """The guard of these conditions, as the class says."""
        if not all(isinstance(scope, str) for scope in scopes):
            raise TypeError("require: scopes must be text; without scopes write @require(), with parentheses")
        if redirect is not None and safe_return_to(redirect) is None:
            raise ConfigurationError("require: redirect must be a local path, such as '/sign_in'")
        if fresh is not None and not isinstance(fresh, timedelta):
            raise ConfigurationError("require: fresh must be a timedelta")
        if factor == "" or (factor is not None and not isinstance(factor, str)):
            raise ConfigurationError("require: factor must be the name of a strategy, such as 'password'")
        return _required(scopes, redirect, fresh, factor)


require = Guards()


@functools.cache
def _required(scopes: tuple[str, ...], redirect: str | None, fresh: timedelta | None, factor: str | None) -> "Require":
    return Require(scopes, redirect, fresh, factor)


class Require(_Unwrapped):
    """The guard that ``require(…)`` returns.

    ``@require(…)`` guards an endpoint of Starlette: a function, a class, or a method of one; or a handler of Litestar.
    ``Depends(require(…))`` is a dependency of FastAPI, which returns the user. ``guards=[require(…)]`` is a guard of
    Litestar.
    """

    def __init__(
        self, scopes: tuple[str, ...], redirect: str | None, fresh: timedelta | None, factor: str | None
    ) -> None:
        # A credential with scopes of its own, such as an API key, does not have the scope "authenticated". It opens
        # only endpoints that require one of its scopes.
        self._scopes = scopes or (AUTHENTICATED,)
        self._redirect, self._fresh, self._factor = redirect, fresh, factor
        # Litestar reads this to find out whether a guard is async. It would run a sync guard in a thread.
        self.__call__ = self._admitted  # type: ignore[method-assign, assignment]

    @overload
    def __call__(self, connection: HTTPConnection) -> Coroutine[Any, Any, Any]: ...
    @overload
    def __call__(self, connection: F) -> F: ...
    @overload
    def __call__(self, connection: Any, route_handler: Any) -> Coroutine[Any, Any, Any]: ...
    def __call__(self, connection: Any, route_handler: Any = None) -> Any:
        """Guard an endpoint; or, as a dependency or guard, one request.

        As a dependency or guard, the call itself makes the check. A forgotten ``await`` cannot skip it.

        Raises:
            TypeError: the endpoint cannot be guarded. It takes no ``request`` or ``websocket`` (the message has the
                right signature), or it is a class of another kind.
            HTTPException, WebSocketException: the request is refused. The class is that of Starlette, of FastAPI if it
                is loaded, or of Litestar.
        """
        if isinstance(connection, HTTPConnection):
            return self._admitted(self._check_dependency(connection))
        if route_handler is not None:
            return self._admitted(self._check_litestar(connection))
        return self._guard(connection)

    @staticmethod
    async def _admitted(user: Any) -> Any:
        return user

    def _check_dependency(self, connection: HTTPConnection) -> Any:
        reason = self.check(connection)
        if reason is None:
            return connection.scope["asgi_auth"].user
        if "fastapi" in sys.modules:
            from asgi_auth.frameworks import fastapi

            raise self._refusal(connection, reason, fastapi.http_refusal, fastapi.websocket_refusal)
        raise self._refusal(connection, reason, HTTPException, WebSocketException)

    def _check_litestar(self, connection: Any) -> Any:
        reason = self.check(connection)
        if reason is not None:
            raise self._litestar_refusal(connection, reason)

    def _litestar_refusal(self, connection: Any, reason: AuthError) -> Exception:
        from asgi_auth.frameworks import litestar

        return self._refusal(connection, reason, litestar.http_refusal, litestar.websocket_refusal)

    def _refusal(
        self,
        connection: HTTPConnection,
        reason: AuthError,
        http: Callable[[int, str | None, dict[str, str]], Exception],
        websocket: Callable[[int], Exception],
    ) -> Exception:
        if connection.scope["type"] == "websocket":
            return websocket(POLICY_VIOLATION)
        if self._redirects(reason, connection.scope):
            return http(303, None, {"Location": self._sign_in_url(connection)})
        return http(reason.status, reason.title, reason_headers(reason, connection.scope, realm=_realm(connection)))

    # --- deciding

    def check(self, connection: HTTPConnection) -> AuthError | None:
        """Return the reason to refuse this request; None if it may pass. Reads the scope only."""
        state = connection.scope.get("asgi_auth")
        if not isinstance(state, AuthState) or state.method is None:
            return _why_anonymous(connection)
        missing = set(self._scopes) - set(connection.scope["auth"].scopes)
        if missing:
            needed = challenge(realm=_realm(connection), error="insufficient_scope", scope=" ".join(self._scopes))
            return ForbiddenError(f"missing scopes: {sorted(missing)}", headers={"WWW-Authenticate": needed})
        return self._check_proof(connection, state.session)

    def _check_proof(self, connection: HTTPConnection, session: Session | None) -> AuthError | None:
        if self._factor is None and self._fresh is None:
            return None
        if session is None:
            return ForbiddenError("the credential has no session, in which a factor could be proven")
        if self._factor is not None and self._factor not in session.factors:
            return NotFreshError(f"the factor {self._factor!r} was not proven in this session")
        if self._fresh is not None and not _is_fresh(connection, session, self._fresh, self._factor):
            return NotFreshError("the last proof is too old")
        return None

    def _redirects(self, reason: AuthError, scope: Scope) -> bool:
        """Whether to send the client to a page. Only a browser can show it."""
        if self._redirect is None or wants_json(scope) or shows_bearer(allowed_lines(scope["headers"])):
            return False
        return not isinstance(reason, ForbiddenError) or isinstance(reason, NotFreshError)

    def _sign_in_url(self, connection: HTTPConnection) -> str:
        """The URL of the sign-in page; with ``return_to`` if the request can be repeated."""
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
        if not isinstance(request, HTTPConnection):
            raise self._litestar_refusal(request, reason)
        if self._redirects(reason, request.scope):
            return AfterBody(RedirectResponse(self._sign_in_url(request), 303), request)
        response = problem(reason, json=wants_json(request.scope))
        response.headers.update(reason_headers(reason, request.scope, realm=_realm(request)))
        return AfterBody(response, request)

    # --- as a decorator

    def _guard(self, endpoint: Any) -> Any:
        if isinstance(endpoint, staticmethod | classmethod):
            return type(endpoint)(self._guard(endpoint.__func__))
        if isinstance(endpoint, type):
            return self._guard_class(endpoint)
        return self._guard_function(endpoint)

    def _guard_class(self, endpoint: type) -> type:
        if not issubclass(endpoint, HTTPEndpoint | WebSocketEndpoint):
            raise TypeError(_NO_ENDPOINT.format(endpoint))

        def wait(instance: Any) -> Generator[Any, None, None]:
            reason = self.check(HTTPConnection(instance.scope))
            # The class may already have a guard. That guard checks the request next.
            answer: Any = super(guarded, instance) if reason is None else self._refuse_instance(instance, reason)
            yield from answer.__await__()

        # A new class, because another route may use the endpoint with another guard, or without one.
        copied = {name: getattr(endpoint, name) for name in ("__doc__", "__module__", "__qualname__")}
        guarded: Any = type(endpoint.__name__, (endpoint,), {**copied, "__await__": wait})
        return guarded  # type: ignore[no-any-return]

    async def _refuse_instance(self, endpoint: HTTPEndpoint | WebSocketEndpoint, reason: AuthError) -> None:
        scope, receive, send = endpoint.scope, endpoint.receive, endpoint.send
        if isinstance(endpoint, WebSocketEndpoint):
            await WebSocket(scope, receive, send).close(POLICY_VIOLATION)
        else:
            await self._refuse(Request(scope, receive), reason)(scope, receive, send)

    def _guard_function(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(endpoint).parameters)
        name = next((name for name in ("request", "websocket") if name in names), None)
        if name is None:
            called = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
            raise TypeError(_NO_REQUEST.format(called, _with_connection(endpoint)))
        index = names.index(name)
        if inspect.isfunction(endpoint):  # open_routes only looks up functions
            _guarded.add(endpoint)
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
                await websocket.close(POLICY_VIOLATION)  # before accept; the client sees 403

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

    @property
    def __wrapped__(self) -> Any:
        """The security scheme. FastAPI reads it to document the scheme, and to see that the dependency is async.

        Raises AttributeError if FastAPI is not loaded, as a missing attribute does.
        """
        if "fastapi" not in sys.modules:
            raise AttributeError("__wrapped__")
        from asgi_auth.frameworks.fastapi import security_scheme

        return security_scheme()


def _with_connection(endpoint: Callable[..., Any]) -> str:
    """The signature that an endpoint without ``request`` or ``websocket`` should have, without its annotations."""
    parameters = list(inspect.signature(endpoint).parameters.values())
    connection, names = "request", list[str]()
    for parameter in parameters:
        annotated = getattr(parameter.annotation, "__name__", str(parameter.annotation)).rpartition(".")[2]
        plain = parameter.replace(annotation=inspect.Parameter.empty, default=inspect.Parameter.empty)
        if annotated in _CONNECTIONS:
            connection = _CONNECTIONS[annotated]
        elif len(parameters) > 1 or parameter != plain or parameter.name == "self":
            names.append(str(plain))  # otherwise it is the only parameter, Starlette's request under another name
    names.insert(1 if names[:1] == ["self"] else 0, connection)
    return f"{getattr(endpoint, '__name__', '__call__')}({', '.join(names)})"


_guarded: WeakSet[Any] = WeakSet()
"""Every function that has a guard. A route that calls such a function directly skips its guard."""


def open_routes(app: object) -> Iterator[str]:
    """Yield a message for each route of an application that skips the guard of its endpoint.

    ``@require()`` above ``@api.get(…)`` guards a function that the route does not call.
    """
    for part in parts(app):
        endpoint = getattr(part, "endpoint", None)
        if inspect.isfunction(endpoint) and endpoint in _guarded:
            path = getattr(part, "path", "")
            yield (
                f"require: the route {path} calls {endpoint.__qualname__} without its guard: write @require() below "
                "the decorator of the route"
            )


def _authentication(connection: HTTPConnection) -> Authentication[Any] | None:
    state = connection.scope.get("asgi_auth")
    found = state.authentication if isinstance(state, AuthState) else None
    return found if isinstance(found, Authentication) else None


def _is_fresh(connection: HTTPConnection, session: Session, within: timedelta, factor: str | None) -> bool:
    auth = _authentication(connection)
    return auth is not None and auth.sessions.is_fresh(session, within, factor)


def _realm(connection: HTTPConnection) -> str:
    auth = _authentication(connection)
    return "" if auth is None else auth.app_name  # without a middleware no user is signed in


def _why_anonymous(connection: HTTPConnection) -> AuthError:
    state, auth = connection.scope.get("asgi_auth"), _authentication(connection)
    if not isinstance(state, AuthState):  # a mistake that otherwise looks like a wrong password
        logger.error(
            "require: wrap the application in SessionUserMiddleware or BearerUserMiddleware; "
            "without it every request is refused"
        )
    error = None if auth is None else auth.state(connection).error
    if isinstance(error, (InvalidTokenError, MalformedRequestError, RateLimitedError)):
        return error
    return AuthenticationFailedError("nobody is signed in" if error is None else error.reason)
