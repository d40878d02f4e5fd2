"""The password strategy with an application's own model, in an ASGI application."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.stores.engines import engines, make
from tests.stores.models import RENAMED, UuidUser
from tests.support import (
    BASE_URL,
    EMAIL,
    NEW_PASSWORD,
    LocalAuthentication,
    credentials,
    mailed_token,
    make_auth,
    registration,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An ``Authentication`` on an engine of the application."""
    async with engines(request.param, tmp_path) as made:
        await make(made(), UuidUser)
        yield make_auth(tmp_path, store=SQLAlchemyStore(made(), UuidUser, fields=RENAMED))


@require()
async def me(request: Request) -> JSONResponse:
    """Return the signed-in user, an object of the application's own class."""
    user = request.user
    return JSONResponse(
        {"class": type(user).__name__, "mail": user.login_mail, "id": user.identity, "name": user.full_name}
    )


def app(auth: LocalAuthentication) -> Starlette:
    """The application."""
    return Starlette(
        routes=[Mount("/auth", AuthPlug(auth)), Route("/me", me)],
        middleware=[Middleware(SessionUserMiddleware, auth=auth), Middleware(BearerUserMiddleware, auth=auth)],
        lifespan=auth.lifespan,
    )


def browser(auth: LocalAuthentication) -> httpx.AsyncClient:
    """A user with a cookie jar."""
    transport = httpx.ASGITransport(app(auth))
    return httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers={"Origin": BASE_URL})


async def test_password_scenario_with_a_model_of_the_application(auth: LocalAuthentication) -> None:
    """Register, /me, an address in use, sign-out, a wrong password, a reset by mail, sign-in, a disabled account."""
    async with browser(auth) as alice, browser(auth) as again:
        assert (await alice.post("/auth/password/register", data=registration())).status_code == 200
        answer = (await alice.get("/me")).json()
        user_id = answer.pop("id")
        assert answer == {"class": "UuidUser", "mail": EMAIL, "name": None}
        assert (await again.post("/auth/password/register", data=registration(EMAIL.upper()))).status_code == 422

        assert (await alice.post("/auth/sign_out")).status_code == 200
        assert (await alice.get("/me")).status_code == 401
        assert (await alice.post("/auth/password/sign_in", data=credentials(password="wrong"))).status_code == 401
        assert (await alice.post("/auth/password/sign_in", data=credentials())).status_code == 200
        assert (await again.post("/auth/password/sign_in", data=credentials())).status_code == 200

        await alice.post("/auth/password/reset_request", data={"email": EMAIL})
        reset = {
            "reset_token": mailed_token(auth),
            "password": NEW_PASSWORD,
            "password_confirmation": NEW_PASSWORD,
        }
        assert [(await alice.post("/auth/password/reset", data=reset)).status_code for _ in range(2)] == [200, 401]
        assert [(await client.get("/me")).status_code for client in (alice, again)] == [401, 401]
        assert (await alice.post("/auth/password/sign_in", data=credentials())).status_code == 401
        assert (await alice.post("/auth/password/sign_in", data=credentials(password=NEW_PASSWORD))).status_code == 200
        assert (await alice.get("/me")).json()["id"] == user_id

        user = (await auth.accounts.get(user_id)).user  # type: ignore[union-attr]
        changed = await auth.accounts.change(user, {"name": "Alice", "email": "a@mail.example.org"})
        assert (changed.full_name, changed.login_mail) == ("Alice", "a@mail.example.org")  # type: ignore[attr-defined]
        assert await auth.accounts.disable(user_id)
        assert (await alice.get("/me")).status_code == 401
        assert await auth.accounts.delete(user_id)
        assert await auth.accounts.get(user_id) is None
