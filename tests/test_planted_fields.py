"""AC-1: a stranger's fields do not survive the owner's claim, on the library's tables and on own models."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asgi_auth.add_ons import APPLICATION, Confirmation, Invitation
from asgi_auth.errors import ValidationError
from asgi_auth.senders import MemorySender
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.strategies import Password, Resettable
from asgi_auth.types import UserMixin
from tests.add_ons.confirming import confirm, links, sign_in, take
from tests.stores.engines import engines, make
from tests.support import EMAIL, NEW_PASSWORD, PASSWORD, LocalAuthentication, found_of, make_auth, registration
from tests.workers import resetting

pytestmark = pytest.mark.anyio

PLANTED = {"nickname": "mallory", "town": "Moscow", "plan": "gold"}
GIVEN = {"nickname": "alice", "town": "Ayr"}
MINUTE = timedelta(minutes=1)


class Base(DeclarativeBase):
    """The base of the model, with its own metadata."""


class Person(UserMixin, Base):
    """A user with an optional field, a field with a default, and a required field."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    nickname: Mapped[str | None]
    plan: Mapped[str] = mapped_column(default="free")
    town: Mapped[str]

    @property
    def data(self) -> dict[str, Any]:
        """The extra fields, as in ``User.data``."""
        return {"nickname": self.nickname, "plan": self.plan, "town": self.town}


def build(directory: Path, **options: Any) -> LocalAuthentication:
    """An Authentication with confirmation, invitations and three fields in the registration."""
    sender = MemorySender()
    password = Password(register_fields=("nickname", "town", "plan"), resettable=Resettable(sender=sender))
    add_ons = [Confirmation(sender=sender), Invitation(sender=sender)]
    return make_auth(directory, sender=sender, strategies=[password], add_ons=add_ons, **options)


@pytest.fixture(params=["sqlite", "own_model"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication on the library's table, and one on the application's table."""
    async with engines("sqlite", tmp_path) as made:
        options: dict[str, Any] = {}
        if request.param == "own_model":
            store = SQLAlchemyStore(made(), Person)
            await make(made(), Person)
            options["store"] = store
        auth = build(tmp_path, **options)
        yield auth
        await auth.close()


def owns_its_table(auth: LocalAuthentication) -> bool:
    """Whether the store is the library's own, which does not store missing fields."""
    return not isinstance(auth.store, SQLAlchemyStore)


async def register(auth: LocalAuthentication, password: str = PASSWORD, **fields: str) -> None:
    """Register the address and advance the clock by a minute, so that the next mail is sent."""
    await auth.strategy("password").register({**registration(password=password), **fields})
    auth.clock.advance(MINUTE)


async def fields_of(auth: LocalAuthentication) -> dict[str, Any]:
    """The extra fields of the account."""
    return dict((await found_of(auth)).user.data)


async def test_invited_owner_keeps_only_what_they_gave(auth: LocalAuthentication) -> None:
    """AC-1: after a claim by registration, the user has the fields of that registration and the defaults."""
    await register(auth, "a password of mallory's", **PLANTED)
    await auth.add_on("invitation").invite(APPLICATION, EMAIL)
    shown = {"invitation_token": links(auth)["invitation", EMAIL]}
    await register(auth, **GIVEN, **shown)
    assert await fields_of(auth) == (GIVEN if owns_its_table(auth) else {**GIVEN, "plan": "free"})
    await sign_in(auth)


async def test_invited_owner_must_give_required_fields(tmp_path: Path) -> None:
    """ValidationError if a required field is missing; nothing is claimed and the invitation stays valid."""
    async with engines("sqlite", tmp_path) as made:
        await make(made(), Person)
        auth = build(tmp_path, store=SQLAlchemyStore(made(), Person))
        await register(auth, "a password of mallory's", **PLANTED)
        await auth.add_on("invitation").invite(APPLICATION, EMAIL)
        shown = {"invitation_token": links(auth)["invitation", EMAIL]}
        with pytest.raises(ValidationError) as caught:
            await register(auth, nickname="alice", **shown)
        assert caught.value.fields == {"town": "This field is required."}
        assert (await found_of(auth)).account.confirmed_at is None
        await register(auth, **GIVEN, **shown)
        await auth.close()


@pytest.mark.parametrize("proof", ["confirm", "reset"])
@pytest.mark.parametrize("rivals", [False, True])
async def test_claim_by_mail_clears_fields_of_rival_registrations(
    auth: LocalAuthentication, proof: str, rivals: bool
) -> None:
    """AC-1: a claim by mail keeps the fields, unless the address was registered more than once."""
    await register(auth, **PLANTED)
    if rivals:
        await register(auth, NEW_PASSWORD, **GIVEN)
    if proof == "confirm":
        await confirm(auth, links(auth)["confirmation", EMAIL])
    else:
        take(auth)
        await auth.strategy("password").reset_request({"email": EMAIL})
        await auth.strategy("password").reset(resetting(links(auth)["reset", EMAIL]))

    account = (await found_of(auth)).account
    assert account.confirmed_at is not None
    assert (account.password_hash is None) is (rivals and proof == "confirm")
    if not rivals:
        assert await fields_of(auth) == PLANTED
    elif owns_its_table(auth):
        assert await fields_of(auth) == {}
    else:  # required columns keep their value, or no one could claim such an account
        assert await fields_of(auth) == {"nickname": None, "plan": "free", "town": "Moscow"}
