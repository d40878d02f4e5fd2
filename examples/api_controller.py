"""A controller for an API: JSON and bearer tokens, no cookies.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples api_controller:app

    curl localhost:8000/auth/password/register -d email=you@mail.example.org \
        -d password='violet harbour pendulum' -d password_confirmation='violet harbour pendulum'
    curl localhost:8000/me -H "Authorization: Bearer $TOKEN"

Accounts are kept in api.db in the current directory.
"""

import os
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_auth import (
    AccessToken,
    Activity,
    AuthController,
    AuthError,
    Authentication,
    BearerUserMiddleware,
    User,
    require,
)
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password

auth = Authentication(
    store=SQLiteStore("api.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    strategies=[Password()],
)


class ApiAuthController(AuthController[User]):
    """The answer contains the token, and the client stores it."""

    async def success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        """The user signed in or registered: the token is a plain string."""
        return JSONResponse({"authentication": {"status": "success", "bearer": token}})

    async def failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """The request was rejected: 401 for wrong credentials. ``reason.code`` may be shown, too."""
        return JSONResponse({"authentication": {"status": "failed"}}, status_code=reason.status)

    async def sign_out(self, request: Request, params: Mapping[str, Any]) -> Response:
        """The token is invalid from now on, although it has not expired."""
        await self.revoke_bearer_tokens(request)
        return JSONResponse({"status": "ok"})


@require()  # 401 with WWW-Authenticate for anonymous clients
async def me(request: Request) -> Response:
    """The signed-in user."""
    return JSONResponse({"email": request.user.email})


app = Starlette(
    routes=[Route("/me", me), *ApiAuthController(auth).routes()],
    middleware=[Middleware(BearerUserMiddleware, auth=auth)],
    lifespan=auth.lifespan,
)
