"""Races over separate connections: several workers on one database, in this process and in other processes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import AuthenticationFailedError, IdentityTakenError, InvalidTokenError
from asgi_auth.store import Found
from asgi_auth.testing import FakeClock
from asgi_auth.testing.stores.records import together
from asgi_auth.types import Session, User
from tests.postgres import database
from tests.served import APP, real_auth
from tests.servers import Served, uvicorn_process
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    PASSWORD,
    LocalAuthentication,
    credentials,
    register,
    registration,
)
from tests.workers import OnPostgres, OnSQLite, reset_token, resetting, shown, valid_passwords, workers

pytestmark = pytest.mark.anyio

AT_ONCE = 50
Shared = OnSQLite | OnPostgres


@pytest.fixture(params=["sqlite", "postgres"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """An empty database that workers share: SQLite and PostgreSQL."""
    if request.param == "sqlite":
        yield OnSQLite(tmp_path)
        return
    async with database() as dsn:
        yield OnPostgres(dsn)


async def race(
    auths: list[LocalAuthentication], act: Callable[[LocalAuthentication, int], Awaitable[Any]], count: int = AT_ONCE
) -> tuple[list[Any], Counter[type]]:
    """Run *act* *count* times at once; return the results of the winners and the errors of the others, counted."""
    answers = await together(act(auths[number % len(auths)], number) for number in range(count))
    lost = [answer for answer in answers if isinstance(answer, Exception)]
    return [answer for answer in answers if answer not in lost], Counter(map(type, lost))


# --- one winner ------------------------------------------------------------------------------------------------------


async def test_race_of_resets_is_won_once(shared: Shared) -> None:
    """TK-11: of 50 resets with one token one succeeds, and only its password is valid."""
    async with workers(shared) as auths:
        await register(auths[0])
        token = await reset_token(auths[0])

        async def reset(auth: LocalAuthentication, number: int) -> int:
            await auth.strategy("password").reset(resetting(token, f"{NEW_PASSWORD} {number}"))
            return number

        won, lost = await race(auths, reset)
        assert (len(won), lost) == (1, {InvalidTokenError: 49})
        tried = [PASSWORD, *(f"{NEW_PASSWORD} {number}" for number in range(AT_ONCE))]
        assert await valid_passwords(auths[1], *tried) == [f"{NEW_PASSWORD} {won[0]}"]
        notices = sum(opts["purpose"] == "password_changed" for auth in auths for _, _, opts in auth.sender.messages)
        assert notices == 1


async def test_race_of_sign_in_tokens_is_won_once(shared: Shared) -> None:
    """TK-11: 50 requests redeem one sign-in token at once; one session is created."""
    async with workers(shared) as auths:
        user, _ = await register(auths[0])
        _, token = await auths[0].strategy("password").sign_in(credentials(), token_type="sign_in")
        before = await shared.count_rows("sessions")
        won, lost = await race(auths, lambda auth, _: auth.strategy("password").sign_in_with_token({"token": token}))
        assert (len(won), lost) == (1, {InvalidTokenError: 49})
        assert won[0].user == user
        assert await shared.count_rows("sessions") == before + 1


async def test_race_of_registrations_is_won_once(shared: Shared) -> None:
    """AC-9: of 50 registrations of one address in several spellings, one creates a user."""
    async with workers(shared) as auths:
        spellings = [EMAIL, EMAIL.upper(), f" {EMAIL}", EMAIL.title()]
        won, lost = await race(auths, lambda auth, number: register(auth, spellings[number % 4]))
        assert (len(won), lost) == (1, {IdentityTakenError: 49})
        assert [await shared.count_rows(table) for table in ("users", "accounts", "sessions")] == [1, 1, 1]


async def test_race_of_password_changes_is_won_once(shared: Shared) -> None:
    """Of ten changes that began with the same account one succeeds; the others raise InvalidTokenError."""
    async with workers(shared) as auths:
        user, _ = await register(auths[0])
        found = await auths[0].accounts.get(user.id)
        assert found is not None

        async def change(auth: LocalAuthentication, number: int) -> int:
            await auth.accounts.set_password(found, f"{NEW_PASSWORD} {number}")
            return number

        won, lost = await race(auths, change, 10)
        assert (len(won), lost) == (1, {InvalidTokenError: 9})
        tried = [PASSWORD, *(f"{NEW_PASSWORD} {number}" for number in range(10))]
        assert await valid_passwords(auths[1], *tried) == [f"{NEW_PASSWORD} {won[0]}"]


async def test_race_of_disabling_enabling_or_deleting_is_won_once(shared: Shared) -> None:
    """Of ten calls that disable, enable or delete a user at once, one returns True; the old session stays invalid."""
    async with workers(shared) as auths:
        user, token = await register(auths[0])
        for act in ("disable", "enable", "delete"):
            won, lost = await race(auths, lambda auth, _, act=act: getattr(auth.accounts, act)(user.id), 10)  # type: ignore[misc]  # mypy knows no lambda with a default
            assert (sorted(won), lost) == ([False] * 9 + [True], {})
            assert await shown(auths[1], token) == ["-", "-"]


async def test_enabling_returns_false_if_another_call_was_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two calls that enable a user one returns True, even if both read the account before either writes."""
    async with database() as dsn, workers(OnPostgres(dsn), 2) as (one, other):
        user, _ = await register(one)
        await one.accounts.disable(user.id)
        renew = one.sessions.renew_stamp

        async def renew_later(*args: Any, **options: Any) -> Any:
            assert await other.accounts.enable(user.id)
            return await renew(*args, **options)

        monkeypatch.setattr(one.sessions, "renew_stamp", renew_later)
        assert not await one.accounts.enable(user.id)
        assert await valid_passwords(other, PASSWORD) == [PASSWORD]


async def test_race_of_disabling_against_enabling_leaves_no_session(shared: Shared) -> None:
    """SE-6: an earlier session is invalid afterwards, whichever call is last."""
    async with workers(shared) as auths:
        user, token = await register(auths[0])
        acts = ("disable", "enable")
        _, lost = await race(auths, lambda auth, number: getattr(auth.accounts, acts[number % 2])(user.id), 20)
        found = await auths[0].accounts.get(user.id)
        assert found is not None
        valid = await valid_passwords(auths[1], PASSWORD)
        assert (lost, valid) == ({}, [] if found.account.disabled_at else [PASSWORD])
        assert await shown(auths[1], token) == ["-", "-"]


@pytest.mark.slow
async def test_race_over_http_is_won_once(tmp_path: Path) -> None:
    """TK-11, AC-9, SE-14: of 50 requests at once to two processes one succeeds and 49 are refused.

    RL-5, RL-7: together they tell one client 20 times that an address is taken.
    """
    auth = real_auth(tmp_path)
    async with (
        auth.running(),
        uvicorn_process(*APP, directory=tmp_path) as one,
        uvicorn_process(*APP, directory=tmp_path) as other,
    ):
        servers = [one, other]
        assert await post_at_once(servers, "register", registration()) == {200: 1, 422: 20, 429: 29}
        reset = resetting(await reset_token(auth))
        assert await post_at_once(servers, "reset", reset) == {200: 1, 401: 49}
        signed_in = credentials(EMAIL, NEW_PASSWORD)
        _, token = await auth.strategy("password").sign_in(signed_in, token_type="sign_in")
        assert await post_at_once(servers, "sign_in_with_token", {"token": token}) == {200: 1, 401: 49}

        async with one.client() as here, other.client() as there:
            assert (await here.post("/auth/password/sign_in", data=signed_in)).status_code == 200
            there.cookies = here.cookies
            asking = [client.get("/me") for client in [here, there] * 10]
            answers = await asyncio.gather(*asking[:10], there.post("/auth/sign_out"), *asking[10:])
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.text for answer in answers} <= {EMAIL, "-", "Signed out"}
            headers = {"Cookie": answers[0].request.headers["Cookie"]}
            assert [(await client.get("/me", headers=headers)).text for client in (here, there)] == ["-", "-"]


async def post_at_once(servers: list[Served], phase: str, data: dict[str, str]) -> Counter[int]:
    """The statuses of 50 equal requests, half of which go to each server."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.client()) for server in servers]
        posts = (client.post(f"/auth/password/{phase}", data=data) for client in clients * (AT_ONCE // 2))
        return Counter(answer.status_code for answer in await asyncio.gather(*posts))


# --- ended sessions stay ended ---------------------------------------------------------------------------------------


async def test_race_of_requests_with_sign_out_revives_nothing(shared: Shared) -> None:
    """SE-14: requests during a sign-out are signed in or anonymous; after it, the session is invalid everywhere."""
    clock = FakeClock()
    async with workers(shared, 2, clock=clock) as auths:
        for _ in range(5):
            token = await auths[0].sign_in(await existing_user(auths[0]))
            clock.advance(timedelta(minutes=2))  # so that every request notes its time
            asking = [shown(auths[number % 2], token) for number in range(10)]
            ending = asyncio.create_task(auths[1].sessions.revoke_cookie(token.cookie))
            answers = await asyncio.gather(*asking)
            assert await ending is True
            assert {text for answer in answers for text in answer} <= {EMAIL, "-"}
            assert [await shown(auth, token) for auth in auths] == [["-", "-"]] * 2


async def test_race_of_touch_with_revoke_revives_nothing(shared: Shared) -> None:
    """A session that is used, or gets a new stamp, while it is revoked stays revoked."""
    clock = FakeClock()
    async with workers(shared, 2, clock=clock) as (one, other):
        user = await existing_user(one)

        async def log_out_the_others(acting: Session) -> None:
            with suppress(InvalidTokenError):  # it was revoked first
                await one.sessions.revoke_all(user.id, except_=acting)

        for round_ in range(10):
            session = (token := await one.sign_in(user)).session
            clock.advance(timedelta(minutes=2))
            uses = [one.sessions.touch(session), log_out_the_others(session)]
            ending = other.sessions.revoke(session.id)
            _, ended, _ = await asyncio.gather(uses[round_ % 2], ending, uses[1 - round_ % 2])
            assert ended is True
            assert await shown(other, token) == ["-", "-"]


async def test_race_of_delete_with_sign_in_leaves_no_row(shared: Shared) -> None:
    """Sign-ins while their user is deleted succeed or are refused; every token that they got is invalid."""
    async with workers(shared) as auths:
        for _ in range(3):
            user, _token = await register(auths[0])

            async def act(auth: LocalAuthentication, number: int, user: User = user) -> Any:
                if number == 5:
                    return await auth.accounts.delete(user.id)
                return await auth.strategy("password").sign_in(credentials())

            won, lost = await race(auths, act, 11)
            assert set(lost) <= {AuthenticationFailedError}
            tokens = [answer.token for answer in won if answer is not True]
            assert [await shown(auths[1], token) for token in tokens] == [["-", "-"]] * len(tokens)
            assert [await shared.count_rows(table) for table in ("users", "accounts", "sessions", "tokens")] == [0] * 4


async def existing_user(auth: LocalAuthentication) -> User:
    """Alice; the first call creates her."""
    found: Found[User] | None = await auth.accounts.find("email", EMAIL)
    return found.user if found else await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
