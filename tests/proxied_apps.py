"""Applications at module level for the public path ``/app`` behind a proxy.

They use ``app.db`` in the current directory.
"""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from asgi_auth.authentication import Authentication
from asgi_auth.senders import ConsoleSender
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import AccessToken, Activity
from asgi_auth.web.clients import client_of
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.served import real_auth
from tests.served_apps import Deferred

PREFIX = "/app"


class ReturningPlug(AuthPlug[Any]):
    """After a sign-in, redirects the user to the page that they requested."""

    async def handle_success(self, request: Request, activity: Activity, user: Any, token: AccessToken) -> Response:
        response = RedirectResponse(self.return_to(request), 303)
        self.store_in_session(response, token)
        return response


def _auth(**options: Any) -> Authentication[Any]:
    strategies = [Password(resettable=Resettable(sender=ConsoleSender()))]
    return real_auth(Path(), strategies=strategies, trusted_proxies=["unix"], **options)


def _routes() -> list[BaseRoute]:
    auth, other = _auth(mount_path=f"{PREFIX}/auth"), _auth(subject_name="other", mount_path="/other")

    @require(redirect=f"{PREFIX}/sign_in")
    async def me(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.email)

    async def address(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(client_of(request.scope, auth).address))

    return [
        Mount("/auth", ReturningPlug(auth)),
        Mount("/other", AuthPlug(other)),
        Route("/me", me, middleware=[Middleware(SessionUserMiddleware, auth=auth)]),
        Route("/address", address),
    ]


def _in_both_places() -> Starlette:
    routes = _routes()
    return Starlette(routes=[*routes, Mount(PREFIX, routes=routes)])


at_the_root = Deferred(lambda _: Starlette(routes=_routes()))
"""The routes at the root only. The ``mount_path`` of the first plug contains ``/app``; that of ``/other`` does not."""
in_both_places = Deferred(lambda _: _in_both_places())
"""The same routes, at the root and below ``/app``."""
