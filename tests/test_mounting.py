"""A plug or a middleware with wrong arguments names the right call."""

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
    """An Authentication that no test opens."""
    return make_auth(tmp_path)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (AuthPlug, r"write AuthPlug\(auth\), as in Mount\('/auth', AuthPlug\(auth\)\)$"),
        (AuthController, r"write AuthController\(auth\), as in Mount\('/auth', AuthController\(auth\)\)$"),
    ],
)
def test_plug_takes_an_authentication_only(auth: LocalAuthentication, kind: Any, call: str) -> None:
    """A store, or the class Authentication, is refused; the error names the right call."""
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}: .* an Authentication, not SQLiteStore: {call}"):
        kind(auth.store)
    with pytest.raises(ConfigurationError, match=rf"an Authentication, not the class Authentication: {call}"):
        kind(Authentication)


@pytest.mark.parametrize("kind", [SessionUserMiddleware, BearerUserMiddleware])
def test_middleware_takes_an_authentication_only(auth: LocalAuthentication, kind: Any) -> None:
    """Arguments in the wrong order are refused; the error names the right call."""
    name = kind.__name__
    call = rf"write {name}\(app, auth\), or Middleware\({name}, auth=auth\)$"
    with pytest.raises(ConfigurationError, match=rf"^{name}: .* an Authentication, not Starlette: {call}"):
        kind(auth, Starlette())


class SitePlug(AuthPlug):
    """A plug of an application."""


PLUG: Any = AuthPlug  # Any: a type checker refuses to mount a class
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
async def test_mounted_class_is_refused_with_the_right_call(auth: LocalAuthentication, name: str) -> None:
    """The application does not start; without a lifespan, its first request fails."""
    kind = {"subclass": "SitePlug", "controller": "AuthController"}.get(name, "AuthPlug")
    text = f"{kind}: the class is mounted, not an instance: write {kind}(auth), as in Mount('/auth', {kind}(auth))"
    application = APPLICATIONS[name]
    started = Starlette(routes=application.routes, middleware=[Middleware(SessionUserMiddleware, auth=auth)])

    assert await live(started) == [{"type": "lifespan.startup.failed", "message": f"asgi_auth: {text}"}]
    with pytest.raises(ConfigurationError) as raised:
        await ask(application, "GET", "/auth/password/sign_in")
    assert raised.value.reason == text


def test_class_called_as_asgi_2_is_refused_with_the_right_call() -> None:
    """A server takes a class for an ASGI 2 application and calls it with the scope alone."""
    with pytest.raises(ConfigurationError, match=r"write AuthPlug\(auth\)"):
        PLUG(make_scope("GET", "/"))


async def test_subclass_with_its_own_arguments_works(auth: LocalAuthentication) -> None:
    """A subclass may have other parameters, and the lifespan of a plug completes."""

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
