"""Races of confirmation: several workers use one database, each over its own connections."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import Confirmation
from asgi_auth.errors import AuthError, IdentityTakenError, InvalidTokenError
from asgi_auth.senders import MemorySender
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.testing.stores.records import together
from tests.add_ons.confirming import NEW_EMAIL, THIRD_EMAIL, actions, confirm, confirmed, links, mails, sign_in, sign_up
from tests.postgres import database
from tests.stores.engines import engines, make
from tests.stores.models import RENAMED, UuidUser
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    PASSWORD,
    LocalAuthentication,
    found_of,
    is_alive,
    mailed_token,
    make_auth,
    registration,
)
from tests.workers import OnPostgres, OnSQLite, resetting, workers

pytestmark = pytest.mark.anyio

Shared = OnSQLite | OnPostgres
Workers = list[LocalAuthentication]
FIRST, CHANGE, UNDO = ("confirmation", EMAIL), ("email_change", NEW_EMAIL), ("email_changed", EMAIL)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", "postgres"])
async def auths(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workers]:
    """Four workers on one empty database of each kind, with one mailbox."""
    if request.param == "sqlite":
        async with _workers(OnSQLite(tmp_path)) as made:
            yield made
        return
    async with database() as dsn, _workers(OnPostgres(dsn)) as made:
        yield made


def _parts(sender: MemorySender) -> dict[str, Any]:
    return {
        "sender": sender,
        "strategies": [Password(resettable=Resettable(sender=sender))],
        "add_ons": [Confirmation(sender=sender)],
    }


def _workers(shared: Shared) -> Any:
    return workers(shared, 4, **_parts(MemorySender()))


async def race(
    auths: Workers, *acts: Callable[[LocalAuthentication], Awaitable[Any]], count: int = 16
) -> tuple[list[Any], Counter[type]]:
    """Run *count* acts at once, in rotation; return the winners' answers and the number of losers by error."""
    answers = await together(acts[number % len(acts)](auths[number % len(auths)]) for number in range(count))
    lost = [answer for answer in answers if isinstance(answer, Exception)]
    return [answer for answer in answers if answer not in lost], Counter(map(type, lost))


async def test_race_of_confirmations_has_one_winner(auths: Workers) -> None:
    """TK-11: of 16 concurrent clicks on one link exactly one confirms."""
    await sign_up(auths[0])
    token = links(auths[0])[FIRST]
    won, lost = await race(auths, lambda auth: confirm(auth, token))
    assert (len(won), lost) == (1, {InvalidTokenError: 15})
    await sign_in(auths[1])


async def test_race_of_confirmation_and_reset_has_one_winner(auths: Workers) -> None:
    """AC-1: the first of the two invalidates the other's link; the account has the winner's password."""
    await sign_up(auths[0])
    token = links(auths[0])[FIRST]
    await auths[0].strategy("password").reset_request({"email": EMAIL})
    reset = resetting(mailed_token(auths[0]))
    won, lost = await race(
        auths, lambda auth: confirm(auth, token), lambda auth: auth.strategy("password").reset(reset), count=2
    )
    assert (len(won), lost) == (1, {InvalidTokenError: 1})
    purposes = [purpose for purpose, _ in mails(auths[0])]
    await sign_in(auths[1], password=NEW_PASSWORD if "password_changed" in purposes else PASSWORD)


async def test_race_of_pending_change_and_reset_has_one_winner(auths: Workers) -> None:
    """AC-5: either the reset or the change succeeds; the other one is rejected as a whole."""
    user, token = await confirmed(auths[0])
    params = {"email": NEW_EMAIL, "current_password": PASSWORD}
    await actions(auths[0]).change_email(user, params, session=token.session)
    linked = links(auths[0])[CHANGE]
    await auths[0].strategy("password").reset_request({"email": EMAIL})
    reset = resetting(mailed_token(auths[0]))
    won, lost = await race(
        auths, lambda auth: confirm(auth, linked), lambda auth: auth.strategy("password").reset(reset), count=2
    )
    assert (len(won), lost) == (1, {InvalidTokenError: 1})
    found = await auths[0].accounts.get(user.id)
    assert found is not None
    by_change = found.user.email == NEW_EMAIL
    await sign_in(auths[1], NEW_EMAIL if by_change else EMAIL, PASSWORD if by_change else NEW_PASSWORD)


async def test_parallel_changes_keep_link_and_address_together(auths: Workers) -> None:
    """Devise CVE-2026-32700: a link of concurrent changes sets the address that received it, or is rejected."""
    user, token = await confirmed(auths[0])
    addresses = [f"alice{number}@new.example.org" for number in range(4)]

    async def ask(auth: LocalAuthentication, email: str) -> None:
        params = {"email": email, "current_password": PASSWORD}
        await actions(auth).change_email(user, params, session=token.session)

    await together(ask(auth, email) for auth, email in zip(auths, addresses, strict=True))
    linked = {address: value for (purpose, address), value in links(auths[0]).items() if purpose == "email_change"}
    assert set(linked) == set(addresses)
    answers = await together(
        _confirmed_as(auth, address, linked[address]) for auth, address in zip(auths, addresses, strict=True)
    )
    [now] = [answer for answer in answers if isinstance(answer, str)]
    assert (await found_of(auths[0], now)).account.user_id == user.id
    assert Counter(type(answer) for answer in answers) == {str: 1, InvalidTokenError: 3}


async def _confirmed_as(auth: LocalAuthentication, address: str, token: str) -> str:
    result = await confirm(auth, token)
    assert result.user.email == address
    return address


async def test_race_of_confirmation_and_change_confirms_no_other_address(auths: Workers) -> None:
    """AC-4: a first confirmation races with a change of address; a link confirms only its own address."""
    user = await sign_up(auths[0])
    token = links(auths[0])[FIRST]
    won, _ = await race(
        auths,
        lambda auth: confirm(auth, token),
        lambda auth: auth.accounts.change(user, {"email": NEW_EMAIL}, confirmed=True),
        count=8,
    )
    assert won
    assert (await found_of(auths[0], NEW_EMAIL)).account.user_id == user.id


async def test_race_of_cancel_and_confirm_has_one_winner(auths: Workers) -> None:
    """Either the cancellation or the confirmation succeeds, never both."""
    user, token = await confirmed(auths[0])
    params = {"email": NEW_EMAIL, "current_password": PASSWORD}
    await actions(auths[0]).change_email(user, params, session=token.session)
    linked = links(auths[0])[CHANGE]
    _, lost = await race(auths, lambda auth: actions(auth).cancel(user), lambda auth: confirm(auth, linked), count=2)
    found = await auths[0].accounts.get(user.id)
    assert found is not None
    assert (found.user.email == EMAIL) is (lost == {InvalidTokenError: 1})


async def test_race_of_undo_links_restores_the_owner(auths: Workers) -> None:
    """The owner's and the thief's undo link race; the owner gets the account, whichever link is first."""
    user, token = await confirmed(auths[0])
    backs = []
    for before, email in ((EMAIL, NEW_EMAIL), (NEW_EMAIL, THIRD_EMAIL)):
        session = (await auths[0].sessions.load(token.cookie)).session
        params = {"email": email, "current_password": PASSWORD}
        await actions(auths[0]).change_email(user, params, session=session)
        await confirm(auths[0], links(auths[0])["email_change", email], session=session)
        backs.append(links(auths[0])["email_changed", before])
    owners, thiefs = backs
    won, lost = await race(
        auths,
        lambda auth: actions(auth).undo({"undo_token": thiefs}),
        lambda auth: actions(auth).undo({"undo_token": owners}),
    )
    assert set(lost) == {InvalidTokenError}
    assert len(won) in (1, 2)
    found = await found_of(auths[0])
    assert (found.account.user_id, found.account.password_hash) == (user.id, None)
    assert not await is_alive(auths[0], token)


async def test_race_of_undo_and_registration_restores_the_owner(auths: Workers) -> None:
    """A registration of the earlier address races with undo; the owner gets it, at worst by a second attempt."""
    user, token = await confirmed(auths[0])
    params = {"email": NEW_EMAIL, "current_password": PASSWORD}
    await actions(auths[0]).change_email(user, params, session=token.session)
    await confirm(auths[0], links(auths[0])[CHANGE])
    back = {"undo_token": links(auths[0])[UNDO]}
    register = registration(password=NEW_PASSWORD)
    acts = (lambda auth: actions(auth).undo(back), lambda auth: auth.strategy("password").register(register))
    _, lost = await race(auths, *acts, count=4)
    assert set(lost) <= {InvalidTokenError, IdentityTakenError}
    with suppress(InvalidTokenError):  # an undo has already won
        await actions(auths[0]).undo(back)
    assert (await found_of(auths[0])).user.id == user.id


async def test_race_of_registrations_reveals_no_winner(auths: Workers) -> None:
    """AC-9, EN-4: one of 16 registrations of an address creates the account; all answers are the same."""
    won, lost = await race(auths, lambda auth: auth.strategy("password").register(registration()))
    assert (len(won), lost) == (16, {})
    assert {result.token for result in won} == {None}
    await confirm(auths[0], links(auths[0])[FIRST])
    await sign_in(auths[1])


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_confirmation_works_with_the_applications_model(tmp_path: Path, dialect: str) -> None:
    """``SQLAlchemyStore``: register, confirm, change and undo, with a race for the first and the undo link."""
    async with engines(dialect, tmp_path) as made:
        await make(made(), UuidUser)
        store = SQLAlchemyStore(made(), UuidUser, fields=RENAMED)
        auth = make_auth(tmp_path, store=store, **_parts(MemorySender()))
        async with auth.running():
            await sign_up(auth)
            with pytest.raises(AuthError):
                await sign_in(auth)
            token = links(auth)[FIRST]
            won, lost = await race([auth], lambda auth: confirm(auth, token))
            assert (len(won), lost) == (1, {InvalidTokenError: 15})
            user, signed_in = await sign_in(auth)
            params = {"email": NEW_EMAIL, "current_password": PASSWORD}
            await actions(auth).change_email(user, params, session=signed_in.session)
            assert await actions(auth).pending(user) == {"email": NEW_EMAIL}
            await confirm(auth, links(auth)[CHANGE], session=signed_in.session)
            assert await is_alive(auth, signed_in)
            back = links(auth)[UNDO]
            await sign_up(auth, password=NEW_PASSWORD)  # another account has the old address, unconfirmed, at the undo
            won, lost = await race([auth], lambda auth: actions(auth).undo({"undo_token": back}))
            assert (len(won), lost) == (1, {InvalidTokenError: 15})
            assert not await is_alive(auth, signed_in)
            assert (await found_of(auth)).account.password_hash is None
