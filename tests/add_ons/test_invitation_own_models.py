"""Invitations with the application's own model: the four cases, and grants that are written to its table."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import APPLICATION
from asgi_auth.errors import ForbiddenError, IdentityTakenError, InvalidTokenError
from asgi_auth.store import Work
from asgi_auth.stores import SQLAlchemyStore
from tests.add_ons.inviting import (
    ROLE,
    Proving,
    invitations,
    invite,
    joining,
    make_inviting,
    member_of,
    newest_token,
    refused,
    states,
)
from tests.stores.engines import engines, make
from tests.stores.models import IntUser
from tests.support import EMAIL, NEW_PASSWORD, OTHER_EMAIL, LocalAuthentication, credentials, found_of

pytestmark = pytest.mark.anyio


async def write_role(user: IntUser, data: Mapping[str, Any], work: Work[IntUser]) -> None:
    """Store the granted role as the user's name; reject the role of an owner."""
    if data.get("role") == "owner":
        raise ForbiddenError("no owners")
    await work.users.update(user.identity, {"name": data.get("role")}, {})


@pytest.fixture(params=["sqlite", "postgresql"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An ``Authentication`` on the application's engine; unconfirmed accounts can be claimed."""
    async with engines(request.param, tmp_path) as made:
        await make(made(), IntUser)
        store: Any = SQLAlchemyStore(made(), IntUser)
        yield make_inviting(tmp_path, store=store, hooks=[Proving()], invitation={"grant": write_role})


async def role_of(auth: LocalAuthentication, email: str = EMAIL) -> Any:
    """Return the granted role."""
    user: Any = (await found_of(auth, email)).user
    return user.name


async def test_case_a_works_with_an_own_model(auth: LocalAuthentication) -> None:
    """One transaction writes the new row and the grant to the application's table; a refusal leaves no row."""
    await auth.add_on("invitation").invite(APPLICATION, EMAIL, grant={"role": "owner"})
    error = await refused(auth.strategy("password").register(joining(newest_token(auth))))
    assert isinstance(error, ForbiddenError)
    assert (await auth.accounts.find("email", EMAIL), await states(auth)) == (None, ["pending"])

    await auth.add_on("invitation").revoke(APPLICATION, (await invitations(auth))[0].id)
    token = await invite(auth, grant=ROLE)
    user, access = await auth.strategy("password").register(joining(token))
    assert (user.email, access is not None, await role_of(auth)) == (EMAIL, True, "editor")
    accepted = [each.accepted_by for each in await invitations(auth) if each.status == "accepted"]
    assert accepted == [user.identity]
    assert isinstance(await refused(auth.strategy("password").register(joining(token))), InvalidTokenError)


async def test_cases_b_and_d_work_with_an_own_model(auth: LocalAuthentication) -> None:
    """A user who has an account joins with it; another user and a registration are rejected."""
    user, other = await member_of(auth), await member_of(auth, OTHER_EMAIL)
    token = await invite(auth, grant=ROLE)
    shown = {"invitation_token": token}
    error = await refused(auth.strategy("password").register(joining(token, NEW_PASSWORD)))
    assert isinstance(error, IdentityTakenError)
    assert isinstance(await refused(auth.add_on("invitation").accept(other, shown)), ForbiddenError)
    for _ in range(2):
        await auth.add_on("invitation").accept(user, shown)
    assert (await states(auth), await role_of(auth)) == (["accepted"], "editor")
    assert (await auth.strategy("password").sign_in(credentials())).token is not None


async def test_case_c_works_with_an_own_model(auth: LocalAuthentication) -> None:
    """The claim follows the failed insert in the same transaction and replaces the password."""
    stranger: Any = await member_of(auth, confirmed=False)
    token = await invite(auth, grant=ROLE)
    auth.clock.advance(timedelta(minutes=1))
    user, access = await auth.strategy("password").register(joining(token, NEW_PASSWORD))

    assert (user.identity, access is not None) == (stranger.identity, True)
    assert (await role_of(auth), await states(auth)) == ("editor", ["accepted"])
    assert await refused(auth.strategy("password").sign_in(credentials())) is not None
