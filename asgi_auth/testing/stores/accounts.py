"""The contract of a store for accounts."""
# ruff: noqa: S101  # the asserts of tests

from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.store import Store
from asgi_auth.testing.stores.records import NO_IDS, NOW, UNSTORABLE, add_user, together
from asgi_auth.types import Account

STAMP, OTHER = b"s" * 16, b"t" * 16


class AccountTests:
    """``AccountStore``."""

    async def test_account_update_writes_what_is_named(self, store: Store[Any]) -> None:
        """Each column is written alone, and the row is returned. None clears a nullable column."""
        scoped = store.scope("user")
        user_id = (await add_user(scoped, stamp=STAMP)).account.user_id
        walk: list[tuple[dict[str, Any], Account]] = [
            ({"stamp": OTHER}, Account(user_id=user_id, stamp=OTHER)),
            ({"password_hash": "h"}, Account(user_id=user_id, stamp=OTHER, password_hash="h")),
            (
                {"confirmed_at": NOW, "disabled_at": NOW},
                Account(user_id=user_id, stamp=OTHER, password_hash="h", confirmed_at=NOW, disabled_at=NOW),
            ),
            (
                {"password_hash": None, "confirmed_at": None, "disabled_at": None},
                Account(user_id=user_id, stamp=OTHER),
            ),
        ]
        for changes, account in walk:
            assert await scoped.accounts.update(user_id, changes) == account
            found = await scoped.users.get(user_id)
            assert found is not None
            assert found.account == account

    async def test_account_update_misses_what_is_not_as_expected(self, store: Store[Any]) -> None:
        """An update whose expected values differ from the stored ones writes nothing and returns None."""
        scoped = store.scope("user")
        found = await add_user(scoped, stamp=STAMP, password_hash="h", confirmed_at=NOW)
        misses: list[dict[str, Any]] = [
            {"stamp": OTHER},
            {"password_hash": "g"},
            {"password_hash": None},
            {"confirmed_at": None},
            {"disabled_at": NOW},
            {"stamp": STAMP, "password_hash": "g"},
            *({"password_hash": text} for text in UNSTORABLE),
        ]
        for expected in misses:
            missed = await scoped.accounts.update(found.account.user_id, {"stamp": OTHER}, expected=expected)
            assert missed is None, expected
        assert await scoped.users.get(found.account.user_id) == found
        hit = {"stamp": STAMP, "password_hash": "h", "confirmed_at": NOW, "disabled_at": None}
        assert await scoped.accounts.update(found.account.user_id, {"stamp": OTHER}, expected=hit) is not None

    async def test_account_update_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """If many changes at once expect the same stamp, over separate connections, one of them is written."""
        scopes = [store.scope("user"), second.scope("user")]
        user_id = (await add_user(scopes[0], stamp=STAMP)).account.user_id
        answers = await together(
            scopes[number % 2].accounts.update(user_id, {"stamp": bytes([number]) * 16}, expected={"stamp": STAMP})
            for number in range(16)
        )
        won = [answer for answer in answers if answer is not None]
        found = await scopes[1].users.get(user_id)
        assert found is not None
        assert won == [found.account]

    async def test_account_of_nobody_is_none(self, store: Store[Any]) -> None:
        """An update without a user changes nothing."""
        accounts = store.scope("user").accounts
        assert [await accounts.update(user_id, {"stamp": OTHER}) for user_id in NO_IDS] == [None] * len(NO_IDS)

    async def test_account_refuses_unstorable_text(self, store: Store[Any]) -> None:
        """RP-8: a value that some database cannot store is not written."""
        scoped = store.scope("user")
        user_id = (await add_user(scoped)).account.user_id
        for text in UNSTORABLE:
            with pytest.raises(ValidationError):
                await scoped.accounts.update(user_id, {"password_hash": text})
            with pytest.raises(ValidationError):
                await add_user(scoped, "bob", password_hash=text)
        assert await scoped.users.find("email", "bob@example.com") is None

    async def test_account_highest_bcrypt_cost(self, store: Store[Any]) -> None:
        """The highest bcrypt cost up to the limit is returned. Other hashes have no cost."""
        scoped = store.scope("user")
        assert await scoped.accounts.highest_bcrypt_cost(15) is None
        for number, password_hash in enumerate((None, "", "x", "$2b$", "$2b$1", "$2b$1x$abc", "$argon2id$v=19$99$")):
            await add_user(scoped, f"odd{number}", password_hash=password_hash)
        assert await scoped.accounts.highest_bcrypt_cost(15) is None

        hashes = ("$2a$04$abc", "marker$2b$12$abc", "$2y$10$abc", "marker$2b$16$abc", "$2b$31$abc", "$2b$99$abc")
        for number, password_hash in enumerate(hashes):
            await add_user(scoped, f"u{number}", password_hash=password_hash)
        costs = {limit: await scoped.accounts.highest_bcrypt_cost(limit) for limit in (3, 4, 9, 11, 12, 15, 16, 31)}
        assert costs == {3: None, 4: 4, 9: 4, 11: 10, 12: 12, 15: 12, 16: 16, 31: 31}

    async def test_account_highest_bcrypt_cost_follows_the_hash(self, store: Store[Any]) -> None:
        """The cost of a new hash replaces the cost of the old one. Without a hash there is no cost."""
        scoped = store.scope("user")
        user_id = (await add_user(scoped, password_hash="$2b$12$abc")).account.user_id
        for password_hash, cost in (("$2b$13$abc", 13), ("$2b$04$abc", 4), (None, None)):
            await scoped.accounts.update(user_id, {"password_hash": password_hash})
            assert await scoped.accounts.highest_bcrypt_cost(15) == cost

    async def test_account_of_another_subject_is_none(self, store: Store[Any]) -> None:
        """TK-23: nothing changes or counts the account of another subject."""
        users, admins = store.scope("user"), store.scope("admin")
        alice = await add_user(users, password_hash="$2b$12$abc")
        assert await admins.accounts.update(alice.account.user_id, {"stamp": OTHER}) is None
        assert await admins.accounts.highest_bcrypt_cost(15) is None
        assert await users.users.get(alice.account.user_id) == alice
