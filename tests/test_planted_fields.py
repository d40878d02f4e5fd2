"""AC-1: fields that a stranger gave do not survive the claim of the owner, on tables of ours and on own models."""

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
    """Its own metadata."""


class Person(UserMixin, Base):
    """One field may be empty, one has a default, one has to be given."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    nickname: Mapped[str | None]
    plan: Mapped[str] = mapped_column(default="free")
    town: Mapped[str]

    @property
    def data(self) -> dict[str, Any]:
        """As a ``User`` has it."""
        return {"nickname": self.nickname, "plan": self.plan, "town": self.town}


def build(directory: Path, **options: Any) -> LocalAuthentication:
    """Addresses are proven, people are invited, and a registration may bring three fields."""
    sender = MemorySender()
    password = Password(register_fields=("nickname", "town", "plan"), resettable=Resettable(sender=sender))
    add_ons = [Confirmation(sender=sender), Invitation(sender=sender)]
    return make_auth(directory, sender=sender, strategies=[password], add_ons=add_ons, **options)


@pytest.fixture(params=["sqlite", "own_model"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """On a table of the library's, and on one of the application's."""
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
    """Whether fields that were left out are not there at all."""
    return not isinstance(auth.store, SQLAlchemyStore)


async def register(auth: LocalAuthentication, password: str = PASSWORD, **fields: str) -> None:
    """Register the address; a later registration is a minute later, so that its mail is sent."""
    await auth.strategy("password").register({**registration(password=password), **fields})
    auth.clock.advance(MINUTE)


async def fields_of(auth: LocalAuthentication) -> dict[str, Any]:
    """The extra fields of the account."""
    return dict((await found_of(auth)).user.data)


async def test_invited_owner_keeps_only_what_they_gave(auth: LocalAuthentication) -> None:
    """AC-1: a claim by a registration has the fields of that registration, and the defaults of a new user."""
    await register(auth, "a password of mallory's", **PLANTED)
    await auth.add_on("invitation").invite(APPLICATION, EMAIL)
    shown = {"invitation_token": links(auth)["invitation", EMAIL]}
    await register(auth, **GIVEN, **shown)
    assert await fields_of(auth) == (GIVEN if owns_its_table(auth) else {**GIVEN, "plan": "free"})
    await sign_in(auth)


async def test_invited_owner_has_to_give_what_may_not_be_empty(tmp_path: Path) -> None:
    """A column without a default is a field of the form: 422, and nothing is claimed or accepted."""
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
async def test_fields_go_with_the_password_of_who_may_be_a_stranger(
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
    else:  # what may not be empty stays, or nobody could ever claim such an account
        assert await fields_of(auth) == {"nickname": None, "plan": "free", "town": "Moscow"}
