"""AuthController: the plug with the callbacks of a controller."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from asgi_auth.errors import AuthError
from asgi_auth.types import AccessToken, Activity, User
from asgi_auth.web.controller import AuthController
from tests.asgi import JSON, ask, post, seen_user, site
from tests.support import EMAIL, LocalAuthentication, credentials, make_auth, registration

pytestmark = pytest.mark.anyio


class _Controller(AuthController[User]):
    async def success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        response = JSONResponse(["success", *activity, user.email])
        self.store_in_session(response, token)
        return response

    async def failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        return JSONResponse(["failure", *activity, reason.code], reason.status)

    async def sign_out(self, request: Request, params: Mapping[str, Any]) -> Response:
        return JSONResponse(["sign_out", dict(params)])


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication that is mounted at ``/account``."""
    auth = make_auth(tmp_path, mount_path="/account")
    async with auth.running():
        yield auth


async def test_routes_call_the_callbacks(auth: LocalAuthentication) -> None:
    """The controller's routes call success, failure and sign_out."""
    app = Starlette(routes=[*_Controller(auth).routes()])
    registered = await post(app, "/account/password/register", registration())
    wrong = await post(app, "/account/password/sign_in", credentials(password="wrong horse"))
    unknown = await ask(app, "GET", "/account/nothing")
    cookie = f"user_session={registered.cookie('user_session')}"
    signed_out = await post(app, "/account/sign_out", {"why": "tired"}, cookie=cookie)

    assert registered.json() == ["success", "password", "register", EMAIL]
    assert (wrong.status, wrong.json()) == (401, ["failure", "password", "sign_in", "authentication_failed"])
    assert wrong["www-authenticate"] == 'Bearer realm="localhost"'
    assert (unknown.status, unknown.json()) == (404, ["failure", None, None, "route_not_found"])
    assert signed_out.json() == ["sign_out", {"why": "tired"}]
    assert str(signed_out["set-cookie"]).startswith("user_session=; ")
    assert await seen_user(site(auth), cookie=cookie) is None


async def test_defaults_are_those_of_the_plug(auth: LocalAuthentication) -> None:
    """A controller without overrides answers like the plug."""
    app = Starlette(routes=[*AuthController(auth).routes()])
    registered = await ask(app, "POST", "/account/password/register", json=registration())
    wrong = await post(app, "/account/password/sign_in", credentials(password="wrong horse"), headers=JSON)
    signed_out = await post(app, "/account/sign_out", headers=JSON)

    assert list(registered.json()) == ["status", "subject", "token"]
    assert wrong.json()["code"] == "authentication_failed"
    assert signed_out.json() == {"status": "signed_out"}
    assert (await ask(app, "GET", "/elsewhere")).status == 404


class _Forgetful(AuthController[User]):
    async def success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Any: ...

    failure = lambda *_: JSONResponse({})  # type: ignore[assignment]  # noqa: E731


async def test_invalid_callback_is_named(auth: LocalAuthentication) -> None:
    """The error contains the name that the application gave the callback, or ``<lambda>``."""
    with pytest.raises(TypeError, match=r"_Forgetful\.success returned NoneType, not a Response"):
        await post(_Forgetful(auth), "/account/password/register", registration())
    with pytest.raises(TypeError, match=r"_Forgetful\.<lambda> must be 'async def'"):
        await post(_Forgetful(auth), "/account/password/sign_in")
