"""The contract of a store for users."""
# ruff: noqa: S101  # the asserts of tests

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from asgi_auth.errors import IdentityTakenError, ValidationError
from asgi_auth.store import Store
from asgi_auth.testing.stores.records import (
    HOUR,
    NO_IDS,
    NOW,
    UNSTORABLE,
    Scoped,
    add_session,
    add_token,
    add_user,
    together,
)
from asgi_auth.types import Account


async def register(store: Scoped, user_id: str, **fields: Any) -> Any:
    """A user with these fields. The keys of identities are their values."""
    keys = {name: fields[name] for name in fields if name in store.users.identity_fields}
    return await store.users.insert(user_id, fields, keys, Account(user_id="", stamp=b"s" * 16), now=NOW)


class UserTests:
    """``UserStore``."""

    extra: ClassVar[Mapping[str, Any]] = {"name": "Zoë 🙂", "age": 33}
    """Fields of a user besides the identities, to write and read."""

    async def test_user_is_found_by_address_and_id(self, store: Store[Any]) -> None:
        """A user is found with their account by the key of the address, not by its spelling, and by id."""
        users = store.scope("user").users
        account = Account(user_id="", stamp=b"s" * 16, password_hash="$x$", confirmed_at=NOW, disabled_at=NOW + HOUR)
        fields = {"email": "Alice@Example.com", **self.extra}
        found = await users.insert(str(uuid4()), fields, {"email": "alice@example.com"}, account, now=NOW)

        user_id = found.account.user_id
        assert users.user_id(found.user) == user_id
        assert found.account == Account(
            user_id=user_id, stamp=b"s" * 16, password_hash="$x$", confirmed_at=NOW, disabled_at=NOW + HOUR
        )
        assert {name: users.values(found.user)[name] for name in fields} == fields
        assert await users.find("email", "alice@example.com") == found
        assert await users.find("email", "Alice@Example.com") is None
        assert await users.get(user_id) == found

    async def test_user_without_a_row_is_none(self, store: Store[Any]) -> None:
        """RP-8: an unknown key or id finds no user, also one that some database cannot store."""
        users = store.scope("user").users
        await add_user(store.scope("user"))
        assert [await users.get(user_id) for user_id in NO_IDS] == [None] * len(NO_IDS)
        assert [await users.find("email", key) for key in NO_IDS] == [None] * len(NO_IDS)
        assert [await users.update(user_id, {}, {}) for user_id in NO_IDS] == [None] * len(NO_IDS)
        assert [await users.replace(user_id, {}, {}) for user_id in NO_IDS] == [None] * len(NO_IDS)
        assert [await users.delete(user_id) for user_id in NO_IDS] == [False] * len(NO_IDS)

    async def test_user_insert_refuses_a_taken_identity(self, store: Store[Any]) -> None:
        """A key of any identity belongs to one user. The error names the field."""
        scoped = store.scope("user")
        for field in scoped.users.identity_fields:
            await register(scoped, str(uuid4()), **{"email": f"{field}@example.com", field: "taken"})
            with pytest.raises(IdentityTakenError) as error:
                await register(scoped, str(uuid4()), **{"email": f"{field}2@example.com", field: "taken"})
            assert list(error.value.fields) == [field]

    async def test_user_insert_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """AC-9: if twenty calls register one address at once, over separate connections, one makes a row."""
        scopes = [store.scope("user"), second.scope("user")]
        answers = await together(add_user(scopes[number % 2]) for number in range(20))
        assert sum(isinstance(answer, IdentityTakenError) for answer in answers) == 19
        assert await scopes[0].users.find("email", "alice@example.com") in answers

    async def test_user_update_changes_what_is_named(self, store: Store[Any]) -> None:
        """An update writes the named fields, with their keys, and keeps the others."""
        users = store.scope("user").users
        found = await register(store.scope("user"), str(uuid4()), email="old@example.com", **self.extra)
        changed = await users.update(found.account.user_id, {"email": "New@Example.com"}, {"email": "new@example.com"})

        assert changed is not None
        assert changed.account == found.account
        values = {"email": "New@Example.com", **self.extra}
        assert {name: users.values(changed.user)[name] for name in values} == values
        assert await users.find("email", "new@example.com") == changed
        assert await users.find("email", "old@example.com") is None

        for name, value in self.extra.items():
            changed = await users.update(found.account.user_id, {name: value * 2}, {})
            assert changed is not None
            assert users.values(changed.user)[name] == value * 2
        assert await users.find("email", "new@example.com") == changed

    async def test_user_replace_keeps_no_other_field(self, store: Store[Any]) -> None:
        """AC-1: an omitted field is reset, as in a new user. The account is unchanged."""
        users = store.scope("user").users
        new = await register(store.scope("user"), str(uuid4()), email="new@example.com")
        old = await register(store.scope("user"), str(uuid4()), email="old@example.com", **self.extra)
        fields, keys = {"email": "Next@Example.com"}, {"email": "next@example.com"}
        replaced = await users.replace(old.account.user_id, fields, keys)

        assert replaced is not None
        assert replaced.account == old.account
        assert users.values(replaced.user) == {**users.values(new.user), **fields}
        assert await users.find("email", "next@example.com") == replaced
        assert await users.find("email", "old@example.com") is None

    async def test_user_replace_takes_names_away(self, store: Store[Any]) -> None:
        """AC-1: an omitted identity finds no user any more. An identity of another user is refused."""
        users = store.scope("user").users
        alice = await add_user(store.scope("user"))
        bob = await add_user(store.scope("user"), "bob")
        for name in users.identity_fields - {"email"}:
            await users.update(alice.account.user_id, {name: "name"}, {name: "name"})
            taken = await users.replace(alice.account.user_id, {"email": "a@example.com"}, {"email": "a@example.com"})
            assert taken is not None
            assert await users.find(name, "name") is None
        with pytest.raises(IdentityTakenError):
            await users.replace(alice.account.user_id, {"email": "bob@example.com"}, {"email": "bob@example.com"})
        assert await users.find("email", "bob@example.com") == bob

    async def test_user_update_refuses_a_taken_identity(self, store: Store[Any]) -> None:
        """The address of another user is refused and nothing is written. The user's own address is accepted."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        with pytest.raises(IdentityTakenError) as error:
            await scoped.users.update(
                bob.account.user_id, {"email": "alice@example.com"}, {"email": "alice@example.com"}
            )
        assert list(error.value.fields) == ["email"]
        assert await scoped.users.find("email", "bob@example.com") == bob
        changed = await scoped.users.update(
            alice.account.user_id, {"email": "ALICE@example.com"}, {"email": "alice@example.com"}
        )
        assert changed == await scoped.users.find("email", "alice@example.com")

    async def test_user_keeps_long_and_wide_text(self, store: Store[Any]) -> None:
        """Text comes back unchanged: ten thousand characters of four bytes."""
        scoped = store.scope("user")
        text = "🙂" * 10_000
        found = await register(scoped, str(uuid4()), email=text)
        assert await scoped.users.find("email", text) == found
        assert scoped.users.values(found.user)["email"] == text

    async def test_user_with_unstorable_text_is_refused(self, store: Store[Any]) -> None:
        """RP-8: NUL and lone surrogates are refused by name, in a new or an existing row, and nothing is written."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        for text in UNSTORABLE:
            for field in ("email", *(name for name, value in self.extra.items() if isinstance(value, str))):
                values = {"email": "bob@example.com", field: text}
                with pytest.raises(ValidationError) as error:
                    await register(scoped, str(uuid4()), **values)
                assert list(error.value.fields) == [field]
                with pytest.raises(ValidationError):
                    await scoped.users.update(alice.account.user_id, {field: text}, {})
        assert await scoped.users.find("email", "bob@example.com") is None
        assert await scoped.users.get(alice.account.user_id) == alice

    async def test_user_delete_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """If many calls delete a user at once, one returns True."""
        scopes = [store.scope("user"), second.scope("user")]
        user_id = (await add_user(scopes[0])).account.user_id
        answers = await together(scopes[number % 2].users.delete(user_id) for number in range(8))
        assert sorted(map(bool, answers)) == [False] * 7 + [True]

    async def test_user_delete_takes_everything_along(self, store: Store[Any]) -> None:
        """Deleting a user deletes the account, sessions and tokens of this user only."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        rows = [(await add_session(scoped, user), await add_token(scoped, user)) for user in (alice, bob)]

        assert await scoped.users.delete(alice.account.user_id)

        assert await scoped.users.get(alice.account.user_id) is None
        assert await scoped.accounts.update(alice.account.user_id, {"stamp": b"t" * 16}) is None
        loaded = [await scoped.sessions.load(secret_hash, now=NOW) for (_, secret_hash), _ in rows]
        assert [found and found.user for found in loaded] == [None, bob.user]
        peeked = [await scoped.tokens.peek("reset", record.token_hash, now=NOW) for _, record in rows]
        assert peeked == [None, rows[1][1]]
        # No rows are left that a later user with the same id could inherit.
        assert await scoped.sessions.prune(now=NOW + timedelta(days=400), limit=10) == 1
        assert await scoped.tokens.prune(now=NOW + timedelta(days=400), limit=10) == 1

    async def test_user_with_a_reused_id_inherits_nothing(self, store: Store[Any]) -> None:
        """Sessions and tokens of an earlier user with the same id do not work for the new user."""
        scoped = store.scope("user")
        user_id = str(uuid4())
        old = await register(scoped, user_id, email="old@example.com")
        session, secret_hash = await add_session(scoped, old)
        token = await add_token(scoped, old)
        await scoped.users.delete(old.account.user_id)
        await register(scoped, user_id, email="new@example.com")

        assert await scoped.sessions.load(secret_hash, now=NOW) is None
        assert await scoped.sessions.load_by_id(session.id, now=NOW) is None
        assert await scoped.tokens.consume("reset", token.token_hash, now=NOW) is None

    async def test_user_of_another_subject_is_nobody(self, store: Store[Any]) -> None:
        """TK-23: no call finds, changes or deletes the user of another subject. Both may have the same address."""
        users, admins = store.scope("user"), store.scope("admin")
        alice, admin = await add_user(users), await add_user(admins)
        user_id = alice.account.user_id

        assert await users.users.find("email", "alice@example.com") == alice
        assert await admins.users.find("email", "alice@example.com") == admin
        assert await admins.users.get(user_id) is None
        assert await admins.users.update(user_id, {"email": "x@example.com"}, {"email": "x@example.com"}) is None
        assert await admins.users.delete(user_id) is False
        assert await users.users.get(user_id) == alice
