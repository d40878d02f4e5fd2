"""AC-1: the five classes of pre-hijacking (Sudhodanan and Paverd, 2022). Nothing that a stranger planted survives.

A stranger creates an account for the address of another person and waits for that person.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Draft, Proof
from asgi_auth.add_ons import Confirmation
from asgi_auth.errors import AuthenticationFailedError, IdentityTakenError, InvalidTokenError, ValidationError
from asgi_auth.phases import Phase, SignedIn
from asgi_auth.senders import MemorySender
from asgi_auth.services import Services
from asgi_auth.store import Found
from asgi_auth.types import Client
from tests.add_ons.confirming import NEW_EMAIL, actions, confirm, confirmed, confirming, links, sign_in, sign_up, take
from tests.gate import Lingering
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    OTHER_SECRET,
    PASSWORD,
    SECRET,
    LocalAuthentication,
    found_of,
    is_alive,
    mailed_token,
    registration,
)
from tests.workers import resetting, valid_passwords

pytestmark = pytest.mark.anyio

FIRST, CHANGE = ("confirmation", EMAIL), ("email_change", NEW_EMAIL)
PLANTED = "planted by a stranger"
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """A provider that verifies nothing: it passes on any address that its users claim."""

    name: str = "claiming"

    def bind(self, services: Services[Any]) -> "ClaimingActions":
        return ClaimingActions(self.name, services)


class ClaimingActions:
    """Actions that register a user, or sign in an existing one."""

    def __init__(self, name: str, services: Services[Any]) -> None:
        self._name, self._services = name, services
        self.phases: list[Phase] = []

    async def come(self, email: str) -> SignedIn | None:
        """Register a user whose address the provider claims."""
        draft = Draft(act="create", strategy=self._name, fields={"email": email}, provided=True)
        found = await self._services.registrations.register(draft, password=None)
        return None if found is None else self._signed_in(found, registered=True)

    async def link(self, user: Any) -> SignedIn:
        """Sign in a user who exists."""
        found = await self._services.accounts.get(self._services.accounts.user_id(user))
        assert found is not None
        return self._signed_in(found, registered=False)

    def _signed_in(self, found: Found[Any], *, registered: bool) -> SignedIn:
        proof = Proof(account=found.account, factor=self._name, at=self._services.clock())
        return SignedIn(found.user, proof, registered=registered, settled=registered)


@pytest.fixture(params=[True, False], ids=["required", "not required"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with a password strategy and a provider, with and without a required proof."""
    auth = confirming(tmp_path, required=request.param, also=(Claiming(),))
    yield auth
    await auth.close()


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with a required proof."""
    auth = confirming(tmp_path, also=(Claiming(),))
    yield auth
    await auth.close()


async def reset(auth: LocalAuthentication, email: str = EMAIL) -> None:
    """The owner requests a reset and sets a new password."""
    await auth.strategy("password").reset_request({"email": email})
    await auth.strategy("password").reset(resetting(mailed_token(auth)))


# --- classic: a planted password -----------------------------------------------------------------------------------


async def test_planted_password_does_not_survive_a_reset(auth: LocalAuthentication) -> None:
    """Classic: after the owner's reset only the owner's password is valid."""
    await auth.strategy("password").register(registration(password=PLANTED))
    await reset(auth)
    assert await valid_passwords(auth, PLANTED, NEW_PASSWORD) == [NEW_PASSWORD]
    await sign_in(auth, password=NEW_PASSWORD)


@pytest.mark.parametrize("order", ["stranger first", "owner first"])
@pytest.mark.parametrize("clicked", ["first link", "last link"])
@pytest.mark.parametrize("apart", [timedelta(0), MINUTE], ids=["at once", "a minute apart"])
async def test_planted_password_does_not_survive_a_registration(
    strict: LocalAuthentication, order: str, clicked: str, apart: timedelta
) -> None:
    """Classic: the owner registers too, before or after, and clicks a link: both passwords are invalid, a reset works.

    A link does not show whose registration it confirms, so neither link may confirm the stranger's password.
    """
    passwords = [PLANTED, PASSWORD] if order == "stranger first" else [PASSWORD, PLANTED]
    linked = []
    for password in passwords:
        await strict.strategy("password").register(registration(password=password))
        linked += [token for _, token, _ in take(strict) if token is not None]
        strict.clock.advance(apart)
    for token in linked if clicked == "first link" else linked[::-1]:
        try:
            await confirm(strict, token)
        except InvalidTokenError:
            continue
    assert (await found_of(strict)).account.confirmed_at is not None
    assert (await found_of(strict)).account.password_hash is None
    for password in passwords:
        with pytest.raises(AuthenticationFailedError):
            await sign_in(strict, password=password)
    await reset(strict)
    await sign_in(strict, password=NEW_PASSWORD)


async def test_planted_password_does_not_survive_a_cancelled_registration(tmp_path: Path) -> None:
    """Classic: the owner registers too, and their connection is lost before the answer."""
    lingering, sender = Lingering(), MemorySender()
    auth = confirming(tmp_path, sender=sender, options={"add_ons": [lingering, Confirmation(sender=sender)]})
    await auth.strategy("password").register(registration(password=PLANTED))
    linked = links(auth)[FIRST]
    registering = asyncio.create_task(auth.strategy("password").register(registration()))
    await lingering.asked.wait()
    registering.cancel()
    lingering.over.set()
    with pytest.raises(asyncio.CancelledError):
        await registering
    await confirm(auth, linked)
    assert await valid_passwords(auth, PLANTED, PASSWORD) == []
    await auth.close()


async def test_planted_password_does_not_survive_a_new_secret(tmp_path: Path) -> None:
    """Classic: the application changes its secret between the owner's registration and their proof."""
    auth = confirming(tmp_path)
    for password in (PLANTED, PASSWORD):
        await auth.strategy("password").register(registration(password=password))
    linked = links(auth)[FIRST]
    await auth.close()
    auth = confirming(tmp_path, options={"secret": [OTHER_SECRET, SECRET]})
    await confirm(auth, linked)
    assert await valid_passwords(auth, PLANTED, PASSWORD) == []
    await auth.close()


async def test_planted_password_does_not_survive_a_refused_registration(tmp_path: Path) -> None:
    """Classic: without a required proof the owner is told that the account exists; its password is removed too.

    No second mail is sent. A user who registers twice with the same password keeps it.
    """
    auth = confirming(tmp_path, required=False)
    for passwords, left in (([PLANTED, PASSWORD], []), ([PASSWORD, PASSWORD], [PASSWORD])):
        email = EMAIL if left == [] else OTHER_EMAIL
        await auth.strategy("password").register(registration(email, passwords[0]))
        linked = links(auth)["confirmation", email]
        with pytest.raises(IdentityTakenError):
            await auth.strategy("password").register(registration(email, passwords[1]))
        assert take(auth) == []
        await confirm(auth, linked)
        assert ((await found_of(auth, email)).account.password_hash is not None) is bool(left)
    await auth.close()


async def test_stranger_who_uses_up_the_mails_gains_nothing(strict: LocalAuthentication) -> None:
    """Classic: a stranger uses up the mails of the address; the mails that were sent validate no password."""
    linked = []
    for _ in range(9):
        await strict.strategy("password").register(registration(password=PLANTED))
        linked += [token for _, token, _ in take(strict) if token is not None]
        strict.clock.advance(MINUTE)
    assert len(linked) == 5
    await strict.strategy("password").register(registration())
    assert take(strict) == []
    await confirm(strict, linked[-1])
    assert await valid_passwords(strict, PLANTED, PASSWORD) == []


async def test_registration_without_a_password_is_a_rival(strict: LocalAuthentication) -> None:
    """Classic-federated: the owner registers by a provider; the first proof removes the planted password."""
    await sign_up(strict, password=PLANTED)
    strict.clock.advance(MINUTE)
    assert await strict.strategy("claiming").come(EMAIL) is None
    await confirm(strict, links(strict)[FIRST])
    assert (await found_of(strict)).account.password_hash is None


# --- classic-federated and non-verifying provider ------------------------------------------------------------------


async def test_claim_of_a_provider_opens_no_account(auth: LocalAuthentication) -> None:
    """Non-verifying provider: a user who claims an address there cannot sign in to its account or change it."""
    if (await auth.strategy("password").register(registration())).token is None:
        await confirm(auth, links(auth)[FIRST])
    before = await found_of(auth)
    with suppress(IdentityTakenError):
        assert await auth.strategy("claiming").come(EMAIL) is None
    assert await found_of(auth) == before


async def test_provider_cannot_sign_in_to_the_account_that_it_created(strict: LocalAuthentication) -> None:
    """Non-verifying provider: a stranger who registered by it first cannot sign in; the owner's reset works."""
    result = await strict.strategy("claiming").come(EMAIL)
    assert result.token is None
    with pytest.raises(AuthenticationFailedError):
        await strict.strategy("claiming").link(result.user)
    await reset(strict)
    await sign_in(strict, password=NEW_PASSWORD)


# --- unexpired session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["reset", "confirm"])
async def test_planted_session_ends(tmp_path: Path, by: str) -> None:
    """Unexpired session: the first proof ends the stranger's cookie, bearer token and sign-in token."""
    auth = confirming(tmp_path, required=False)
    _, planted = await auth.strategy("password").register(registration(password=PLANTED))
    _, token = await auth.strategy("password").sign_in({"email": EMAIL, "password": PLANTED}, token_type="sign_in")
    linked = links(auth)[FIRST]
    if by == "reset":
        await reset(auth)
    else:
        await confirm(auth, linked)
    assert not await is_alive(auth, planted)
    with pytest.raises(InvalidTokenError):
        await auth.strategy("password").sign_in_with_token({"token": token})
    await auth.close()


# --- trojan identifier ---------------------------------------------------------------------------------------------


async def test_planted_extra_field_waits_for_its_own_proof(tmp_path: Path) -> None:
    """Trojan identifier: the stranger's phone number is not stored with the user, and its link becomes invalid."""
    auth = confirming(tmp_path, monitor_fields=("email", "phone"))
    user = await sign_up(auth, password=PLANTED, phone="+1 555 0666")
    planted = links(auth)["phone_change", "+1 555 0666"]
    await reset(auth)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, planted)
    assert (dict((await found_of(auth)).user.data), await actions(auth).pending(user)) == ({}, None)
    await auth.close()


async def test_planted_user_name_opens_nothing(tmp_path: Path) -> None:
    """Trojan identifier: the stranger's user name stays, but the stranger's password is invalid."""
    auth = confirming(tmp_path)
    await auth.accounts.create({"email": EMAIL, "username": "stranger"}, password=PLANTED)
    take(auth)
    await reset(auth)
    found = await auth.accounts.find("username", "stranger")
    assert found is not None
    assert await valid_passwords(auth, PLANTED, NEW_PASSWORD) == [NEW_PASSWORD]
    await auth.close()


# --- unexpired change of address -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["reset", "confirm"])
async def test_planted_change_of_address_ends(tmp_path: Path, by: str) -> None:
    """Unexpired e-mail change: the proof ends the link that would move the account to the stranger's mailbox."""
    auth = confirming(tmp_path, required=False)
    user, token = await auth.strategy("password").register(registration(password=PLANTED))
    first = links(auth)[FIRST]
    params = {"email": NEW_EMAIL, "current_password": PLANTED}
    await actions(auth).change_email(user, params, session=token.session)
    planted = links(auth)[CHANGE]
    if by == "reset":
        await reset(auth)
    else:
        await confirm(auth, first)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, planted)
    assert await actions(auth).pending(user) is None
    assert (await found_of(auth)).user.id == user.id
    await auth.close()


async def test_pending_change_does_not_reserve_the_address(strict: LocalAuthentication) -> None:
    """Unexpired e-mail change, reversed: the owner can register while another user's change is pending."""
    user, token = await confirmed(strict, OTHER_EMAIL)
    params = {"email": EMAIL, "current_password": PASSWORD}
    await actions(strict).change_email(user, params, session=token.session)
    planted = links(strict)["email_change", EMAIL]
    strict.clock.advance(MINUTE)
    await confirmed(strict)
    with pytest.raises(IdentityTakenError):
        await confirm(strict, planted)


# --- second registrations ------------------------------------------------------------------------------------------


async def test_fields_of_a_rival_registration_are_not_stored(strict: LocalAuthentication) -> None:
    """A second registration does not change the fields: they are as unproven as the first ones."""
    await sign_up(strict, nickname="owner")
    await strict.strategy("password").register(
        {**registration(password=PLANTED), "nickname": "stranger"}, client=Client(label="stranger")
    )
    assert dict((await found_of(strict)).user.data) == {"nickname": "owner"}


async def test_weak_password_is_refused_alike_for_a_taken_address(strict: LocalAuthentication) -> None:
    """A weak password is refused for new and taken addresses, and is not counted as a rival registration."""
    await sign_up(strict)
    for email in (EMAIL, OTHER_EMAIL):
        with pytest.raises(ValidationError):
            await strict.strategy("password").register(registration(email, "password1"))
    await confirm(strict, links(strict)[FIRST])
    await sign_in(strict)
