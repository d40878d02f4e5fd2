"""The application that the servers of tests/test_http2.py run: it refuses requests with a body."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from asgi_auth.web.guards import require
from asgi_auth.web.middleware import SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.served import ping, real_auth
from tests.support import PATIENCE


def application() -> Starlette:
    """The plug, and ``/upload`` behind the guard."""
    # A busy machine must not change the result. Other tests check how long a refusal waits.
    pytest.MonkeyPatch().setattr("asgi_auth.web.bodies._REST_SECONDS", PATIENCE)
    auth = real_auth(Path())
    return Starlette(
        routes=[Mount("/auth", AuthPlug(auth)), Route("/upload", require()(ping), methods=["POST"])],
        middleware=[Middleware(SessionUserMiddleware, auth=auth)],
        lifespan=auth.lifespan,
    )
