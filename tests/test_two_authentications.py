"""TK-23: two Authentications with equal secret, file, origin, addresses and user ids accept nothing of each other."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import jwt
import pytest
from starlette.types import ASGIApp

from asgi_auth.errors import AuthenticationFailedError, InvalidTokenError
from asgi_auth.protocol.keys import derive_key, key_id
from asgi_auth.senders import MemorySender
from asgi_auth.sessions import PENDING_FACTOR
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import AccessToken, Client
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from tests.asgi import ask, shake, whoami
from tests.second_factor import Code
from tests.support import (
    BASE_URL,
    EMAIL,
    NEW_PASSWORD,
    PASSWORD,
    SECRET,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
)

pytestmark = pytest.mark.anyio

USER_ID = "5b2f7a1e-93f4-4c53-8f0e-1d2c3b4a5968"


class Side(NamedTuple):
    """One kind of user, and the credentials of its only user."""

    auth: LocalAuthentication
    token: AccessToken
    sign_in: str
    pending: str
    reset: str


async def make_side(directory: Path, store: SQLiteStore, subject_name: str) -> Side:
    sender = MemorySender()
    strategies = [Password(resettable=Resettable(sender=sender)), Code()]
    auth = make_auth(directory, store=store, subject_name=subject_name, sender=sender, strategies=strategies)
    user = await auth.accounts.create({"email": EMAIL, "username": "alice"}, password=PASSWORD)
    assert user.id == USER_ID
    _, sign_in = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    pending = await auth.tokens.issue(
        PENDING_FACTOR,
        account=(await found_of(auth)).account,
        lifetime=timedelta(minutes=10),
        extra_data={
            "required": ["code"],
            "proven": [["password", auth.clock().isoformat()]],
            "remember": False,
            "registered": False,
            "replaces": None,
        },
    )
    await auth.strategy("password").reset_request({"email": EMAIL})
    return Side(auth, await auth.sign_in(user), sign_in, pending.token, mailed_token(auth))


@pytest.fixture
async def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Side, Side]]:
    """A user and an admin in one file, with one secret, one origin and the same id."""
    monkeypatch.setattr("asgi_auth.registration.uuid4", lambda: UUID(USER_ID))
    store = SQLiteStore(tmp_path / "app.db")
    yield await make_side(tmp_path, store, "user"), await make_side(tmp_path, store, "admin")
    await store.close()


def nested(outer: LocalAuthentication, inner: LocalAuthentication) -> ASGIApp:
    """Both middlewares of one Authentication around both of another."""
    app: ASGIApp = whoami
    for auth in (inner, outer):
        app = SessionUserMiddleware(BearerUserMiddleware(app, auth), auth)
    return app


def shown(side: Side, *, name: str) -> dict[str, list[tuple[str, str]]]:
    """Headers for every credential of a side, with cookies under *name*."""
    secret = side.token.cookie.partition(".")[0]
    cookies = {"cookie": side.token.cookie, "secret": secret, "jwt as cookie": str(side.token), "reset": side.reset}
    bearers = {"bearer": str(side.token), "cookie as bearer": side.token.cookie, "sign_in": side.sign_in}
    return {
        **{f"{kind} in cookie": [("cookie", f"{name}={value}")] for kind, value in cookies.items()},
        **{f"{kind} in header": [("authorization", f"Bearer {value}")] for kind, value in bearers.items()},
    }


OWN = {"cookie in cookie", "bearer in header"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["admins inside", "users inside"])
async def test_middleware_accepts_only_its_own_credentials(sides: tuple[Side, Side], order: tuple[int, int]) -> None:
    """TK-23: on http and websocket the inner Authentication accepts only its own credentials, with any cookie name."""
    outer, inner = (sides[index] for index in order)
    app = nested(outer.auth, inner.auth)
    origin = ("origin", BASE_URL)
    for side in sides:
        for name in (inner.auth.site.session_cookie, outer.auth.site.session_cookie):
            for kind, headers in shown(side, name=name).items():
                own = (
                    side is inner
                    and kind in OWN
                    and (kind != "cookie in cookie" or name == side.auth.site.session_cookie)
                )
                answer = await ask(app, "GET", "/", headers=[*headers, origin])
                assert answer.json()["user"] == (USER_ID if own else None), (kind, name)
                scopes = answer.json()["scopes"]
                assert scopes[2:] == ([inner.auth.subject_name] if own else [])
                sent = await shake(app, headers=[*headers, origin])
                assert sent[0]["type"] == ("websocket.accept" if own else "websocket.close"), (kind, name)


async def test_cookies_of_both_give_each_its_own_user(sides: tuple[Side, Side]) -> None:
    """TK-23, SE-13: with the cookies of both, each middleware gives its own user; identities are never mixed."""
    headers = [("cookie", "; ".join(f"{side.auth.site.session_cookie}={side.token.cookie}" for side in sides))]
    for outer, inner in (sides, sides[::-1]):
        answer = await ask(nested(outer.auth, inner.auth), "GET", "/", headers=headers)
        assert answer.json() == {
            "user": USER_ID,
            "scopes": ["authenticated", "session", inner.auth.subject_name],
            "error": None,
        }


async def test_key_is_valid_for_one_kind_of_user(sides: tuple[Side, Side]) -> None:
    """TK-9, TK-23: cookies and tokens that are signed with the other one's key are refused."""
    for one, other in (sides, sides[::-1]):
        with pytest.raises(InvalidTokenError, match="bad signature"):
            one.auth.sessions.cookie_hash(other.token.cookie)
        key = derive_key(SECRET.encode(), "access_token", other.auth.subject_name)
        claims = jwt.decode(str(one.token), options={"verify_signature": False})
        own_kid = jwt.get_unverified_header(str(one.token))["kid"]
        for kid in (key_id(key), own_kid):
            with pytest.raises(InvalidTokenError):
                one.auth.tokens.verify_access(jwt.encode(claims, key, headers={"kid": kid}))
        assert one.auth.tokens.verify_access(str(one.token)).session_id == one.token.session.id


async def test_tokens_are_redeemed_only_by_their_own_side(sides: tuple[Side, Side]) -> None:
    """TK-23: actions of one side refuse tokens of the other and do not consume them."""
    new = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}

    async def redeem(auth: LocalAuthentication, side: Side) -> list[Any]:
        password, code = auth.strategy("password"), auth.strategy("code")
        acts: list[Callable[[], Awaitable[Any]]] = [
            lambda: auth.sessions.load(side.token.cookie),
            lambda: auth.sessions.load_bearer(str(side.token)),
            lambda: password.sign_in_with_token({"token": side.sign_in}),
            lambda: code.verify({"code": f"code-{EMAIL}"}, pending=side.pending),
            lambda: password.reset({"reset_token": side.reset, **new}),
        ]
        results = []
        for act in acts:
            try:
                await act()
            except InvalidTokenError:
                results.append("refused")
            else:
                results.append("taken")
        return results

    for one, other in (sides, sides[::-1]):
        assert await redeem(one.auth, other) == ["refused"] * 5
    for side in sides:
        assert await redeem(side.auth, side) == ["taken"] * 5


async def test_acts_on_one_kind_of_user_do_not_change_the_other(sides: tuple[Side, Side]) -> None:
    """TK-23: acts of one side do not change users, accounts, sessions or tokens of the other, despite equal ids."""
    users, admins = sides
    auth = users.auth
    assert await auth.sessions.revoke(admins.token.session.id) is False
    assert await auth.sessions.revoke_cookie(admins.token.cookie) is False
    await auth.sessions.touch(admins.token.session)
    assert [session.id for session in await auth.sessions.list(USER_ID)] == [users.token.session.id]
    signed_in = await auth.sign_in(
        (await found_of(auth)).user,
        client=Client(session_hashes=(admins.auth.sessions.cookie_hash(admins.token.cookie),)),
    )
    before = await found_of(admins.auth)
    await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD, proves_mailbox=True)
    await auth.accounts.change((await found_of(auth)).user, {"username": "alicia"})
    await auth.accounts.disable(USER_ID)
    await auth.accounts.enable(USER_ID)
    await auth.sessions.revoke_all(USER_ID)
    await auth.accounts.delete(USER_ID)
    auth.clock.advance(timedelta(days=30))
    await auth.prune()
    assert await found_of(admins.auth) == before
    assert await is_alive(admins.auth, admins.token)
    assert not await is_alive(auth, signed_in)
    await admins.auth.tokens.peek("reset", admins.reset)
    await admins.auth.strategy("password").sign_in(credentials())
    with pytest.raises(AuthenticationFailedError):
        await auth.strategy("password").sign_in(credentials())


async def test_address_is_one_user_of_each_kind(sides: tuple[Side, Side]) -> None:
    """TK-23: one address is one user of each kind, with its own account and password."""
    users, admins = sides
    await users.auth.accounts.set_password(await found_of(users.auth), NEW_PASSWORD)
    await admins.auth.strategy("password").sign_in(credentials(password=PASSWORD))
    with pytest.raises(AuthenticationFailedError):
        await admins.auth.strategy("password").sign_in(credentials(password=NEW_PASSWORD))
    assert (await found_of(users.auth)).account.stamp != (await found_of(admins.auth)).account.stamp


async def test_cookie_names_and_subjects_differ(sides: tuple[Side, Side]) -> None:
    """TK-23: names of cookies and subjects of tokens contain the kind of user."""
    assert [side.auth.site.session_cookie for side in sides] == ["user_session", "admin_session"]
    assert [side.auth.site.cookie("pending") for side in sides] == ["user_pending", "admin_pending"]
    assert [side.auth.tokens.subject(USER_ID) for side in sides] == [f"user?id={USER_ID}", f"admin?id={USER_ID}"]
