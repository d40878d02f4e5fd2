"""A proof is invalid once its account has changed, even for acts that were already running (SE-16, PW-9).

Two workers share a file. One worker's sign-in is stopped in a hash, a gate or its transaction while the other commits.
"""

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from asgi_auth.acts import Attempt, Proof
from asgi_auth.errors import AuthenticationFailedError, InvalidTokenError
from asgi_auth.events import Event, SignInSucceeded
from asgi_auth.hooks import Hook
from asgi_auth.passwords import Bcrypt
from asgi_auth.phases import SignedIn
from asgi_auth.store import Loaded, Work
from asgi_auth.strategies.password import RESET
from asgi_auth.types import Client, Session, User
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, JSON, ask
from tests.gate import GatedBcrypt
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    register,
)
from tests.workers import count_rows, reset_token, resetting, shown, valid_passwords, workers

pytestmark = pytest.mark.anyio

# --- acts that commit meanwhile --------------------------------------------------------------------------------------


async def reset_it(auth: LocalAuthentication, user: User) -> None:
    """Set a new password by a mailed link."""
    await auth.strategy("password").reset(resetting(await reset_token(auth)))


async def disable_it(auth: LocalAuthentication, user: User) -> None:
    """Lock the account."""
    assert await auth.accounts.disable(user.id)


async def log_out_everywhere(auth: LocalAuthentication, user: User) -> None:
    """End every session."""
    await auth.sessions.revoke_all(user.id)


async def delete_it(auth: LocalAuthentication, user: User) -> None:
    """Delete the user."""
    assert await auth.accounts.delete(user.id)


EFFECTS = pytest.mark.parametrize(
    ("effect", "valid"),
    [
        pytest.param(reset_it, [NEW_PASSWORD], id="reset"),
        pytest.param(disable_it, [], id="disable"),
        pytest.param(log_out_everywhere, [PASSWORD], id="log_out_everywhere"),
        pytest.param(delete_it, [], id="delete"),
    ],
)
Effect = Callable[[LocalAuthentication, User], Coroutine[Any, Any, None]]


# --- running sign-ins ------------------------------------------------------------------------------------------------


@EFFECTS
async def test_session_of_a_running_sign_in_is_invalid(tmp_path: Path, effect: Effect, valid: list[str]) -> None:
    """SE-16: a sign-in whose hash was running gets an invalid session, also after the user is enabled again."""
    hasher = GatedBcrypt()
    async with workers(tmp_path, 1, hasher=hasher) as (one,), workers(tmp_path, 1) as (other,):
        user, _ = await register(other)
        hasher.gate.close("verify")
        signing_in = asyncio.create_task(one.strategy("password").sign_in(credentials()))
        await hasher.gate.arrived()
        await effect(other, user)
        hasher.gate.open()
        _, token = await signing_in

        assert [await shown(auth, token) for auth in (one, other)] == [["-", "-"]] * 2
        assert await valid_passwords(other, PASSWORD, NEW_PASSWORD) == valid
        await other.accounts.enable(user.id)
        assert await shown(one, token) == ["-", "-"]


@EFFECTS
async def test_earlier_tokens_are_invalid(tmp_path: Path, effect: Effect, valid: list[str]) -> None:
    """SE-16: sign-in tokens from before, or from a running sign-in, are invalid, and so is an older reset link."""
    hasher = GatedBcrypt()
    async with workers(tmp_path, 1, hasher=hasher) as (one,), workers(tmp_path, 1) as (other,):
        user, _ = await register(other)
        _, earlier = await one.strategy("password").sign_in(credentials(), token_type="sign_in")
        link = await link_of(one)
        hasher.gate.close("verify")
        signing_in = asyncio.create_task(one.strategy("password").sign_in(credentials(), token_type="sign_in"))
        await hasher.gate.arrived()
        await effect(other, user)
        hasher.gate.open()
        _, late = await signing_in
        await other.accounts.enable(user.id)

        for token in (earlier, late):
            with pytest.raises(InvalidTokenError):
                await one.strategy("password").sign_in_with_token({"token": token})
        with pytest.raises(InvalidTokenError):
            await one.strategy("password").reset(resetting(link))
        assert await valid_passwords(other, NEW_PASSWORD) == [each for each in valid if each == NEW_PASSWORD]


async def link_of(auth: LocalAuthentication) -> str:
    """A reset token for Alice that was not mailed."""
    found = await auth.accounts.find("email", EMAIL)
    assert found is not None
    lifetime, factor = timedelta(hours=1), {"factor": "password"}
    return (await auth.tokens.issue(RESET, account=found.account, lifetime=lifetime, extra_data=factor)).token


class Porter(Hook):
    """Makes a sign-in wait in ``admit``, or in ``within`` while its transaction is open."""

    name = "porter"

    def __init__(self, place: str) -> None:
        self._place = place
        self.arrived, self.opened = asyncio.Event(), asyncio.Event()

    async def admit(self, attempt: Attempt) -> None:
        """Wait: everything is proven and nothing is stored."""
        await self._wait("admit")

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Wait: the session is inserted and not committed."""
        if isinstance(event, SignInSucceeded):
            await self._wait("within")

    async def _wait(self, place: str) -> None:
        if place == self._place:
            self.arrived.set()
            await self.opened.wait()


@EFFECTS
async def test_running_sign_in_by_token_creates_no_session(tmp_path: Path, effect: Effect, valid: list[str]) -> None:
    """SE-16: a sign-in token that was checked before the effect and consumed after it creates no session."""
    porter = Porter("admit")
    async with workers(tmp_path, 1, add_ons=[porter]) as (one,), workers(tmp_path, 1) as (other,):
        user, _ = await register(other)
        _, token = await other.strategy("password").sign_in(credentials(), token_type="sign_in")
        redeeming = asyncio.create_task(one.strategy("password").sign_in_with_token({"token": token}))
        await porter.arrived.wait()
        await effect(other, user)
        rows = count_rows(tmp_path, "sessions")
        porter.opened.set()
        with pytest.raises(InvalidTokenError):
            await redeeming
        assert count_rows(tmp_path, "sessions") == rows


async def test_session_created_beside_an_open_change_is_invalid(tmp_path: Path) -> None:
    """SE-16: a sign-in that read the account before the change was committed gets an invalid session."""
    porter = Porter("admit")
    async with workers(tmp_path, 1, add_ons=[porter]) as (one,), workers(tmp_path, 1) as (other,):
        user, _ = await register(other)
        async with other.store.scope("user").transaction() as work:
            await other.sessions.renew_stamp(work, user.id)
            signing_in = asyncio.create_task(one.strategy("password").sign_in(credentials()))
            await porter.arrived.wait()  # has read what was committed: the old stamp
            porter.opened.set()
        _, token = await signing_in
        assert [await shown(auth, token) for auth in (one, other)] == [["-", "-"]] * 2


@EFFECTS
async def test_session_in_an_open_transaction_is_invalid_afterwards(
    tmp_path: Path, effect: Effect, valid: list[str]
) -> None:
    """SE-16: a session that is inserted but not committed when the effect begins is invalid after it."""
    porter = Porter("within")
    async with workers(tmp_path, 1, add_ons=[porter]) as (one,), workers(tmp_path, 1) as (other,):
        user, _ = await register(other)
        signing_in = asyncio.create_task(one.strategy("password").sign_in(credentials()))
        await porter.arrived.wait()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            begin_at_once(tmp_path)
        working = asyncio.create_task(effect(other, user))
        porter.opened.set()
        (_, token), _ = await asyncio.gather(signing_in, working)
        assert [await shown(auth, token) for auth in (one, other)] == [["-", "-"]] * 2
        assert await valid_passwords(other, PASSWORD, NEW_PASSWORD) == valid


def begin_at_once(directory: Path) -> None:
    """Begin a write without waiting for the lock."""
    with closing(sqlite3.connect(directory / "app.db", timeout=0)) as connection:
        connection.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("method", ["verify", "hash"])
async def test_rehash_never_restores_an_old_password(tmp_path: Path, method: str) -> None:
    """PW-9: a sign-in that rehashes its password while a reset commits does not change the password."""
    hasher = GatedBcrypt()
    async with (
        workers(tmp_path, 1, hasher=Bcrypt(cost=5)) as (earlier,),
        workers(tmp_path, 1, hasher=hasher) as (one,),
        workers(tmp_path, 1) as (other,),
    ):
        user, _ = await register(earlier)
        hasher.gate.close(method)
        signing_in = asyncio.create_task(one.strategy("password").sign_in(credentials()))
        await hasher.gate.arrived()
        await reset_it(other, user)
        hasher.gate.open()
        _, token = await signing_in

        assert hasher.gate.calls == [("verify", PASSWORD), ("hash", PASSWORD)]
        assert await shown(other, token) == ["-", "-"]
        for auth in (other, one, earlier):
            assert await valid_passwords(auth, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]


# --- the session that acts -------------------------------------------------------------------------------------------


async def test_acting_session_survives_its_own_change(tmp_path: Path) -> None:
    """SE-5: after set_password and revoke_all with an acting session, that session is valid and others are not."""
    async with workers(tmp_path, 2) as (one, other):
        user, acting = await register(one)
        found = await one.accounts.get(user.id)
        assert found is not None
        bystander = await other.strategy("password").sign_in(credentials())
        await one.accounts.set_password(found, NEW_PASSWORD, acting=acting.session)
        assert [await shown(other, token) for token in (acting, bystander.token)] == [[EMAIL, EMAIL], ["-", "-"]]

        bystander = await other.strategy("password").sign_in(credentials(EMAIL, NEW_PASSWORD))
        await one.sessions.revoke_all(user.id, except_=acting.session)
        assert [await shown(other, token) for token in (acting, bystander.token)] == [[EMAIL, EMAIL], ["-", "-"]]


async def sign_out_that_session(auth: LocalAuthentication, user: User) -> None:
    """End the sessions one by one; the stamp stays the same."""
    for session in await auth.sessions.list(user.id):
        assert await auth.sessions.revoke(session.id)


async def change_address(auth: LocalAuthentication, user: User, thief: Session) -> None:
    """Move the account to another address."""
    await auth.accounts.change(user, {"email": OTHER_EMAIL}, acting=thief)


async def change_a_field(auth: LocalAuthentication, user: User, thief: Session) -> None:
    """Change a field that is no identity; the stamp stays the same."""
    await auth.accounts.change(user, {"nickname": "thief"}, acting=thief)


async def set_password(auth: LocalAuthentication, user: User, thief: Session) -> None:
    """Set a password as in the documentation: the account is read after the form has arrived."""
    found = await auth.accounts.get(user.id)
    assert found is not None
    await auth.accounts.set_password(found, "the password of a thief", acting=thief)


async def log_out_the_others(auth: LocalAuthentication, user: User, thief: Session) -> None:
    """End every session but the acting one."""
    await auth.sessions.revoke_all(user.id, except_=thief)


async def replace(auth: LocalAuthentication, user: User, thief: Session) -> None:
    """Replace the acting session by a new one."""
    found = await auth.accounts.get(user.id)
    assert found is not None
    proof = Proof(account=found.account, factor="application", at=auth.clock())
    replaced = thief.id
    await auth.sessions.mint(SignedIn(user, proof, replaces=replaced), Client())


async def reauthenticate(auth: LocalAuthentication, user: User, thief: Session) -> None:
    """Prove both passwords: neither works, as the session is invalid."""
    for password in (PASSWORD, NEW_PASSWORD):
        with pytest.raises(AuthenticationFailedError):
            await auth.strategy("password").reauthenticate({"password": password}, session=thief)
    raise InvalidTokenError("neither")


Act = Callable[[LocalAuthentication, User, Session], Coroutine[Any, Any, None]]


@pytest.mark.parametrize(
    "act", [change_address, change_a_field, set_password, log_out_the_others, replace, reauthenticate]
)
@pytest.mark.parametrize("effect", [reset_it, log_out_everywhere, sign_out_that_session])
async def test_acting_session_that_ended_changes_nothing(tmp_path: Path, effect: Effect, act: Act) -> None:
    """SE-16: a request whose session ends between its headers and its body is refused."""
    async with workers(tmp_path, 2) as (one, other):
        user, thief = await register(one)
        await effect(other, user)
        before = await other.accounts.get(user.id)
        with pytest.raises(InvalidTokenError):
            await act(one, user, thief.session)
        assert await other.accounts.get(user.id) == before
        assert await other.sessions.list(user.id) == []
        assert await shown(other, thief) == ["-", "-"]


@pytest.mark.parametrize("path", ["/change_password", "/auth/password/reauthenticate"])
async def test_held_request_is_refused_after_the_owners_reset(tmp_path: Path, path: str) -> None:
    """SE-16: a thief sends the body after the owner's reset; the endpoint is that of docs/, or the plug's."""
    async with workers(tmp_path, 2) as (auth, other):
        user, thief = await register(auth)

        @require(fresh=timedelta(minutes=10))
        async def change_password(request: Request) -> Response:
            form = await request.json()
            found = await auth.accounts.get(request.user.id)
            assert found is not None
            with pytest.raises(InvalidTokenError) as refused:
                await auth.accounts.set_password(found, form["password"], acting=auth.state(request).session)
            return JSONResponse({"code": refused.value.code}, refused.value.status)

        routes = [Route("/change_password", change_password, methods=["POST"]), Mount("/auth", AuthPlug(auth))]
        app = SessionUserMiddleware(Starlette(routes=routes), auth)

        async def held_back(scope: Scope, receive: Receive, send: Send) -> None:
            async def reset_first() -> Message:
                # In its own context, as in another worker: jobs of this context wait for the answer.
                await asyncio.create_task(reset_it(other, user), context=contextvars.Context())
                return await receive()

            await app(scope, reset_first, send)

        cookie, form = f"user_session={thief.cookie}", {"password": NEW_PASSWORD}
        answer = await ask(held_back, "POST", path, json=form, headers={**BROWSER, **JSON}, cookie=cookie)
        assert (answer.status, answer.json()["code"]) == (401, "invalid_token")
        assert await valid_passwords(other, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]


async def test_acting_session_that_ends_within_the_change_rolls_it_back(tmp_path: Path) -> None:
    """SE-16: a session that ends between its look-up and the update of its stamp rolls the change back."""
    async with workers(tmp_path, 1) as (auth,):
        user, acting = await register(auth)
        before = await auth.accounts.get(user.id)

        async def act(work: Work[User]) -> None:
            sessions = work.sessions
            load = sessions.load_by_id

            async def then_revoke(session_id: str, *, now: datetime) -> Loaded[User] | None:
                loaded = await load(session_id, now=now)
                await sessions.revoke(session_id, now=now)
                return loaded

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(sessions, "load_by_id", then_revoke)
                await auth.sessions.renew_stamp(work, user.id, acting=acting.session)

        with pytest.raises(InvalidTokenError):
            await auth.services.commit(act)
        assert await auth.accounts.get(user.id) == before
        assert await shown(auth, acting) == [EMAIL, EMAIL]


async def test_acting_session_of_an_administrator_changes_another(tmp_path: Path) -> None:
    """An acting session of another user permits the change and stays valid."""
    async with workers(tmp_path, 1) as (auth,):
        user, token = await register(auth)
        _, acting = await register(auth, OTHER_EMAIL)
        changed = await auth.accounts.change(user, {"email": "carol@mail.example.org"}, acting=acting.session)
        assert changed.email == "carol@mail.example.org"
        assert [await shown(auth, each) for each in (token, acting)] == [["-", "-"], [OTHER_EMAIL, OTHER_EMAIL]]
