"""What both middlewares add to a request."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import aiosqlite
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_auth import AccessToken, Authentication, Bcrypt, BearerUserMiddleware, SessionUserMiddleware, User
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password
from benchmarks.timing import Variant, in_turn

SECRET = hashlib.sha256(b"benchmarks").hexdigest()
PASSWORD = "walrus-teapot-orbit-41"
BROWSER_HEADERS = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"connection", b"keep-alive"),
    (b"sec-fetch-site", b"same-origin"),
]
# What any library has to ask: the session, its account and its user, by one indexed look-up.
LOOK_UP = """
SELECT s.id, s.user_id, s.stamp, s.created_at, s.last_seen_at, s.idle_expires_at, s.expires_at, s.label, s.factors,
    s.remembered, u.id, u.email, u.username, u.data, u.created_at, a.confirmed_at
FROM asgi_auth_sessions s
JOIN asgi_auth_accounts a ON a.subject_name = s.subject_name AND a.user_id = s.user_id
JOIN asgi_auth_users u ON u.subject_name = a.subject_name AND u.id = a.user_id
WHERE s.subject_name = ? AND s.secret_hash = ? AND s.revoked_at IS NULL AND a.stamp = s.stamp"""


async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest application that answers."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"pong"})


async def receive() -> Any:
    """A request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Takes the answer."""


def make_auth(path: Path, **options: Any) -> Authentication[User]:
    """An ``Authentication`` as an application has it, but for the cheap hash where hashing is not the subject."""
    inline_reads = options.pop("inline_reads", False)
    return Authentication(
        store=SQLiteStore(path, inline_reads=inline_reads),
        secret=SECRET,
        base_url="http://localhost:8000",
        strategies=[Password()],
        **options,
    )


async def sign_in(auth: Authentication[User]) -> AccessToken:
    """A fresh user, signed in."""
    user = await auth.accounts.create({"email": "bench@mail.example.org"}, password=PASSWORD)
    return await auth.sign_in(user)


def wrapped(auth: Authentication[User]) -> ASGIApp:
    """The application inside both middlewares."""
    return SessionUserMiddleware(BearerUserMiddleware(endpoint, auth), auth)


def call(app: ASGIApp, *headers: tuple[bytes, bytes]) -> Variant:
    """One request of a browser's size."""
    sent = [*BROWSER_HEADERS, *headers]

    async def once() -> None:
        scope = {"type": "http", "method": "GET", "path": "/ping", "query_string": b"", "headers": sent}
        await app(scope, receive, send)

    return once


async def measure(*, rounds: int) -> dict[str, float]:
    """Microseconds of each variant, whole calls."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        auth = make_auth(path, hasher=Bcrypt(cost=4))
        inline = make_auth(path, hasher=Bcrypt(cost=4), inline_reads=True)
        async with auth.running(), inline.running(), aiosqlite.connect(path, isolation_level=None) as bare:
            token = await sign_in(auth)
            parameters = ("user", auth.sessions.cookie_hash(token.cookie))
            cookie = (b"cookie", f"{auth.session_cookie}={token.cookie}".encode())
            bearer = (b"authorization", f"Bearer {token}".encode())

            async def look_up() -> object:
                return await bare.execute_fetchall(LOOK_UP, parameters)

            return await in_turn(
                {
                    "bare application": call(endpoint),
                    "no credential": call(wrapped(auth)),
                    "bare look-up, aiosqlite": look_up,
                    "cookie, aiosqlite": call(wrapped(auth), cookie),
                    "bearer, aiosqlite": call(wrapped(auth), bearer),
                    "cookie, inline_reads": call(wrapped(inline), cookie),
                    "bearer, inline_reads": call(wrapped(inline), bearer),
                },
                rounds=rounds,
            )


def report(times: dict[str, float]) -> None:
    """Print what the middlewares add, and the ratios."""
    base, look_up = times["bare application"], times["bare look-up, aiosqlite"]
    print("\nmiddleware: what both add to a request (µs, median)\n")
    print(f"  {'bare look-up, aiosqlite':<26}{look_up:8.1f}")
    print(f"  {'no credential':<26}{times['no credential'] - base:8.1f}    budget 5")
    for name in ("cookie, aiosqlite", "bearer, aiosqlite", "cookie, inline_reads", "bearer, inline_reads"):
        added = times[name] - base
        budget = 1.5 if "aiosqlite" in name else 0.45
        print(f"  {name:<26}{added:8.1f}    {added / look_up:.2f} x the bare look-up, budget {budget}")
