"""Rules of an application's own model: a value that breaks one is a 422 that names the field, and changes nothing."""

import enum
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Dialect,
    ForeignKey,
    Index,
    Interval,
    Numeric,
    SmallInteger,
    String,
    TypeDecorator,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship, validates

from asgi_auth.add_ons import APPLICATION, Confirmation, Invitation
from asgi_auth.errors import IdentityTakenError, StoreUnavailableError, ValidationError
from asgi_auth.senders import MemorySender
from asgi_auth.store import ScopedStore
from asgi_auth.stores import SQLAlchemyStore
from asgi_auth.stores.sqlalchemy import make_tables
from asgi_auth.stores.sqlalchemy.broken import RuleError
from asgi_auth.strategies import Password, Resettable
from asgi_auth.testing.stores.records import NOW
from asgi_auth.testing.stores.users import register
from asgi_auth.types import Account, UserMixin
from tests.add_ons.confirming import links
from tests.stores.engines import engines, make
from tests.support import EMAIL, NEW_PASSWORD, LocalAuthentication, make_auth, registration

pytestmark = pytest.mark.anyio

INVALID = "This value is invalid."
REQUIRED = "This field is required."
TOO_LONG = "This text is too long."
SOME = {"user": "Some of the values are invalid."}


class Base(DeclarativeBase):
    """The base of the models of this file."""


class Colour(enum.Enum):
    """An enum of the application."""

    RED = 1
    BLUE = 2


class Reversed(TypeDecorator[str]):
    """A text that the database stores in another form, and that has a rule of its own."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The stored form."""
        if value == "forbidden":
            raise ValueError(value)
        return value if value is None else f"{value}{value}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The value for a stored form."""
        return value if value is None else value[: len(value) // 2]


class Country(Base):
    """A row that users refer to."""

    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True)


class Player(UserMixin, Base):
    """A user with every kind of rule."""

    __tablename__ = "players"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    phone: Mapped[str | None] = mapped_column("phone_number", unique=True)
    nick: Mapped[str | None] = mapped_column(CheckConstraint("length(nick) > 2 AND nick <> 'town'", name="nick_length"))
    badge: Mapped[int | None] = mapped_column(CheckConstraint("badge > 0"))
    low: Mapped[int | None]
    high: Mapped[int | None]
    team: Mapped[str | None]
    number: Mapped[int | None]
    town: Mapped[str] = mapped_column(String(5))
    colour: Mapped[Colour | None]
    handle: Mapped[str | None]
    level: Mapped[int | None] = mapped_column(SmallInteger)
    points: Mapped[int | None] = mapped_column(BigInteger)
    score: Mapped[Decimal | None] = mapped_column(Numeric(4, 2))
    ratio: Mapped[float | None]
    active: Mapped[bool | None]
    born: Mapped[date | None]
    joined: Mapped[datetime | None]
    wakes: Mapped[time | None]
    rests: Mapped[timedelta | None] = mapped_column(Interval)
    code: Mapped[str | None] = mapped_column(Reversed(8))
    motto: Mapped[str | None]
    country_id: Mapped[int | None] = mapped_column(ForeignKey("countries.id"))
    country: Mapped[Country | None] = relationship()
    __table_args__ = (
        CheckConstraint("low < high", name="low_below_high"),
        UniqueConstraint("team", "number", name="one_shirt"),
        Index("one_handle", text("lower(handle)"), unique=True),
    )

    @validates("motto")
    def check_motto(self, _: str, motto: str | None) -> str | None:
        """A rule in Python, as SQLAlchemy's documentation writes one."""
        if motto == "hunter2":
            raise ValueError(motto)
        if motto == "?":
            raise ValidationError(fields={"motto": "Say a little more."})
        return motto


FIELDS: dict[str, Any] = {
    "mobile": "phone",
    "age": (lambda user: user.badge, lambda value: {"badge": int(value)}),
}

BROKEN: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"mobile": "1"}, {"mobile": "This value is already in use."}),
    ({"team": "Ayr", "number": 7}, dict.fromkeys(("team", "number"), "This combination is already in use.")),
    ({"handle": "ALICE"}, {"handle": "This value is already in use."}),
    ({"nick": "x"}, {"nick": INVALID}),
    ({"age": "-1"}, {"age": INVALID}),
    ({"age": "x"}, {"age": INVALID}),
    ({"low": 2, "high": 1}, {"low": INVALID, "high": INVALID}),
    ({"town": None}, {"town": REQUIRED}),
    ({"town": "Glasgow"}, {"town": TOO_LONG}),
    ({"town": 7}, {"town": "Enter a text."}),
    ({"colour": "green"}, {"colour": "Choose one of the supported values."}),
    ({"level": "7"}, {"level": "Enter a whole number."}),
    ({"level": 2**70}, {"level": "This value cannot be stored."}),
    ({"points": 2.5}, {"points": "Enter a whole number."}),
    ({"ratio": "much"}, {"ratio": "Enter a number."}),
    ({"active": "perhaps"}, {"active": INVALID}),
    ({"born": "1999-12-31"}, {"born": INVALID}),
    ({"joined": 5}, {"joined": INVALID}),
    ({"wakes": "at six"}, {"wakes": INVALID}),
    ({"rests": 8}, {"rests": INVALID}),
    ({"code": "forbidden"}, {"code": INVALID}),
    ({"motto": "hunter2", "nick": "fine"}, {"motto": INVALID}),
    ({"motto": "?"}, {"motto": "Say a little more."}),
    ({"country_id": 99, "nick": "fine"}, {"country_id": "This value does not exist."}),
]
"""Changes that break a rule, each with its problems by field. One answer has several problems where possible."""

ONLY_POSTGRES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"level": 2**15}, {"level": "This number is too large or too small."}),
    ({"low": -(2**31) - 1}, {"low": "This number is too large or too small."}),
    ({"code": "abcde"}, {"code": TOO_LONG}),
    ({"score": 1000, "nick": None, "code": text("'fine'")}, SOME),
    ({"score": 1000}, {"score": INVALID}),
]


class Taken(UserMixin, Base):
    """A user whose table makes addresses, names and two more values unique."""

    __tablename__ = "taken"
    id: Mapped[int] = mapped_column(primary_key=True)
    mail: Mapped[str | None] = mapped_column("mail_address", unique=True)
    login: Mapped[str | None]
    tenant: Mapped[int] = mapped_column(default=1)
    backup_email: Mapped[str | None] = mapped_column(unique=True)
    nick: Mapped[str | None] = mapped_column(unique=True, index=True)
    __table_args__ = (
        UniqueConstraint("login", "tenant", name="one_login"),
        Index(
            "one_tenant", "tenant", unique=True, sqlite_where=text("tenant > 1"), postgresql_where=text("tenant > 1")
        ),
    )


NAMED: dict[str, Any] = {"email": "mail", "username": "login"}


class Built(MappedAsDataclass, DeclarativeBase):
    """A base of models whose constructors require their parameters."""


class Built1(UserMixin, Built):
    """A user whose id the database makes, although the constructor requires one."""

    __tablename__ = "built"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    nick: Mapped[str]
    plan: Mapped[str] = mapped_column(default="free", init=False)


for model in (Player, Taken):
    make_tables(model, prefix=f"{model.__tablename__}_")


@asynccontextmanager
async def opened(dialect: str, directory: Path, model: Any, **options: Any) -> AsyncIterator[tuple[Any, AsyncEngine]]:
    """A store of the model on a new database, and the engine."""
    async with engines(dialect, directory) as made:
        tables = make_tables(model, prefix=f"{model.__tablename__}_")
        await make(made(), model)
        yield SQLAlchemyStore(made(), model, tables=tables, **options), made()


@pytest.fixture(params=["sqlite", "postgresql"])
async def players(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ScopedStore[Any]]:
    """A store with one player, who has a value in every unique column."""
    async with opened(request.param, tmp_path, Player, fields=FIELDS) as (store, _):
        scoped = store.scope("user")
        once = {"mobile": "1", "team": "Ayr", "number": 7, "handle": "alice"}
        await add(scoped, "1@x.org", colour=Colour.RED, active=True, code="abc", **once)
        yield scoped


async def add(scoped: Any, email: str, **fields: Any) -> Any:
    """Add a player with these fields, and with a town if none is given."""
    return await register(scoped, "", **{"email": email, "town": "Ayr", **fields})


async def added_in_a_transaction(scoped: ScopedStore[Any], **fields: Any) -> None:
    """Add a player in a transaction."""
    async with scoped.transaction() as work:
        await add(work, "2@x.org", **fields)


async def refused(act: Awaitable[Any], expected: type[ValidationError] = ValidationError) -> dict[str, str]:
    """The problems of a rejected act. Neither the error nor its cause and context contain a value."""
    with pytest.raises(ValidationError) as caught:
        await act
    assert type(caught.value) is expected
    assert "hunter2" not in repr((caught.value, caught.value.__cause__, caught.value.__context__))
    return dict(caught.value.fields)


async def test_broken_rules_name_their_fields(players: ScopedStore[Any], request: pytest.FixtureRequest) -> None:
    """A new user or a change that breaks a rule is rejected, with a sentence for each field. Nothing is changed."""
    bob = await add(players, "bob@x.org", town="Perth")
    bob_id = bob.account.user_id
    before = players.users.values(bob.user)
    postgres = "postgresql" in request.node.name
    for fields, problems in [*BROKEN, *(ONLY_POSTGRES if postgres else ())]:
        assert await refused(add(players, "eve@x.org", **fields)) == problems
        assert await refused(players.users.update(bob_id, fields, {})) == problems
    assert await players.users.find("email", "eve@x.org") is None
    found = await players.users.get(bob_id)
    assert found is not None
    assert players.users.values(found.user) == before
    assert await add(players, "eve@x.org", low=1, high=2, colour="BLUE", rests=timedelta(hours=8))


async def test_all_problems_are_in_one_answer(players: ScopedStore[Any]) -> None:
    """Problems that Python can find are all reported in one answer, for all fields."""
    wrong: dict[str, Any] = {"town": "Glasgow", "level": "x", "shoe": 44}
    assert await refused(add(players, "eve@x.org", **wrong)) == {
        "town": TOO_LONG,
        "level": "Enter a whole number.",
        "shoe": "This is not supported here.",
    }


async def test_rejected_change_leaves_the_transaction_usable(players: ScopedStore[Any]) -> None:
    """A claim that cannot reset every column tries again in the same transaction, with the values that it must keep."""
    bob_id = (await add(players, "bob@x.org")).account.user_id
    email, fields = {"email": "bob@x.org"}, {"email": "bob@x.org", "town": "Ayr"}
    eve_id = (await add(players, "eve@x.org")).account.user_id
    async with players.transaction() as work:
        await work.users.update(eve_id, {"nick": "before"}, {})
        assert await refused(work.users.replace(bob_id, {**fields, "mobile": "1"}, email)) == {
            "mobile": "This value is already in use."
        }
        assert await work.users.replace(bob_id, {**fields, "mobile": "2"}, email)
    found = await players.users.get(eve_id)
    assert found is not None
    assert found.user.nick == "before"


async def test_rejection_by_a_listener_names_no_field(players: ScopedStore[Any]) -> None:
    """A listener that rejects a row before it is written does not name a field."""

    def refuse(*_: Any) -> None:
        raise ValueError("hunter2")

    event.listen(Player, "before_insert", refuse)
    try:
        assert await refused(add(players, "eve@x.org")) == SOME
    finally:
        event.remove(Player, "before_insert", refuse)


TRIGGERS = {
    "sqlite": [
        "CREATE TRIGGER no_eve BEFORE INSERT ON players WHEN new.email = 'eve@x.org' "
        "BEGIN SELECT RAISE(ABORT, 'hunter2'); END",
    ],
    "postgresql": [
        "CREATE FUNCTION no_eve() RETURNS trigger AS $$ BEGIN IF new.email = 'eve@x.org' THEN "
        "RAISE EXCEPTION 'hunter2'; END IF; RETURN new; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER no_eve BEFORE INSERT ON players FOR EACH ROW EXECUTE FUNCTION no_eve()",
    ],
}
LATER = {
    "sqlite": ["CREATE UNIQUE INDEX players_town_later ON players (lower(town)) WHERE town = 'Perth'"],
    "postgresql": [
        "ALTER TABLE players ADD CONSTRAINT players_points_check CHECK (points > 0)",
        "ALTER TABLE players ADD CONSTRAINT deferred UNIQUE (level) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE players ADD CONSTRAINT some_rule CHECK (ratio > 0)",
    ],
}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_rules_that_only_the_database_has_are_reported(tmp_path: Path, dialect: str) -> None:
    """Broken rules of triggers and of migrations are reported, with the field if the rule's name gives it."""
    async with opened(dialect, tmp_path, Player, fields=FIELDS) as (store, engine):
        async with engine.begin() as connection:
            for statement in TRIGGERS[dialect] + LATER[dialect]:
                await connection.exec_driver_sql(statement)
        scoped = store.scope("user")
        assert await refused(add(scoped, "eve@x.org")) == SOME
        await add(scoped, "1@x.org", town="Perth", level=1)
        broken: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({"town": "Perth"}, {"town": "This value is already in use."})
        ]
        if dialect == "postgresql":
            broken = [({"points": 0}, {"points": INVALID}), ({"ratio": -1.0}, SOME)]
            broken.append(({"level": 1}, SOME))  # reported at the commit; the name of the rule gives no field
        for fields, problems in broken:
            assert await refused(add(scoped, "2@x.org", **fields)) == problems
            assert await refused(added_in_a_transaction(scoped, **fields)) == problems


# --- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_unique_identity_of_the_model_is_a_taken_identity(tmp_path: Path, dialect: str) -> None:
    """An address or a name that the application makes unique is an identity, as in the library's own tables. No other
    column is an identity, under any name."""
    async with opened(dialect, tmp_path, Taken, fields=NAMED) as (store, _):
        users = store.scope("user").users

        async def insert(number: int, **fields: Any) -> Any:
            values = {"email": f"{number}@x.org", "username": f"{number}", **fields}
            return await users.insert("", values, {"email": f"{number}"}, Account(user_id="", stamp=b"s" * 16), now=NOW)

        first = await insert(1, backup_email="b@x.org", nick="ann", tenant=1)
        for field, value in (("email", "1@x.org"), ("username", "1")):
            problems = await refused(insert(2, **{field: value}), IdentityTakenError)
            assert list(problems) == [field]
        nick = {"nick": "This value is already in use."}
        backup = {"backup_email": "This value is already in use."}
        assert await refused(insert(2, backup_email="b@x.org")) == backup
        assert await users.update(first.account.user_id, {"nick": "ann", "username": "new"}, {})

        # EN-4: the answer names the value that is in use, for a free address and for an address in use.
        for email in ("1@x.org", "2@x.org"):
            wrong = {"email": email, "nick": "ann", "backup_email": "b@x.org"}
            assert await refused(insert(2, **wrong)) == {**nick, **backup}
        second = (await insert(2)).account.user_id
        assert await refused(users.update(second, {"email": "1@x.org", "nick": "ann"}, {})) == nick


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_taken_value_hides_whether_the_address_is_taken(tmp_path: Path, dialect: str) -> None:
    """EN-4: a registration with a value that is in use gets the same answer for every address."""
    async with opened(dialect, tmp_path, Taken, fields=NAMED) as (store, _):
        sender = MemorySender()
        password = Password(register_fields=["nick"], resettable=Resettable(sender=sender))
        auth = make_auth(
            tmp_path, sender=sender, store=store, strategies=[password], add_ons=[Confirmation(sender=sender)]
        )
        action = auth.strategy("password")
        await action.register({**registration(), "nick": "ann"})
        answers = [
            await refused(action.register({**registration(email), "nick": "ann"}))
            for email in (EMAIL, "stranger@mail.example.org")
        ]
        assert answers == [{"nick": "This value is already in use."}] * 2
        await auth.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_id_in_use_is_a_failure_of_the_server(tmp_path: Path, dialect: str) -> None:
    """The server makes ids; no form contains one. An id that is in use is a failure of the server."""
    async with opened(dialect, tmp_path, Player, fields=FIELDS) as (store, engine):
        async with engine.begin() as connection:
            await connection.execute(Player.__table__.insert().values(id=1, email="1@x.org", town="Ayr"))  # type: ignore[attr-defined]
        event.listen(Player, "before_insert", _give_id)
        try:
            with pytest.raises(StoreUnavailableError, match=r"^sqlalchemy: unique"):
                await add(store.scope("user"), "2@x.org")
        finally:
            event.remove(Player, "before_insert", _give_id)


def _give_id(_: Any, __: Any, player: Player) -> None:
    player.id = 1


# --- constructors ----------------------------------------------------------------------------------------------------


async def test_form_requires_the_parameters_of_the_constructor(tmp_path: Path) -> None:
    """The form requires the parameters that the constructor requires, except an id that the database makes."""
    async with opened("sqlite", tmp_path, Built1) as (store, _):
        scoped = store.scope("user")
        assert await refused(register(scoped, "", email="1@x.org")) == {"nick": REQUIRED}
        built = await register(scoped, "", email="1@x.org", nick="ann", plan="gold")
        assert (built.user.id, built.user.nick, built.user.plan) == (1, "ann", "gold")


# --- rows of the application, and the end of a transaction ------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_broken_rule_of_another_table_is_a_failure_of_the_server(tmp_path: Path, dialect: str) -> None:
    """If a hook adds a row that breaks a rule of another table, it is a failure of the server."""
    async with opened(dialect, tmp_path, Player, fields=FIELDS) as (store, _):
        with pytest.raises(RuleError) as broken:
            async with store.scope("user").transaction() as work:
                work.connection.add_all([Country(id=1), Country(id=1)])
        assert broken.value.broken.table in ("countries", "")


# --- with strategies and add-ons --------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
async def auth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """Registrations with extra fields, and invitations. A change of one field waits for a proof."""
    async with opened(request.param, tmp_path, Player, fields=FIELDS) as (store, _):
        sender = MemorySender()
        add_ons = [
            Confirmation(sender=sender, required=False),
            Confirmation(name="phone", monitor_fields=["mobile"], sender=sender, required=False),
            Invitation(sender=sender),
        ]
        password = Password(register_fields=["mobile", "handle", "nick", "town"], resettable=Resettable(sender=sender))
        auth = make_auth(tmp_path, sender=sender, store=store, strategies=[password], add_ons=add_ons)
        yield auth
        await auth.close()


async def test_rejected_registration_keeps_the_invitation(auth: LocalAuthentication) -> None:
    """A registration that breaks a rule does not accept its invitation. The same link works for the next attempt."""
    await auth.accounts.create({"email": "1@mail.example.org", "town": "Ayr", "handle": "alice"})
    await auth.add_on("invitation").invite(APPLICATION, EMAIL)
    shown = {**registration(), "town": "Ayr", "invitation_token": links(auth)["invitation", EMAIL]}
    action = auth.strategy("password")
    assert await refused(action.register({**shown, "handle": "Alice"})) == {"handle": "This value is already in use."}
    assert await refused(action.register({**shown, "nick": "x"})) == {"nick": INVALID}
    assert await refused(action.register({**shown, "town": "Glasgow"})) == {"town": TOO_LONG}
    assert await auth.accounts.find("email", EMAIL) is None
    await action.register({**shown, "handle": "bob"})
    found = await auth.accounts.find("email", EMAIL)
    assert found is not None
    assert found.account.confirmed_at is not None


async def test_value_in_use_at_its_proof_is_rejected(auth: LocalAuthentication) -> None:
    """A change that waited for its proof is rejected, with the field, if another user has the value by then."""
    await auth.strategy("password").register({**registration(), "town": "Ayr", "mobile": "5"})
    await add(auth.services.store, "1@mail.example.org", mobile="5")
    token = links(auth)["mobile_change", "5"]
    assert await refused(auth.add_on("phone").confirm({"confirmation_token": token})) == {
        "mobile": "This value is already in use."
    }


async def test_change_that_breaks_a_rule_is_rejected(auth: LocalAuthentication) -> None:
    """A change by the application is rejected, with the field. The user is unchanged."""
    user = await auth.accounts.create({"email": EMAIL, "town": "Ayr", "nick": "alice"})
    assert await refused(auth.accounts.change(user, {"nick": "x"})) == {"nick": INVALID}
    found = await auth.accounts.get(user)
    assert found is not None
    assert found.user.nick == "alice"  # type: ignore[attr-defined]


async def test_claim_that_a_trigger_forbids_is_rejected(tmp_path: Path) -> None:
    """If a trigger forbids a claim to reset the fields of a stranger, the claim is rejected. Nothing is confirmed."""
    async with opened("sqlite", tmp_path, Taken, fields=NAMED) as (store, engine):
        sender = MemorySender()
        password = Password(register_fields=["nick"], resettable=Resettable(sender=sender))
        auth = make_auth(
            tmp_path, sender=sender, store=store, strategies=[password], add_ons=[Confirmation(sender=sender)]
        )
        await auth.strategy("password").register({**registration(), "nick": "mallory"})
        await auth.strategy("password").register(registration(password=NEW_PASSWORD))
        token = links(auth)["confirmation", EMAIL]
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "CREATE TRIGGER keep BEFORE UPDATE ON taken WHEN new.nick IS NULL BEGIN SELECT RAISE(ABORT, ''); END"
            )
        assert await refused(auth.add_on("confirmation").confirm({"confirmation_token": token})) == SOME
        found = await auth.accounts.find("email", EMAIL)
        assert found is not None
        assert found.account.confirmed_at is None
        await auth.close()
