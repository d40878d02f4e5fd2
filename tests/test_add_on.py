"""An add-on and a second factor that use only the published contracts."""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Attempt, Draft, FactorRequired
from asgi_auth.errors import AuthenticationFailedError, FactorRequiredError, ForbiddenError, InvalidTokenError
from asgi_auth.events import Event, UserCreated
from asgi_auth.hooks import Hook
from asgi_auth.phases import Accepted, Challenge, Outcome, Phase, PhaseRequest
from asgi_auth.services import Services
from asgi_auth.store import Work
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.web.plug import AuthPlug
from tests.asgi import ask, post
from tests.second_factor import Code
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 1, tzinfo=UTC)
JSON = {"Accept": "application/json"}


# --- an add-on -------------------------------------------------------------------------------------------------------


class Club(Hook):
    """Admits registrations with the secret word, stores its members in its own table, and can ban a member."""

    name = "club"
    needs = frozenset({"tokens"})
    opens_registration = True
    banned: frozenset[str] = frozenset()
    full = False

    def __init__(self, services: Services[Any] | None = None) -> None:
        self.services = services

    def bind(self, services: Services[Any]) -> "Club":
        bound = Club(services)
        bound.phases = [
            Phase(name="info", methods=frozenset({"GET"}), handle=bound.info),
            Phase(name="leave", handle=bound.leave_phase, who="session"),
        ]
        return bound

    async def prepare(self, draft: Draft) -> Draft:
        if draft.act != "create" or draft.params.get("word") != "swordfish":
            return draft
        fields = {**draft.fields, "rank": "novice"}
        return replace(draft, invited=True, fields=fields, confirmed_at=NOW, notes={"club": "swordfish"})

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        if attempt.user.id in self.banned:
            raise AuthenticationFailedError("banned from the club")
        return None

    async def within(self, event: Event, work: Work[Any]) -> None:
        if isinstance(event, UserCreated) and event.draft.notes.get("club") == "swordfish":
            await work.connection.execute("INSERT INTO members VALUES (?)", (event.user_id,))
            if self.full:
                raise ForbiddenError("the club is full")

    async def info(self, request: PhaseRequest) -> Outcome:
        return Challenge({"club": "open"})

    async def leave_phase(self, request: PhaseRequest) -> Outcome:
        await self.leave(request.state.user.id)
        return Accepted()

    async def leave(self, user_id: str) -> Accepted:
        assert self.services is not None

        async def act(work: Work[Any]) -> None:
            await work.connection.execute("DELETE FROM members WHERE user_id = ?", (user_id,))

        await self.services.commit(act)
        return Accepted()


@pytest.fixture
async def club(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with the add-on; registration is by invitation only."""
    auth = make_auth(tmp_path, registration="invite_only", add_ons=[Club()])
    async with auth.services.store.transaction() as work:
        await work.connection.execute("CREATE TABLE members (user_id TEXT)")
    yield auth
    await auth.close()


def hook_of(auth: LocalAuthentication) -> Club:
    hook = auth.services.hooks[-1]
    assert isinstance(hook, Club)
    return hook


async def members(auth: LocalAuthentication) -> list[str]:
    async with auth.services.store.transaction() as work:
        return [row[0] for row in await work.connection.execute_fetchall("SELECT user_id FROM members")]


async def join(auth: LocalAuthentication, email: str = EMAIL) -> Any:
    return await auth.strategy("password").register({**registration(email), "word": "swordfish"})


async def test_add_on_controls_registration_and_completes_the_draft(club: LocalAuthentication) -> None:
    """``prepare`` admits an invited user, adds fields and confirms the address; strangers are rejected."""
    with pytest.raises(ForbiddenError):
        await club.strategy("password").register(registration())
    user, token = await join(club)
    assert (dict(user.data), user.confirmed_at) == ({"rank": "novice"}, NOW)
    assert await is_alive(club, token)


async def test_add_on_writes_its_own_rows_in_the_transaction(club: LocalAuthentication) -> None:
    """``within`` writes through the driver's connection; if it refuses, its row is rolled back, too."""
    user, _ = await join(club)
    assert await members(club) == [user.id]
    hook_of(club).full = True
    with pytest.raises(ForbiddenError, match="the club is full"):
        await join(club, OTHER_EMAIL)
    assert await members(club) == [user.id]
    assert await club.accounts.find("email", OTHER_EMAIL) is None


async def test_add_on_controls_every_sign_in(club: LocalAuthentication) -> None:
    """AC-3: ``admit`` is called for every kind of sign-in: password, sign-in token, and by the application."""
    user, _ = await join(club)
    _, token = await club.strategy("password").sign_in(credentials(), token_type="sign_in")
    hook_of(club).banned = frozenset({user.id})
    with pytest.raises(AuthenticationFailedError, match="banned"):
        await club.strategy("password").sign_in(credentials())
    with pytest.raises(AuthenticationFailedError, match="banned"):
        await club.strategy("password").sign_in_with_token({"token": token})
    with pytest.raises(AuthenticationFailedError, match="banned"):
        await club.sign_in(user)


async def test_add_on_has_phases_and_actions(club: LocalAuthentication) -> None:
    """An add-on's phase is served like a strategy's; a phase for signed-in users receives the user."""
    user, token = await join(club)
    plug = AuthPlug(club, app=None)
    info = await ask(plug, "GET", "/club/info", headers=JSON)
    assert (info.status, info.json()) == (200, {"status": "challenge", "club": "open"})
    nobody = await post(plug, "/club/leave", headers=JSON)
    assert (nobody.status, nobody.json()["code"]) == (401, "authentication_failed")
    forged = await post(plug, "/club/leave", headers=JSON, cookie=f"{club.site.session_cookie}=forged")
    assert (forged.status, forged.json()["code"]) == (401, "invalid_token")
    assert await members(club) == [user.id]
    left = await post(plug, "/club/leave", headers=JSON, cookie=f"{club.site.session_cookie}={token.cookie}")
    assert (left.status, await members(club)) == (200, [])
    assert await club.add_on("club").leave(user.id) == (None, None)


# --- a second factor -------------------------------------------------------------------------------------------------


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """Alice has a second factor, Bob has none; a reset signs in."""
    auth = make_auth(tmp_path)
    strategies = [
        Password(resettable=Resettable(sender=auth.sender, sign_in=True)),
        Code(enrolled=frozenset({EMAIL})),
    ]
    auth = make_auth(tmp_path, sender=auth.sender, strategies=strategies)
    for email in (EMAIL, OTHER_EMAIL):
        await auth.accounts.create({"email": email}, password=PASSWORD)
    yield auth
    await auth.close()


async def begin(auth: LocalAuthentication, **params: Any) -> str:
    """Prove the password and return the pending token."""
    return await pending_token(auth.strategy("password").sign_in({**credentials(), **params}))


async def pending_token(act: Awaitable[Any]) -> str:
    """The pending token of an act that requires the code."""
    with pytest.raises(FactorRequiredError) as caught:
        await act
    assert caught.value.factors == ("code",)
    return caught.value.pending_token


async def verify(auth: LocalAuthentication, pending: str | None, code: str = f"code-{EMAIL}") -> Any:
    return await auth.strategy("code").verify({"code": code}, pending=pending)


async def test_second_factor_is_required_of_enrolled_users(auth: LocalAuthentication) -> None:
    """Without a second factor the password is enough; with one, the result is a challenge and no session."""
    _, token = await auth.strategy("password").sign_in(credentials(OTHER_EMAIL))
    assert await is_alive(auth, token)
    pending = await begin(auth)
    user = (await found_of(auth)).user
    assert await auth.sessions.list(user.id) == []
    for use in (auth.sessions.load, auth.sessions.load_bearer):
        with pytest.raises(InvalidTokenError):
            await use(pending)


async def test_second_factor_completes_the_sign_in(auth: LocalAuthentication) -> None:
    """The session has both factors with their times and is remembered as requested at first. The token works once."""
    pending = await begin(auth, remember_me="on")
    auth.clock.advance(timedelta(minutes=1))
    user, token = await verify(auth, pending)
    assert user.email == EMAIL
    assert await is_alive(auth, token)
    assert token.session.factors == {"password": NOW, "code": NOW + timedelta(minutes=1)}
    assert token.session.remembered
    with pytest.raises(InvalidTokenError):
        await verify(auth, pending)


@pytest.mark.parametrize(("seconds", "live"), [(599, True), (600, False), (601, False)])
async def test_pending_sign_in_expires_after_ten_minutes(auth: LocalAuthentication, seconds: int, live: bool) -> None:
    """A sign-in waits ten minutes for its second factor."""
    pending = await begin(auth)
    auth.clock.advance(timedelta(seconds=seconds))
    if live:
        assert await is_alive(auth, (await verify(auth, pending)).token)
    else:
        with pytest.raises(InvalidTokenError):
            await verify(auth, pending)


async def test_wrong_code_leaves_the_sign_in_pending(auth: LocalAuthentication) -> None:
    """A wrong code does not sign in; the user can try again."""
    pending = await begin(auth)
    for code in ("code-", f"code-{OTHER_EMAIL}"):
        with pytest.raises(AuthenticationFailedError, match="wrong code"):
            await verify(auth, pending, code)
    assert await is_alive(auth, (await verify(auth, pending)).token)
    with pytest.raises(InvalidTokenError):
        await verify(auth, None)


@pytest.mark.parametrize("change", ["reset", "disable", "revoke_all"])
async def test_change_of_the_account_ends_pending_sign_in(auth: LocalAuthentication, change: str) -> None:
    """SE-16: a change of the account after the first factor ends the pending sign-in."""
    pending = await begin(auth)
    found = await found_of(auth)
    if change == "reset":
        await auth.accounts.set_password(found, NEW_PASSWORD)
    else:
        acts = {"disable": auth.accounts.disable, "revoke_all": auth.sessions.revoke_all}
        act: Any = acts[change]
        await act(found.account.user_id)
    with pytest.raises(InvalidTokenError):
        await verify(auth, pending)


async def test_other_sign_ins_require_the_second_factor_too(auth: LocalAuthentication) -> None:
    """AC-10: a sign-in token and a reset do not avoid the second factor; each consumes its token."""
    _, token = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    pending = await pending_token(auth.strategy("password").sign_in_with_token({"token": token}))
    assert await is_alive(auth, (await verify(auth, pending)).token)
    with pytest.raises(InvalidTokenError):
        await auth.strategy("password").sign_in_with_token({"token": token})
    await auth.strategy("password").reset_request({"email": EMAIL})
    params = {"reset_token": mailed_token(auth), "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    pending = await pending_token(auth.strategy("password").reset(params))
    assert await is_alive(auth, (await verify(auth, pending)).token)
    with pytest.raises(InvalidTokenError):
        await auth.strategy("password").reset(params)
    pending = await pending_token(auth.sign_in((await found_of(auth)).user, factor="sso"))
    _, token = await verify(auth, pending)
    assert set(token.session.factors) == {"sso", "code"}


async def test_registration_requires_no_second_factor(auth: LocalAuthentication) -> None:
    """Registration requires no factor that the user does not have."""
    user, token = await register(auth, "carol@mail.example.org")
    assert user.email == "carol@mail.example.org"
    assert await is_alive(auth, token)


async def test_second_factor_works_over_http(auth: LocalAuthentication) -> None:
    """SE-1: the pending sign-in has its own cookie; completing it removes that cookie and creates a new session."""
    plug = AuthPlug(auth)
    browser = {**JSON, "Sec-Fetch-Site": "same-origin"}
    first = await post(plug, "/password/sign_in", credentials(), headers=browser)
    assert (first.status, first["www-authenticate"]) == (401, f'Bearer realm="{auth.app_name}"')
    assert first.json() == {
        "type": "about:blank",
        "title": "Another step is required to sign in",
        "status": 401,
        "code": "factor_required",
        "factors": ["code"],
    }
    pending = first.cookie(auth.site.cookie("pending"))
    assert auth.site.session_cookie not in str(first.headers)
    cookie = f"{auth.site.cookie('pending')}={pending}"
    wrong = await post(plug, "/code/verify", {"code": "wrong"}, headers=browser, cookie=cookie)
    assert (wrong.status, wrong.all("set-cookie")) == (401, [])
    nobody = await post(plug, "/code/verify", {"code": f"code-{EMAIL}"}, headers=browser)
    assert nobody.status == 401
    second = await post(plug, "/code/verify", {"code": f"code-{EMAIL}"}, headers=browser, cookie=cookie)
    assert second.status == 200
    assert second.cookie(auth.site.cookie("pending")) == ""
    loaded = await auth.sessions.load(second.cookie(auth.site.session_cookie))
    assert set(loaded.session.factors) == {"password", "code"}
    again = await post(plug, "/code/verify", {"code": f"code-{EMAIL}"}, headers=browser, cookie=cookie)
    assert again.status == 401
