"""Hostile requests are refused before they cause much work; ``tox -e bench`` measures the time."""

import cProfile
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from tests.hostile import Hostile, hostile, target
from tests.support import BASE_URL, make_auth, register

pytestmark = pytest.mark.anyio

CALLS = 20_000
"""Calls of functions for one request and everything around it: about two milliseconds on a slow machine."""


async def _work(app: ASGIApp, request: Hostile) -> tuple[int, int]:
    """The number of function calls for the answer on the thread of the event loop, and its status."""
    scope, profile = request.scope(), cProfile.Profile()
    with profile:
        status = await request.meet(app, scope)
    return sum(entry.callcount for entry in profile.getstats()), status


async def test_harmless_requests_are_served_for_a_user(tmp_path: Path) -> None:
    """Harmless requests are served: the target runs everything that reads requests."""
    auth = make_auth(tmp_path)
    async with auth.running():
        _, token = await register(auth)
        headers = [(b"cookie", f"user_session={token.cookie}".encode()), (b"origin", BASE_URL.encode())]
        for kind, answer in (("http", 200), ("websocket", 0)):
            request = Hostile("harmless", headers, path="/", kind=kind)
            assert await request.meet(target(auth), request.scope()) == answer


async def test_hostile_requests_are_refused_before_the_work(tmp_path: Path) -> None:
    """DO-4: no header, path, query, body or value causes long work on the event loop, in the plug or around it."""
    auth = make_auth(tmp_path, trusted_proxies=["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"])
    async with auth.running():
        app = target(auth)
        met = {request.name: await _work(app, request) for request in hostile()}

    assert {name: calls for name, (calls, _) in met.items() if calls > CALLS} == {}
    served = [name for name, (_, status) in met.items() if not (303 <= status < 500 or status == 1008)]
    assert [name for name in served if not name.startswith("sign-out")] == []
