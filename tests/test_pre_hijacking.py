"""AC-1: the five classes of pre-hijacking (Sudhodanan and Paverd, 2022): what a stranger plants the owner never gets.

A stranger makes an account for an address that is not theirs, and waits until its owner comes.
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
    """A provider that verifies nothing: it says of its users whatever they like."""

    name: str = "claiming"

    def bind(self, services: Services[Any]) -> "ClaimingActions":
        return ClaimingActions(self.name, services)


class ClaimingActions:
    """Registers, or signs in to what has the address: the latter is what no strategy must do."""

    def __init__(self, name: str, services: Services[Any]) -> None:
        self._name, self._services = name, services
        self.phases: list[Phase] = []

    async def come(self, email: str) -> SignedIn | None:
        """A user whom the provider calls by this address."""
        draft = Draft(act="create", strategy=self._name, fields={"email": email}, provided=True)
        found = await self._services.registrations.register(draft, password=None)
        return None if found is None else self._signed_in(found, registered=True)

    async def link(self, user: Any) -> SignedIn:
        """A user who was here before."""
        found = await self._services.accounts.get(self._services.accounts.user_id(user))
        assert found is not None
        return self._signed_in(found, registered=False)

    def _signed_in(self, found: Found[Any], *, registered: bool) -> SignedIn:
        proof = Proof(account=found.account, factor=self._name, at=self._services.clock())
        return SignedIn(found.user, proof, registered=registered, settled=registered)


@pytest.fixture(params=[True, False], ids=["required", "not required"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with a password strategy and a provider, where a proof is required and where it is not."""
    auth = confirming(tmp_path, required=request.param, also=(Claiming(),))
    yield auth
    await auth.close()


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """One where a proof is required."""
    auth = confirming(tmp_path, also=(Claiming(),))
    yield auth
    await auth.close()


async def reset(auth: LocalAuthentication, email: str = EMAIL) -> None:
    """The owner asks for a new password, and sets it."""
    await auth.strategy("password").reset_request({"email": email})
    await auth.strategy("password").reset(resetting(mailed_token(auth)))


# --- classic: a password that is waiting ---------------------------------------------------------------------------


async def test_planted_password_does_not_survive_a_reset(auth: LocalAuthentication) -> None:
    """Classic: the owner resets; only their password opens, and the stranger's link is dead."""
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
    """Classic: the owner registers as well, before or after, and clicks a link: neither password opens, a reset does.

    Nobody can tell from a link whose registration it is about, so that whichever is clicked must not be a stranger's.
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


async def test_planted_password_does_not_survive_a_registration_that_nobody_waits_for(tmp_path: Path) -> None:
    """Classic: the owner registers as well, and their connection is lost before there is an answer."""
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
    """Classic: the application changes its secret between the registration of the owner and their proof."""
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
    """Classic: where a proof is not required the owner is told that there is an account; its password goes as well.

    Nobody is mailed again; who tries twice with the same password keeps it.
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


async def test_strangers_cannot_use_up_the_mails(strict: LocalAuthentication) -> None:
    """Classic: a stranger who keeps the owner's mail from being sent gets nothing by the mails that were sent."""
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
    """Classic-federated: the owner comes by a provider; the password that was planted goes with the first proof."""
    await sign_up(strict, password=PLANTED)
    strict.clock.advance(MINUTE)
    assert await strict.strategy("claiming").come(EMAIL) is None
    await confirm(strict, links(strict)[FIRST])
    assert (await found_of(strict)).account.password_hash is None


# --- classic-federated and non-verifying provider ------------------------------------------------------------------


async def test_word_of_a_provider_opens_no_account(auth: LocalAuthentication) -> None:
    """Non-verifying provider: who claims an address there neither gets into its account nor adds anything to it."""
    if (await auth.strategy("password").register(registration())).token is None:
        await confirm(auth, links(auth)[FIRST])
    before = await found_of(auth)
    with suppress(IdentityTakenError):
        assert await auth.strategy("claiming").come(EMAIL) is None
    assert await found_of(auth) == before


async def test_account_that_a_provider_made_is_an_empty_shell(strict: LocalAuthentication) -> None:
    """Non-verifying provider: a stranger who came by it first is not let in, neither before nor after the owner."""
    result = await strict.strategy("claiming").come(EMAIL)
    assert result.token is None
    with pytest.raises(AuthenticationFailedError):
        await strict.strategy("claiming").link(result.user)
    await reset(strict)
    await sign_in(strict, password=NEW_PASSWORD)


# --- unexpired session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["reset", "confirm"])
async def test_planted_session_ends(tmp_path: Path, by: str) -> None:
    """Unexpired session: whatever the stranger is signed in with ends with the first proof: cookie, bearer, token."""
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
    """Trojan identifier: a number that the stranger can be reached by is not in the row, and its link dies."""
    auth = confirming(tmp_path, monitor_fields=("email", "phone"))
    user = await sign_up(auth, password=PLANTED, phone="+1 555 0666")
    planted = links(auth)["phone_change", "+1 555 0666"]
    await reset(auth)
    with pytest.raises(InvalidTokenError):
        await confirm(auth, planted)
    assert (dict((await found_of(auth)).user.data), await actions(auth).pending(user)) == ({}, None)
    await auth.close()


async def test_planted_user_name_opens_nothing(tmp_path: Path) -> None:
    """Trojan identifier: a user name that the stranger chose stays, but neither it nor its password opens anything."""
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
async def test_planted_change_of_address_dies(tmp_path: Path, by: str) -> None:
    """Unexpired e-mail change: the link that would move the account to the stranger's mailbox dies with the proof."""
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


async def test_change_to_the_address_of_another_user_waits_for_them(strict: LocalAuthentication) -> None:
    """Unexpired e-mail change, turned round: until its owner clicks, an address is theirs to register."""
    user, token = await confirmed(strict, OTHER_EMAIL)
    params = {"email": EMAIL, "current_password": PASSWORD}
    await actions(strict).change_email(user, params, session=token.session)
    planted = links(strict)["email_change", EMAIL]
    strict.clock.advance(MINUTE)
    await confirmed(strict)
    with pytest.raises(IdentityTakenError):
        await confirm(strict, planted)


# --- what the proof does not open ----------------------------------------------------------------------------------


async def test_fields_of_a_rival_registration_are_not_taken(strict: LocalAuthentication) -> None:
    """A second registration writes nothing: its fields are as unproven as those of the first."""
    await sign_up(strict, nickname="owner")
    await strict.strategy("password").register(
        {**registration(password=PLANTED), "nickname": "stranger"}, client=Client(label="stranger")
    )
    assert dict((await found_of(strict)).user.data) == {"nickname": "owner"}


async def test_weak_password_of_a_rival_is_told_alike(strict: LocalAuthentication) -> None:
    """What is refused of a new address is refused of a taken one, and counts for nothing."""
    await sign_up(strict)
    for email in (EMAIL, OTHER_EMAIL):
        with pytest.raises(ValidationError):
            await strict.strategy("password").register(registration(email, "password1"))
    await confirm(strict, links(strict)[FIRST])
    await sign_in(strict)
