"""The lifespan opens and closes the store, in the right order, in every wrapper and every server."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_auth import upkeep
from asgi_auth.authentication import utc_now
from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import SQLiteStore
from asgi_auth.types import AccessToken
from asgi_auth.web.controller import AuthController
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import ask, live, post, whoami
from tests.other_servers import WITH_LIFESPAN, Kind, server_process
from tests.support import (
    EMAIL,
    OTHER_EMAIL,
    PATIENCE,
    LocalAuthentication,
    credentials,
    make_auth,
    register,
    registration,
    until,
)
from tests.workers import count_rows

pytestmark = pytest.mark.anyio


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


class _TellingStore(SQLiteStore):
    """Records when it is closed, and raises the test's exception."""

    def __init__(self, path: Path, told: list[str], failure: Exception | None = None) -> None:
        super().__init__(path)
        self._told, self._failure = told, failure

    async def close(self) -> None:
        await super().close()
        self._told.append("closed")
        if self._failure is not None:
            raise self._failure


async def _tell(app: ASGIApp, told: list[str], *messages: str) -> None:
    """Run a lifespan of *app*; *told* gets the messages that the server receives, in order."""
    waiting = [{"type": f"lifespan.{message}"} for message in messages or ("startup", "shutdown")]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        told.append(message["type"].removeprefix("lifespan."))

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)


def _session_in_bearer(app: ASGIApp, auth: Any) -> ASGIApp:
    return BearerUserMiddleware(SessionUserMiddleware(app, auth), auth)


WRAPPERS: dict[str, Callable[[ASGIApp, Any], ASGIApp]] = {
    "session": SessionUserMiddleware,
    "bearer": BearerUserMiddleware,
    "nested": _session_in_bearer,
    "plug": lambda app, auth: AuthPlug(auth, app),
    "plug-in-both": lambda app, auth: _session_in_bearer(AuthPlug(auth, app), auth),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("end", ["startup.failed", "shutdown.complete", "shutdown.failed"])
async def test_store_is_closed_before_the_server_receives_the_end(
    wrap: Callable[[ASGIApp, Any], ASGIApp], end: str, tmp_path: Path
) -> None:
    """The server may end the event loop at once; the application may use the store until it reports its shutdown."""
    told: list[str] = []
    auth = make_auth(tmp_path, store=_TellingStore(tmp_path / "app.db", told))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if end != "startup.failed":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await auth.accounts.create({"email": EMAIL})
        told.append("stopped")
        await send({"type": f"lifespan.{end}"})
        told.append("returned")

    await _tell(wrap(app, auth), told)

    assert told[-4:] == ["stopped", "closed", end, "returned"]
    assert (told.count("closed"), os.listdir(tmp_path)) == (1, ["app.db"])


async def test_store_is_closed_once_if_the_application_closes_it_too(tmp_path: Path) -> None:
    """With ``auth.lifespan`` inside both middlewares, the outermost closes before the server receives the end."""
    told: list[str] = []
    auth = make_auth(tmp_path, store=_TellingStore(tmp_path / "app.db", told))

    await _tell(_session_in_bearer(Starlette(lifespan=auth.lifespan), auth), told)
    await _tell(Starlette(lifespan=auth.lifespan), told)
    await _tell(AuthPlug(auth), told)

    assert told == ["startup.complete", "closed", "shutdown.complete"] * 3


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
async def test_store_is_closed_if_the_application_ends_without_a_message(
    wrap: Callable[[ASGIApp, Any], ASGIApp], tmp_path: Path
) -> None:
    """The application has no lifespan, sends no answer, or raises an error, which is passed on to the server."""
    told: list[str] = []
    auth = make_auth(tmp_path, store=_TellingStore(tmp_path / "app.db", told))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["state"] == "none":
            raise NotImplementedError("no lifespan")
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if scope["state"] == "raising":
            raise ZeroDivisionError

    for state, error in (("none", NotImplementedError), ("silent", None), ("raising", ZeroDivisionError)):
        raises = pytest.raises(error) if error else nullcontext()

        async def stated(scope: Scope, receive: Receive, send: Send, state: str = state) -> None:
            await app({**scope, "state": state}, receive, send)

        with raises:
            await _tell(wrap(stated, auth), told)

    assert told == ["closed", "startup.complete", "closed", "startup.complete", "closed"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(StoreUnavailableError("the writer is busy"), "the writer is busy"), (OSError("a secret"), "OSError")],
    ids=["ours", "foreign"],
)
async def test_store_that_cannot_be_closed_is_logged(
    failure: Exception, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server still receives the end; the log does not contain the text of a foreign exception."""
    told: list[str] = []
    auth = make_auth(tmp_path, store=_TellingStore(tmp_path / "app.db", told, failure))

    await _tell(SessionUserMiddleware(_application, auth), told)

    assert told == ["startup.complete", "closed", "shutdown.complete"]
    assert caplog.messages[-1] == f"the store could not be closed: {reason}"


# --- servers that send no lifespan messages ------------------------------------------------------------------------


def _prunes(auth: LocalAuthentication) -> list[str]:
    """Record the prunings that *auth* begins."""
    begun: list[str] = []

    async def prune() -> tuple[int, list[Exception]]:
        begun.append("prune")
        return 0, []

    auth.upkeep._prune = prune  # type: ignore[method-assign]
    return begun


async def _ask_first(auth: LocalAuthentication, what: str, token: AccessToken) -> None:
    cookie = {"cookie": f"user_session={token.cookie}"}
    if what == "session":
        await ask(SessionUserMiddleware(whoami, auth), "GET", "/", headers=cookie)
    elif what == "bearer":
        await ask(BearerUserMiddleware(whoami, auth), "GET", "/", bearer=str(token))
    elif what == "sign-out":
        await post(AuthPlug(auth), "/sign_out", headers=cookie)
    else:
        await post(AuthPlug(auth), "/password/sign_in", credentials())


@pytest.mark.parametrize("what", ["session", "bearer", "plug", "sign-out"])
async def test_first_request_opens_the_store_and_starts_the_pruning(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of several concurrent requests opens the store and starts the pruning, both once."""
    monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))
    earlier = make_auth(tmp_path)
    _, token = await register(earlier)
    auth = make_auth(tmp_path, store=_TellingStore(tmp_path / "app.db", []))
    begun = _prunes(auth)

    await asyncio.gather(*(_ask_first(auth, what, token) for _ in range(5)))

    await until(lambda: len(begun) > 1)
    await auth.close()
    count = len(begun)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(begun) == count
    await earlier.close()


async def test_request_without_a_valid_credential_starts_nothing(tmp_path: Path) -> None:
    """A request without a valid credential or to an unknown route does not open the database."""
    auth = make_auth(tmp_path)
    app = SessionUserMiddleware(BearerUserMiddleware(whoami, auth), auth)
    for cookie in ("", "user_session=forged"):
        await ask(app, "GET", "/", headers={"cookie": cookie})
    await ask(AuthPlug(auth), "GET", "/password/nothing")

    assert not auth.upkeep.started
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("pruning", [False, True], ids=["waiting", "pruning"])
async def test_lifespan_after_the_first_request_starts_nothing_twice(
    pruning: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the lifespan stops all tasks."""
    auth = make_auth(tmp_path)
    begun = _prunes(auth)
    if pruning:
        monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))
    await auth.upkeep.start()
    if pruning:
        await until(lambda: bool(begun))
    before = asyncio.all_tasks()

    async with auth.running():
        await auth.upkeep.start()
        assert len(asyncio.all_tasks() - before) == (0 if pruning else 1)

    assert asyncio.all_tasks() <= before
    assert os.listdir(tmp_path) == ["app.db"]


def test_next_event_loop_can_open_prune_and_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loop has ended, the next loop can open, prune and close; asyncio reports no left-over task."""
    monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))
    auth = make_auth(tmp_path)
    begun = _prunes(auth)

    async def start() -> None:
        await auth.upkeep.start()
        await until(lambda: bool(begun))

    async def run() -> None:
        begun.clear()
        async with auth.running():
            await until(lambda: bool(begun))

    asyncio.run(start())
    asyncio.run(run())
    asyncio.run(start())
    asyncio.run(auth.close())
    gc.collect()

    assert os.listdir(tmp_path) == ["app.db"]


async def test_refused_schema_raises_at_the_first_request(tmp_path: Path) -> None:
    """The error is raised to the server, which logs it; the client does not see it."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE asgi_auth_schema AS SELECT 99 AS version")
    auth = make_auth(tmp_path)

    with pytest.raises(ConfigurationError, match="schema"):
        await post(AuthPlug(auth), "/password/sign_in", credentials())


SCRIPT = """
import asyncio, sys
from pathlib import Path
from tests.asgi import post
from tests.support import make_auth, registration
from asgi_auth.web.plug import AuthPlug

auth = make_auth(Path())
main = lambda: post(AuthPlug(auth), "/password/register", registration())
if sys.argv[1] == "run":
    answer = asyncio.run(main())
else:
    loop = asyncio.new_event_loop()
    answer = loop.run_until_complete(main())
    loop.close()
print(answer.status, auth.upkeep.started)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["run", "close"])
def test_script_that_serves_a_request_ends(how: str, tmp_path: Path) -> None:
    """With every use of the event loop it ends in time and without errors; the rows are in the file itself."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, how],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    warned = "hasher: passwords are hashed too cheaply for real accounts\n"
    assert (ended.stdout, ended.stderr, ended.returncode) == ("200 True\n", warned, 0)
    assert _kept(tmp_path) == [(EMAIL,)]


# --- real servers ----------------------------------------------------------------------------------------------------

APPS = ("by_application", "by_middlewares", "by_plug")
SIGNALS = {"SIGTERM": SIGTERM, "SIGINT": SIGINT}
STOPPED: dict[Kind, dict[Signals, int]] = {
    "uvicorn": {SIGTERM: -SIGTERM, SIGINT: 0},  # raises the signal again at the end
    "hypercorn": {SIGTERM: 0, SIGINT: 0},
    "granian": {SIGTERM: 0, SIGINT: 0},
    "gunicorn": {SIGTERM: 0, SIGINT: 0},
}
"""The exit status of each server."""
TROUBLE = ("Traceback", "Error", "error", "xception", "destroyed")
"""Words that no server must print at its end."""


def _kept(directory: Path) -> list[Any]:
    """The addresses in the database file itself; files beside it are not read."""
    with closing(sqlite3.connect(f"file:{directory}/app.db?immutable=1", uri=True)) as copy:
        return copy.execute("SELECT email FROM asgi_auth_users ORDER BY email").fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("by", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("kind", WITH_LIFESPAN)
async def test_stopped_server_leaves_one_complete_file(kind: Kind, app: str, by: Signals, tmp_path: Path) -> None:
    """No log file remains: a copy of the database file has every table and row. The server prints no error."""
    async with (
        server_process(kind, f"tests.served_apps:{app}", directory=tmp_path) as server,
        server.client() as client,
    ):
        assert (await client.post("/auth/password/register", data=registration())).status_code == 200
        assert (tmp_path / "app.db-wal").exists()
        await client.aclose()
        status = await server.stop(by)

    printed = server.printed()
    assert sorted(os.listdir(tmp_path)) == ["app.db", f"{kind}.log"], printed
    assert _kept(tmp_path) == [(EMAIL,)]
    assert not [word for word in TROUBLE if word in printed], printed
    assert status == STOPPED[kind][by]


@pytest.mark.slow
@pytest.mark.parametrize("by", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("app", ["by_nobody", "often_pruned"])
async def test_daphne_prunes_and_ends(app: str, by: Signals, tmp_path: Path) -> None:
    """Daphne sends no lifespan messages: the first request starts the pruning; its exit closes the store.

    One application ends between two prunings, the other before the first.
    """
    auth = make_auth(tmp_path, clock=lambda: utc_now() - timedelta(days=30))
    await register(auth, OTHER_EMAIL)  # an expired session
    await auth.close()

    async with (
        server_process("daphne", f"tests.served_apps:{app}", directory=tmp_path) as server,
        server.client() as client,
    ):
        assert (await client.post("/auth/password/register", data=registration())).status_code == 200
        if app == "often_pruned":
            await until(lambda: count_rows(tmp_path, "sessions") == 1)
        await client.aclose()
        status = await server.stop(by)

    printed = server.printed()
    assert sorted(os.listdir(tmp_path)) == ["app.db", "daphne.log"], printed
    assert _kept(tmp_path) == [(EMAIL,), (OTHER_EMAIL,)]
    assert not [word for word in TROUBLE if word in printed], printed
    assert status == 0


class _Odd:
    """An application with unusual attributes."""

    def __init__(self, routes: Any = None) -> None:
        self.app, self._routes = self, routes

    @property
    def routes(self) -> Any:
        if isinstance(self._routes, Exception):
            raise self._routes
        return self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})


@pytest.mark.parametrize("routes", [None, 3, print, LookupError("odd"), ["x", None]], ids=repr)
async def test_odd_application_starts(tmp_path: Path, routes: Any) -> None:
    """An application may use Starlette's attribute names for other values; it may also be its own inner application."""
    auth = make_auth(tmp_path)
    sent = await live(SessionUserMiddleware(_Odd(routes), auth))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_application_with_a_controller_or_mounted_in_itself_starts(tmp_path: Path) -> None:
    """The routes of a mounted application are searched; the ``routes`` of a controller are a method."""
    auth = make_auth(tmp_path)
    app = Starlette(routes=[*AuthController(auth).routes()])
    app.mount("/v1", app)
    sent = await live(SessionUserMiddleware(app, auth))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
