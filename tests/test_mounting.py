"""A plug or a middleware that is put together wrongly says which call is right."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp

from asgi_auth.authentication import Authentication
from asgi_auth.errors import ConfigurationError
from asgi_auth.web.controller import AuthController
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import ask, live, make_scope, whoami
from tests.support import LocalAuthentication, make_auth

pytestmark = pytest.mark.anyio


@pytest.fixture
def auth(tmp_path: Path) -> LocalAuthentication:
    """It is never opened."""
    return make_auth(tmp_path)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (AuthPlug, r"write AuthPlug\(auth\), as in Mount\('/auth', AuthPlug\(auth\)\)$"),
        (AuthController, r"write AuthController\(auth\), as in Mount\('/auth', AuthController\(auth\)\)$"),
    ],
)
def test_plug_takes_an_authentication_only(auth: LocalAuthentication, kind: Any, call: str) -> None:
    """The store in its place, or the class of it, is refused with the right call."""
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}: .* an Authentication, not SQLiteStore: {call}"):
        kind(auth.store)
    with pytest.raises(ConfigurationError, match=rf"an Authentication, not the class Authentication: {call}"):
        kind(Authentication)


@pytest.mark.parametrize("kind", [SessionUserMiddleware, BearerUserMiddleware])
def test_middleware_takes_an_authentication_only(auth: LocalAuthentication, kind: Any) -> None:
    """The two arguments in the wrong order are refused with the right call."""
    name = kind.__name__
    call = rf"write {name}\(app, auth\), or Middleware\({name}, auth=auth\)$"
    with pytest.raises(ConfigurationError, match=rf"^{name}: .* an Authentication, not Starlette: {call}"):
        kind(auth, Starlette())


class SitePlug(AuthPlug):
    """A plug of an application."""


PLUG: Any = AuthPlug  # which a type checker refuses to mount
SITE_PLUG: Any = SitePlug
CONTROLLER: Any = AuthController
APPLICATIONS: dict[str, Any] = {
    "mount": Starlette(routes=[Mount("/auth", PLUG)]),
    "route": Starlette(routes=[Route("/auth/{rest:path}", PLUG)]),
    "subclass": Starlette(routes=[Mount("/auth", SITE_PLUG)]),
    "controller": Starlette(routes=[Mount("/auth", CONTROLLER)]),
    "nested": Starlette(routes=[Mount("/auth", Router([Mount("", PLUG)]))]),
    "fastapi": FastAPI(),
}
APPLICATIONS["fastapi"].mount("/auth", PLUG)


@pytest.mark.parametrize("name", APPLICATIONS)
async def test_class_that_is_mounted_says_what_to_write(auth: LocalAuthentication, name: str) -> None:
    """The application does not start; without a lifespan its first request fails."""
    kind = {"subclass": "SitePlug", "controller": "AuthController"}.get(name, "AuthPlug")
    text = f"{kind}: the class is mounted, not an instance: write {kind}(auth), as in Mount('/auth', {kind}(auth))"
    application = APPLICATIONS[name]
    started = Starlette(routes=application.routes, middleware=[Middleware(SessionUserMiddleware, auth=auth)])

    assert await live(started) == [{"type": "lifespan.startup.failed", "message": f"asgi_auth: {text}"}]
    with pytest.raises(ConfigurationError) as raised:
        await ask(application, "GET", "/auth/password/sign_in")
    assert raised.value.reason == text


def test_class_as_an_application_of_asgi_2_says_what_to_write() -> None:
    """A server takes a class for an application of ASGI 2, and calls it with the scope alone."""
    with pytest.raises(ConfigurationError, match=r"write AuthPlug\(auth\)"):
        PLUG(make_scope("GET", "/"))


async def test_class_with_arguments_of_its_own_is_made_as_ever(auth: LocalAuthentication) -> None:
    """A subclass may take whatever it likes, and what wraps an application starts."""

    class Own(AuthPlug):
        def __init__(self, options: dict[str, str], app: ASGIApp) -> None:
            super().__init__(auth, app)
            self.options = options

    plug = Own({"theme": "dark"}, app=whoami)

    assert plug.options == {"theme": "dark"}
    assert [message["type"] for message in await live(AuthPlug(auth))] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
