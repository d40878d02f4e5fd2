"""Reauthentication: the user of a session proves the password again."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import AuthenticationFailedError, FactorRequiredError, InvalidTokenError, ValidationError
from asgi_auth.events import SessionsRevoked
from asgi_auth.strategies.password import Password
from asgi_auth.types import AccessToken
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, post
from tests.second_factor import Code
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    Events,
    LocalAuthentication,
    credentials,
    found_of,
    is_alive,
    make_auth,
    register,
)

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
RIGHT = {"password": PASSWORD}


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with a second factor that no user has enrolled, and a listener for events."""
    auth = make_auth(tmp_path, strategies=[Password(), Code()], add_ons=[Events()])
    yield auth
    await auth.close()


async def again(auth: LocalAuthentication, token: AccessToken, **params: Any) -> Any:
    return await auth.strategy("password").reauthenticate({**RIGHT, **params}, session=token.session)


async def test_reauthentication_replaces_the_session(auth: LocalAuthentication) -> None:
    """A fresh session replaces the old one, whose cookie and bearer token become invalid."""
    user, old = await register(auth)
    auth.clock.advance(HOUR)
    assert not auth.sessions.is_fresh(old.session, timedelta(minutes=15))
    same, new = await again(auth, old)
    assert same == user
    assert auth.sessions.is_fresh(new.session, timedelta(minutes=15))
    assert (await is_alive(auth, old), await is_alive(auth, new)) == (False, True)


async def test_reauthentication_emits_an_event(auth: LocalAuthentication) -> None:
    """An event with the id of the old session reports its end."""
    _, old = await register(auth)
    [hook] = [hook for hook in auth.services.hooks if isinstance(hook, Events)]
    hook.take()
    await again(auth, old)
    ended = [event for event in hook.take() if isinstance(event, SessionsRevoked)]
    assert [event.session_id for event in ended] == [old.session.id]


async def test_reauthentication_makes_a_remembered_session_fresh(auth: LocalAuthentication) -> None:
    """SE: a remembered session is never fresh, so the session that replaces it is not remembered."""
    await register(auth)
    _, old = await auth.strategy("password").sign_in({**credentials(), "remember_me": "on"})
    assert not auth.sessions.is_fresh(old.session, HOUR)
    _, new = await again(auth, old)
    assert not new.session.remembered
    assert auth.sessions.is_fresh(new.session, HOUR)


async def test_reauthentication_keeps_the_times_of_other_factors(tmp_path: Path, auth: LocalAuthentication) -> None:
    """The second factor is not required again and keeps its time."""
    await register(auth)
    strict = make_auth(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))])
    with pytest.raises(FactorRequiredError) as caught:
        await strict.strategy("password").sign_in(credentials())
    pending = caught.value.pending_token
    _, old = await strict.strategy("code").verify({"code": f"code-{EMAIL}"}, pending=pending)
    strict.clock.advance(HOUR)
    _, new = await again(strict, old)
    began = old.session.factors["code"]
    assert new.session.factors == {"password": began + HOUR, "code": began}
    await strict.close()


async def test_wrong_password_keeps_the_session(auth: LocalAuthentication) -> None:
    """A wrong or invalid password, also that of another user, is rejected; the session stays valid."""
    await auth.accounts.create({"email": OTHER_EMAIL}, password=NEW_PASSWORD)
    _, old = await register(auth)
    with pytest.raises(AuthenticationFailedError, match="wrong password"):
        await again(auth, old, password=NEW_PASSWORD)
    for password in ("", None, "\ud800"):
        with pytest.raises(ValidationError):
            await again(auth, old, password=password)
    assert await is_alive(auth, old)


async def test_user_without_a_password_cannot_reauthenticate(auth: LocalAuthentication) -> None:
    """Reauthentication of a user without a password is rejected."""
    token = await auth.sign_in(await auth.accounts.create({"email": EMAIL}))
    with pytest.raises(AuthenticationFailedError, match="no password"):
        await again(auth, token)


async def test_ended_session_is_not_replaced(auth: LocalAuthentication) -> None:
    """SE-16: a session that was revoked, or that is older than a new password, cannot reauthenticate."""
    user, old = await register(auth)
    await auth.sessions.revoke(old.session.id)
    with pytest.raises(InvalidTokenError):
        await again(auth, old)
    _, old = await auth.strategy("password").sign_in(credentials())
    await auth.accounts.set_password(await found_of(auth), PASSWORD + " again")
    with pytest.raises(AuthenticationFailedError):
        await again(auth, old, password=PASSWORD + " again")
    assert await auth.sessions.list(user.id) == []


async def test_reauthentication_over_http(auth: LocalAuthentication) -> None:
    """The client gets a new cookie; a request without a session or with a wrong password gets none."""
    _, old = await register(auth)
    plug, cookie = AuthPlug(auth), f"{auth.site.session_cookie}={old.cookie}"
    path = "/auth/password/reauthenticate"
    assert (await post(plug, path, RIGHT, headers=BROWSER)).status == 401
    wrong = await post(plug, path, {"password": NEW_PASSWORD}, headers=BROWSER, cookie=cookie)
    assert (wrong.status, wrong.all("set-cookie")) == (401, [])
    answer = await post(plug, path, RIGHT, headers=BROWSER, cookie=cookie)
    assert answer.status == 200
    assert (await auth.sessions.load(answer.cookie(auth.site.session_cookie))).session.id != old.session.id
    assert not await is_alive(auth, old)
