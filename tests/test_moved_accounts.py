"""An unproven new address does not give its owner the account (AC-1, AC-4).

A stranger moves a confirmed account to the address of another person and waits for that person. Or a thief moves the
owner's account to the thief's address. Both leave the same rows, so one rule must be right for both.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import Invitation
from asgi_auth.add_ons.invitation import APPLICATION
from asgi_auth.errors import AuthenticationFailedError, IdentityTakenError, InvalidTokenError
from asgi_auth.events import UserChanged, UserConfirmed
from asgi_auth.senders import MemorySender
from asgi_auth.types import AccessToken, User
from asgi_auth.web.plug import AuthPlug
from tests.add_ons.confirming import actions, confirm, confirming, links, sign_in, take
from tests.asgi import JSON, PAGE, post
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    Events,
    LocalAuthentication,
    is_alive,
    registration,
)
from tests.workers import resetting

pytestmark = pytest.mark.anyio

STRANGER, OWNED, THIRD = "stranger@mail.example.org", "owner@mail.example.org", "third@mail.example.org"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def moving(directory: Path, *more: Any, **options: Any) -> LocalAuthentication:
    """Changed addresses are stored at once, unproven; sign-in requires no proof."""
    return confirming(directory, confirm_on_update=False, add_ons=more, **{"required": False, **options})


async def proven(auth: LocalAuthentication, email: str) -> tuple[User, AccessToken]:
    """A user who has proven this address, signed in."""
    await auth.accounts.create({"email": email}, password=PASSWORD, confirmed=True)
    return await sign_in(auth, email)


async def moved(auth: LocalAuthentication, email: str, to: str) -> tuple[User, AccessToken]:
    """A user whose confirmed account was changed to another address from a session that stays valid."""
    user, token = await proven(auth, email)
    changed = await auth.accounts.change(user, {"email": to}, acting=token.session)
    return changed, token


async def reset_mailed_to(auth: LocalAuthentication, email: str) -> None:
    """Set ``NEW_PASSWORD`` with the reset link that is mailed to this address."""
    take(auth)
    await auth.strategy("password").reset_request({"email": email})
    await auth.strategy("password").reset(resetting(links(auth)["reset", email]))


async def addresses(auth: LocalAuthentication, *users: User) -> list[tuple[str | None, bool]]:
    """The address of each user, and whether it is proven."""
    found = [await auth.accounts.get(user.id) for user in users]
    return [(each.user.email, each.account.confirmed_at is not None) for each in found if each is not None]


# --- the first proof by mail frees the address -----------------------------------------------------------------------


async def by_reset(auth: LocalAuthentication) -> None:
    """The owner resets the password of an account that they believe to have."""
    with pytest.raises(InvalidTokenError) as caught:
        await reset_mailed_to(auth, OWNED)
    assert "was never confirmed" in caught.value.fields["email"]
    assert STRANGER not in str(caught.value.fields)


async def by_confirming(auth: LocalAuthentication) -> None:
    """The owner opens the confirmation link in their own browser."""
    auth.clock.advance(MINUTE)
    take(auth)
    await actions(auth).resend({"email": OWNED})
    with pytest.raises(InvalidTokenError) as caught:
        await confirm(auth, links(auth)["confirmation", OWNED])
    assert "you can register" in caught.value.fields["email"]


async def by_another_account(auth: LocalAuthentication) -> None:
    """The owner has an account with another address, and changes it to this one by a confirmation link."""
    keeping = confirming(Path(), options={"store": auth.store, "clock": auth.clock})
    user, token = await proven(keeping, THIRD)
    params = {"email": OWNED, "current_password": PASSWORD}
    await actions(keeping).change_email(user, params, session=token.session)
    await confirm(keeping, links(keeping)["email_change", OWNED])
    assert await addresses(auth, user) == [(OWNED, True)]
    await auth.accounts.delete(user.id)


Proof = Callable[[LocalAuthentication], Awaitable[None]]
PROOFS = pytest.mark.parametrize("prove", [by_reset, by_confirming, by_another_account])


@PROOFS
async def test_stranger_who_moved_to_an_address_loses_it_to_its_owner(tmp_path: Path, prove: Proof) -> None:
    """AC-1: the owner's proof gives them the address, not the stranger's account; no undo link takes it back."""
    auth = moving(tmp_path)
    stranger, token = await moved(auth, STRANGER, OWNED)
    undo = links(auth)["email_changed", STRANGER]
    await prove(auth)
    assert await addresses(auth, stranger) == [(STRANGER, True)]
    assert not await is_alive(auth, token)

    auth.clock.advance(HOUR)
    owner, _ = await proven(auth, OWNED)
    await actions(auth).undo({"undo_token": undo})
    assert owner.id != stranger.id
    assert await addresses(auth, stranger, owner) == [(STRANGER, True), (OWNED, True)]
    await sign_in(auth, OWNED)
    await auth.close()


@PROOFS
async def test_thief_who_moved_an_account_to_their_address_does_not_keep_it(tmp_path: Path, prove: Proof) -> None:
    """AC-1: a proof of the thief's mailbox returns the account to the address that its owner proved."""
    auth = moving(tmp_path)
    owner, thief = await moved(auth, STRANGER, OWNED)  # the names are the other way round, the rows are the same
    await prove(auth)
    assert await addresses(auth, owner) == [(STRANGER, True)]
    assert not await is_alive(auth, thief)
    await sign_in(auth, STRANGER)
    await reset_mailed_to(auth, STRANGER)
    await sign_in(auth, STRANGER, NEW_PASSWORD)
    await auth.close()


async def test_proof_from_a_session_of_the_account_keeps_the_address(tmp_path: Path) -> None:
    """A user who opens the link while signed in proves the address; the confirmation is no claim."""
    events = Events()
    auth = moving(tmp_path, events)
    user, token = await moved(auth, EMAIL, OTHER_EMAIL)
    mailed = links(auth)
    events.take()
    await confirm(auth, mailed["confirmation", OTHER_EMAIL], session=token.session)
    assert [event.claimed for event in events.take() if isinstance(event, UserConfirmed)] == [False]
    assert await addresses(auth, user) == [(OTHER_EMAIL, True)]
    assert await is_alive(auth, token)

    await reset_mailed_to(auth, OTHER_EMAIL)  # proven, so a reset works
    await actions(auth).undo({"undo_token": mailed["email_changed", EMAIL]})  # a thief could have confirmed it, too
    assert await addresses(auth, user) == [(EMAIL, True)]
    await auth.close()


async def test_unproven_address_signs_in_by_password_until_it_is_freed(tmp_path: Path) -> None:
    """The user signs in with the new address; after it is freed, with the earlier one and the same password."""
    auth = moving(tmp_path)
    await moved(auth, EMAIL, OTHER_EMAIL)
    await sign_in(auth, OTHER_EMAIL)
    with pytest.raises(InvalidTokenError):
        await reset_mailed_to(auth, OTHER_EMAIL)
    await sign_in(auth, EMAIL)
    with pytest.raises(AuthenticationFailedError):
        await sign_in(auth, OTHER_EMAIL)
    await auth.close()


async def test_account_falls_back_to_the_address_proven_last(tmp_path: Path) -> None:
    """The fallback is the same after several changes and a time without an address."""
    auth = moving(tmp_path)
    user, _ = await moved(auth, EMAIL, OTHER_EMAIL)
    for email in (THIRD, None, OWNED):
        await auth.accounts.change(user, {"email": email})
    await by_reset(auth)
    assert await addresses(auth, user) == [(EMAIL, True)]
    await auth.close()


@pytest.mark.parametrize("vouch", ["confirm", "change"])
async def test_address_that_the_application_confirms_is_proven(tmp_path: Path, vouch: str) -> None:
    """A reset works for an address that the application confirmed."""
    auth = moving(tmp_path)
    user, _ = await moved(auth, EMAIL, OTHER_EMAIL)
    if vouch == "confirm":
        assert await auth.accounts.confirm(user.id)
    else:
        await auth.accounts.change(user, {"email": OTHER_EMAIL + ".au"}, confirmed=True)
        await auth.accounts.change(user, {"email": OTHER_EMAIL}, confirmed=True)
    await reset_mailed_to(auth, OTHER_EMAIL)
    await sign_in(auth, OTHER_EMAIL, NEW_PASSWORD)
    await auth.close()


async def test_refused_reset_of_a_moved_account_is_explained_over_http(tmp_path: Path) -> None:
    """Page and problem details say that the address was never confirmed, and do not name the earlier one."""
    told = "was never confirmed"
    for headers in (PAGE, JSON):
        auth = moving(tmp_path, sender=MemorySender())
        user, _ = await moved(auth, EMAIL, OTHER_EMAIL)
        take(auth)
        await auth.strategy("password").reset_request({"email": OTHER_EMAIL})
        sent = resetting(links(auth)["reset", OTHER_EMAIL])
        answer = await post(AuthPlug(auth), "/password/reset", sent, headers=headers)
        assert (answer.status, told in answer.text, EMAIL in answer.text) == (401, True, False)
        again = await post(AuthPlug(auth), "/password/reset", sent, headers=headers)
        assert (again.status, told in again.text) == (401, False)
        await auth.accounts.delete(user.id)
        await auth.close()


async def test_two_proofs_at_once_free_the_address_once(tmp_path: Path) -> None:
    """A second proof after the first one does not free the address again."""
    events = Events()
    auth = moving(tmp_path, events)
    user, _ = await moved(auth, EMAIL, OTHER_EMAIL)
    found = await auth.accounts.get(user.id)
    assert found is not None
    events.take()
    for _ in range(2):
        with pytest.raises(InvalidTokenError):
            await auth.accounts.set_password(found, NEW_PASSWORD, proves_mailbox=True)
    assert len([event for event in events.take() if isinstance(event, UserChanged)]) == 1
    await auth.close()


# --- the earlier address ----------------------------------------------------------------------------------------------


async def test_earlier_address_that_another_user_proved_is_not_restored(tmp_path: Path) -> None:
    """The account then has no address, and the undo link is refused."""
    auth = moving(tmp_path)
    user, _ = await moved(auth, STRANGER, OWNED)
    undo = links(auth)["email_changed", STRANGER]
    auth.clock.advance(HOUR)
    other, _ = await proven(auth, STRANGER)
    await by_reset(auth)
    assert await addresses(auth, user, other) == [(None, False), (STRANGER, True)]
    with pytest.raises(IdentityTakenError):
        await actions(auth).undo({"undo_token": undo})
    await auth.close()


async def test_earlier_address_that_another_user_did_not_prove_is_restored(tmp_path: Path) -> None:
    """A user without a proof loses the address: they fall back to their own proven one, or have none."""
    auth = moving(tmp_path)
    user, _ = await moved(auth, STRANGER, OWNED)
    second, _ = await moved(auth, THIRD, STRANGER)
    auth.clock.advance(HOUR)
    squatter = await sign_up_signed_in(auth, THIRD)
    await by_reset(auth)
    assert await addresses(auth, user, second, squatter) == [(STRANGER, True), (THIRD, True), (None, False)]
    await auth.close()


async def test_fallbacks_of_accounts_with_each_others_address_end(tmp_path: Path) -> None:
    """The second account has no address: its earlier address is the one that is freed."""
    auth = moving(tmp_path)
    first, _ = await moved(auth, STRANGER, THIRD)
    second, _ = await moved(auth, OWNED, STRANGER)
    await auth.accounts.change(first, {"email": OWNED})
    await by_reset(auth)
    assert await addresses(auth, first, second) == [(STRANGER, True), (None, False)]
    await auth.close()


async def test_disabled_account_keeps_its_address(tmp_path: Path) -> None:
    """IN-4: an invitation cannot claim the address of a disabled account; the account keeps it."""
    sender = MemorySender()
    auth = moving(tmp_path, Invitation(sender=sender), sender=sender)
    user, _ = await moved(auth, STRANGER, OWNED)
    await auth.accounts.disable(user.id)
    await auth.add_on("invitation").invite(APPLICATION, OWNED)
    invited = {**registration(OWNED), "invitation_token": links(auth)["invitation", OWNED]}
    with pytest.raises(IdentityTakenError):
        await auth.strategy("password").register(invited)
    assert await addresses(auth, user) == [(OWNED, False)]
    await auth.close()


async def sign_up_signed_in(auth: LocalAuthentication, email: str) -> User:
    """Register and sign in; no confirmation is required."""
    user, _ = await auth.strategy("password").register(registration(email))
    assert isinstance(user, User)
    return user


# --- by invitation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("required", [False, True])
async def test_invited_owner_gets_an_account_of_their_own(tmp_path: Path, required: bool) -> None:
    """AC-1: the invitation proves the mailbox: the stranger who moved there loses the address and nothing more."""
    sender = MemorySender()
    auth = moving(tmp_path, Invitation(sender=sender), sender=sender, required=required)
    stranger, token = await moved(auth, STRANGER, OWNED)
    undo = links(auth)["email_changed", STRANGER]
    await auth.add_on("invitation").invite(APPLICATION, OWNED)
    invited = links(auth)["invitation", OWNED]
    view = await auth.add_on("invitation").view({"invitation_token": invited})
    assert view.data["to_do"] == "register"

    owner, _ = await auth.strategy("password").register(
        {**registration(OWNED, NEW_PASSWORD), "invitation_token": invited}
    )
    assert owner.id != stranger.id
    assert not await is_alive(auth, token)
    await actions(auth).undo({"undo_token": undo})
    assert await addresses(auth, stranger, owner) == [(STRANGER, True), (OWNED, True)]
    await sign_in(auth, OWNED, NEW_PASSWORD)
    await auth.close()


# --- links that survive a change of the stamp -------------------------------------------------------------------------


async def test_claim_ends_the_undo_links(tmp_path: Path) -> None:
    """AC-1: after the owner of the mailbox claimed the account, an older undo link is invalid."""
    auth = moving(tmp_path)
    stranger, _ = await moved(auth, STRANGER, OWNED)
    undo = links(auth)["email_changed", STRANGER]
    auth.clock.advance(HOUR)
    second, _ = await proven(auth, STRANGER)
    await by_reset(auth)  # now the stranger's first account has no address and no fallback
    await auth.accounts.change(stranger, {"email": OWNED})
    await reset_mailed_to(auth, OWNED)  # so that this is a claim
    await auth.accounts.delete(second.id)
    with pytest.raises(InvalidTokenError):
        await actions(auth).undo({"undo_token": undo})
    assert await addresses(auth, stranger) == [(OWNED, True)]
    await auth.close()


async def reset(auth: LocalAuthentication, user: User) -> None:
    await reset_mailed_to(auth, str(user.email))


async def log_out_everywhere(auth: LocalAuthentication, user: User) -> None:
    await auth.sessions.revoke_all(user.id)


async def move_on(auth: LocalAuthentication, user: User) -> None:
    await auth.accounts.change(user, {"email": THIRD})


async def disable_and_enable(auth: LocalAuthentication, user: User) -> None:
    await auth.accounts.disable(user.id)
    with pytest.raises(InvalidTokenError):
        await actions(auth).undo({"undo_token": auth.undo})  # type: ignore[attr-defined]
    await auth.accounts.enable(user.id)


async def delete(auth: LocalAuthentication, user: User) -> None:
    await auth.accounts.delete(user.id)


async def wait_a_week(auth: LocalAuthentication, user: User) -> None:
    auth.clock.advance(timedelta(days=7))


@pytest.mark.parametrize(
    ("happens", "lives"),
    [
        (reset, True),
        (log_out_everywhere, True),
        (move_on, True),
        (disable_and_enable, True),
        (delete, False),
        (wait_a_week, False),
    ],
)
async def test_undo_link_ends_only_with_its_account_or_its_lifetime(tmp_path: Path, happens: Any, lives: bool) -> None:
    """AC-5: after any act of a thief except a deletion, the owner can undo the change of the address for a week."""
    auth = moving(tmp_path)
    user, token = await moved(auth, EMAIL, OTHER_EMAIL)
    mailed = links(auth)
    await confirm(auth, mailed["confirmation", OTHER_EMAIL], session=token.session)
    auth.undo = mailed["email_changed", EMAIL]  # type: ignore[attr-defined]
    await happens(auth, user)
    if lives:
        await actions(auth).undo({"undo_token": mailed["email_changed", EMAIL]})
        assert await addresses(auth, user) == [(EMAIL, True)]
    else:
        with pytest.raises(InvalidTokenError):
            await actions(auth).undo({"undo_token": mailed["email_changed", EMAIL]})
    await auth.close()
