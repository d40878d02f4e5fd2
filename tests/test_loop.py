"""Event loops: asyncio is required, and the error says so."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from asgi_auth.authentication import Authentication
from asgi_auth.errors import ConfigurationError
from asgi_auth.hashing import HashingPool
from asgi_auth.stores import PostgresStore
from asgi_auth.types import AccessToken
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import live, make_scope, silence, whoami
from tests.other_servers import server_process
from tests.support import EMAIL, credentials, make_auth, register

Act = Callable[[Authentication[Any], AccessToken], Awaitable[Any]]


async def _ignore(message: Any) -> None: ...


ACTS: dict[str, Act] = {
    "plug": lambda auth, token: AuthPlug(auth)(make_scope("POST", "/password/sign_in"), silence, _ignore),
    "sign-out": lambda auth, token: AuthPlug(auth)(make_scope("POST", "/sign_out"), silence, _ignore),
    "session": lambda auth, token: SessionUserMiddleware(whoami, auth)(
        make_scope("GET", "/", {"cookie": f"user_session={token.cookie}"}), silence, _ignore
    ),
    "bearer": lambda auth, token: BearerUserMiddleware(whoami, auth)(
        make_scope("GET", "/", {"authorization": f"Bearer {token}"}), silence, _ignore
    ),
    "open": lambda auth, token: auth.open(),
    "running": lambda auth, token: auth.running().__aenter__(),
    "action": lambda auth, token: auth.strategy("password").sign_in(credentials()),
    "load": lambda auth, token: auth.sessions.load(token.cookie),
    "hash": lambda auth, token: HashingPool().run(None, int),
    "postgres": lambda auth, token: PostgresStore("postgresql://127.0.0.1:1/x").open(),
}


@pytest.mark.parametrize("opened", [False, True], ids=["new", "opened"])
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_trio_is_refused_by_name(act: Act, opened: bool, tmp_path: Path) -> None:
    """Trio is refused even if asyncio has opened the Authentication before; no coroutine is left unawaited."""
    auth = make_auth(tmp_path)

    async def prepare(auth: Authentication[Any]) -> AccessToken:
        _, token = await register(auth)
        await (auth if opened else other).open()
        return token

    other = make_auth(tmp_path)
    token = asyncio.run(prepare(auth if opened else other))
    with pytest.raises(ConfigurationError, match="asgi_auth needs asyncio, not trio"):
        trio.run(act, auth, token)
    gc.collect()


def test_trio_fails_the_start(tmp_path: Path) -> None:
    """The lifespan sends ``startup.failed`` with the message, so that the server does not start."""
    for app in (AuthPlug(make_auth(tmp_path)), SessionUserMiddleware(whoami, make_auth(tmp_path))):
        [message] = trio.run(live, app)
        assert message["type"] == "lifespan.startup.failed"
        assert "asgi_auth needs asyncio, not trio" in message["message"]


def test_trio_serves_requests_without_a_credential(tmp_path: Path) -> None:
    """Under trio, a request without a credential passes the middlewares."""
    auth = make_auth(tmp_path)
    scope, sent = make_scope("GET", "/"), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append(scope["user"].is_authenticated)

    trio.run(SessionUserMiddleware(BearerUserMiddleware(app, auth), auth), scope, silence, _ignore)

    assert sent == [False]


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("app", ["by_middlewares", "by_nobody"])
async def test_hypercorn_with_trio_logs_the_error(app: str, tmp_path: Path) -> None:
    """The server's log has the error at the start, or at the first request if the lifespan is not passed on."""
    async with server_process("hypercorn", f"tests.served_apps:{app}", "-k", "trio", directory=tmp_path) as server:
        if app == "by_nobody":
            async with server.client() as client:
                answer = await client.post("/auth/password/sign_in", data=credentials(EMAIL))
            assert answer.status_code == 500
            await server.stop()
        else:
            await server.process.wait()

    assert "asgi_auth needs asyncio, not trio" in server.printed()
    assert "never awaited" not in server.printed()
