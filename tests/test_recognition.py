"""The user of a request: recognisers of strategies and add-ons beside the library's own, and their scopes."""

import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message

from asgi_auth.errors import (
    ConfigurationError,
    InvalidTokenError,
    MalformedRequestError,
    RateLimitedError,
    StoreUnavailableError,
)
from asgi_auth.hooks import Hook
from asgi_auth.phases import Challenge, Outcome, Phase, PhaseRequest
from asgi_auth.recognition import Recognised, Recogniser
from asgi_auth.services import Services
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import JSON, ask, make_scope, post, silence, whoami
from tests.support import EMAIL, OTHER_EMAIL, LocalAuthentication, make_auth, register

pytestmark = pytest.mark.anyio


class Keys:
    """Recognises API keys: ``key-`` and the address of a user, in the header X-Api-Key."""

    method, ambient = "api_key", False

    def __init__(self, services: Services[Any], scopes: Sequence[str] | None) -> None:
        self._services, self._scopes = services, scopes

    def credential(self, scope: Mapping[str, Any], /) -> str | None:
        values = [value.decode() for name, value in scope["headers"] if name == b"x-api-key"]
        if len(values) > 1:
            raise MalformedRequestError("two keys")
        return values[0] if values else None

    async def load(self, credential: str, /, *, now: datetime) -> Recognised:
        if credential == "key-down":
            raise StoreUnavailableError("down")
        if credential == "key-often":
            raise RateLimitedError("too many wrong keys")
        found = await self._services.accounts.find("email", credential.removeprefix("key-"))
        if found is None:
            raise InvalidTokenError("no such key")
        return Recognised(found.user, None, self._scopes)


class ApiKeys(Hook):
    """An add-on with a recogniser and with phases that return the user."""

    name = "api_keys"

    def __init__(self, scopes: Sequence[str] | None = ("orders:read", "orders:write")) -> None:
        self._key_scopes = scopes

    def bind(self, services: Services[Any]) -> "ApiKeys":
        self.recognisers: Sequence[Recogniser] = [Keys(services, self._key_scopes)]
        self.phases = [Phase("known", self._tell, who="known"), Phase("mine", self._tell, who="session")]
        return self

    async def _tell(self, request: PhaseRequest) -> Outcome:
        return Challenge({"user": request.state.user.email, "method": request.state.method})


def site(auth: LocalAuthentication) -> ASGIApp:
    """Endpoints behind guards, inside both middlewares."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse({"user": request.user.email, "scopes": request.auth.scopes})

    guards = {"signed_in": require(), "read": require("orders:read"), "admin": require("admin")}
    guards |= {"factor": require("orders:read", factor="password")}
    routes = [Route(f"/{name}", guard(endpoint)) for name, guard in guards.items()]
    return SessionUserMiddleware(BearerUserMiddleware(Router(routes), auth), auth)


async def _nothing(message: Message) -> None: ...


KEY = {"x-api-key": f"key-{EMAIL}", **JSON}


async def test_api_key_has_only_its_scopes(tmp_path: Path) -> None:
    """AK-6: a key passes a guard for one of its scopes, but not a guard for "signed in" or for a session."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys()])
    user, token = await register(auth)
    app = site(auth)
    by_key = {path: await ask(app, "GET", f"/{path}", headers=KEY) for path in ("signed_in", "read", "admin", "factor")}
    by_token = await ask(app, "GET", "/signed_in", bearer=str(token))
    seen = await ask(SessionUserMiddleware(BearerUserMiddleware(whoami, auth), auth), "GET", "/", headers=KEY)
    await auth.close()

    assert {path: answer.status for path, answer in by_key.items()} == {
        "signed_in": 403,
        "read": 200,
        "admin": 403,
        "factor": 403,
    }
    assert by_key["read"].json() == {"user": EMAIL, "scopes": ["orders:read", "orders:write"]}
    assert by_key["factor"].json()["code"] == "forbidden"
    assert 'scope="authenticated"' in str(by_key["signed_in"]["www-authenticate"])
    assert by_token.status == 200
    assert seen.json() == {"user": user.id, "scopes": ["orders:read", "orders:write"], "error": None}


async def test_user_of_a_recogniser_is_signed_in(tmp_path: Path) -> None:
    """A user without a session is signed in, for the plug as well; a phase that requires a session refuses."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys(scopes=None)])
    user, token = await register(auth)
    states: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        states.append((auth.user(scope), auth.state(scope).session, auth.state(scope).scopes))

    for address in (OTHER_EMAIL, EMAIL):
        scope = make_scope("GET", "/", {"x-api-key": f"key-{address}"})
        await BearerUserMiddleware(look, auth)(scope, silence, _nothing)
    known = await post(AuthPlug(auth), "/auth/api_keys/known", headers=KEY)
    mine = await post(AuthPlug(auth), "/auth/api_keys/mine", headers=KEY)
    both = await post(AuthPlug(auth), "/auth/api_keys/mine", headers=KEY, cookie=f"user_session={token.cookie}")
    await auth.close()

    assert states == [(None, None, ()), (user, None, ("authenticated", "api_key", "user"))]
    assert known.json() == {"status": "challenge", "user": EMAIL, "method": "api_key"}
    assert (mine.status, both.json()["method"]) == (401, "session")


async def test_rejected_key_is_anonymous(tmp_path: Path) -> None:
    """RP-5: an unknown or doubled key gives the anonymous user and the reason; a key that cannot be checked is 503."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys()])
    await register(auth)
    app = BearerUserMiddleware(whoami, auth)
    unknown = await ask(app, "GET", "/", headers={"x-api-key": f"key-{OTHER_EMAIL}"})
    doubled = await ask(app, "GET", "/", headers=[("x-api-key", "a"), ("x-api-key", "b")])
    down = await ask(app, "GET", "/", headers={"x-api-key": "key-down"})
    no_cookie = await ask(SessionUserMiddleware(whoami, auth), "GET", "/", headers=KEY)
    await auth.close()

    assert (unknown.json()["error"], doubled.json()["error"], down.status) == (
        "invalid_token",
        "malformed_request",
        503,
    )
    assert json.loads(no_cookie.body) == {"user": None, "scopes": [], "error": None}


# --- scopes of the application ---------------------------------------------------------------------------------------


def plain(user: Any) -> Iterable[str]:
    return ["orders:read", "admin"]


async def later(user: Any) -> Iterable[str]:
    return ["orders:read", "admin"]


@pytest.mark.parametrize("scopes", [plain, later])
async def test_application_adds_scopes(tmp_path: Path, scopes: Any) -> None:
    """A user has them by cookie and token; a key keeps only scopes that its user has now, and gets no others."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys()], scopes=scopes)
    _, token = await register(auth)
    app = site(auth)
    by_token = await ask(app, "GET", "/admin", bearer=str(token))
    by_cookie = await ask(app, "GET", "/admin", cookie=f"user_session={token.cookie}")
    by_key = await ask(app, "GET", "/read", headers=KEY)
    above = await ask(app, "GET", "/admin", headers=KEY)
    await auth.close()

    assert by_token.json()["scopes"] == ["authenticated", "bearer", "user", "orders:read", "admin"]
    assert by_cookie.json()["scopes"] == ["authenticated", "session", "user", "orders:read", "admin"]
    assert (by_key.json()["scopes"], above.status) == (["orders:read"], 403)


async def test_key_cannot_have_a_scope_of_the_library(tmp_path: Path) -> None:
    """AK-6: a key with the scope "authenticated" is still not signed in."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys(scopes=["authenticated", "session", "user", "orders:read"])])
    await register(auth)
    answer = await ask(site(auth), "GET", "/signed_in", headers=KEY)
    read = await ask(site(auth), "GET", "/read", headers=KEY)
    await auth.close()

    assert (answer.status, read.json()["scopes"]) == (403, ["orders:read"])


async def test_exception_of_the_scopes_function_propagates(tmp_path: Path) -> None:
    """If the application's function raises, the request fails; it is not served without scopes."""

    def broken(user: Any) -> Awaitable[Iterable[str]]:
        raise LookupError("roles")

    auth = make_auth(tmp_path, scopes=broken)
    _, token = await register(auth)
    with pytest.raises(LookupError):
        await ask(site(auth), "GET", "/signed_in", bearer=str(token))
    await auth.close()


def test_two_recognisers_of_one_method_are_refused(tmp_path: Path) -> None:
    """ConfigurationError if two recognisers have one method: ``AuthState.method`` names a single one."""

    class Twice(ApiKeys):
        name = "twice"

    with pytest.raises(ConfigurationError, match="the method of a recogniser is taken"):
        make_auth(tmp_path, add_ons=[ApiKeys(), Twice()])


@pytest.mark.parametrize(
    ("scopes", "error"), [(lambda user: None, TypeError), (lambda user: "orders:read", TypeError)], ids=["none", "text"]
)
async def test_scopes_that_are_no_list_raise_type_error(tmp_path: Path, scopes: Any, error: type[Exception]) -> None:
    """TypeError if the function returns None or a single str, with a key and with a token."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys()], scopes=scopes)
    _, token = await register(auth)
    for shown in ({"headers": KEY}, {"bearer": str(token)}):
        with pytest.raises(error):
            await ask(site(auth), "GET", "/read", **shown)
    await auth.close()


async def test_application_cannot_give_a_scope_of_the_library(tmp_path: Path) -> None:
    """Scopes of the library that the application returns are ignored: ``require("session")`` means a session."""
    auth = make_auth(tmp_path, scopes=lambda user: ["session", "authenticated", "orders:read"])
    _, token = await register(auth)
    answer = await ask(site(auth), "GET", "/read", bearer=str(token))
    await auth.close()
    assert answer.json()["scopes"] == ["authenticated", "bearer", "user", "orders:read"]


async def test_refusal_of_a_recogniser_is_answered_by_the_guard(tmp_path: Path) -> None:
    """AK-7: a rate-limited key gives the anonymous user; the guard answers with 429."""
    auth = make_auth(tmp_path, add_ons=[ApiKeys()])
    answer = await ask(site(auth), "GET", "/read", headers={"x-api-key": "key-often", **JSON})
    seen = await ask(BearerUserMiddleware(whoami, auth), "GET", "/", headers={"x-api-key": "key-often"})
    await auth.close()

    assert (answer.status, answer.json()["code"]) == (429, "rate_limited")
    assert seen.json()["error"] == "rate_limited"


@pytest.mark.parametrize("method", ["", "authenticated", "user", "session", "API key", None])
def test_method_of_a_recogniser_is_checked(tmp_path: Path, method: Any) -> None:
    """The method is a scope and a name in the log: it must be lower case and no scope of the library."""

    class Odd(ApiKeys):
        def bind(self, services: Services[Any]) -> "Odd":
            keys = Keys(services, None)
            keys.method = method
            self.recognisers = [keys]
            self.phases = []
            return self

    with pytest.raises(ConfigurationError, match="recogniser"):
        make_auth(tmp_path, add_ons=[Odd()])


def test_load_of_a_recogniser_must_be_async(tmp_path: Path) -> None:
    """ConfigurationError if load is no async function: the library awaits it at every request."""

    class Plain(Keys):
        def load(self, credential: str, /, *, now: datetime) -> Recognised:  # type: ignore[override]
            raise NotImplementedError  # pragma: no cover  # refused before it is called

    class Odd(ApiKeys):
        def bind(self, services: Services[Any]) -> "Odd":
            self.recognisers = [Plain(services, None)]  # type: ignore[list-item]
            self.phases = []
            return self

    with pytest.raises(ConfigurationError, match="must be 'async def'"):
        make_auth(tmp_path, add_ons=[Odd()])
