"""The contract of a store for single-purpose tokens."""
# ruff: noqa: S101  # the asserts of tests

from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.store import Store
from asgi_auth.testing.stores.records import HOUR, NO_IDS, NOW, SECOND, UNSTORABLE, add_token, add_user, together

OTHER = b"t" * 16


class TokenTests:
    """``TokenStore``."""

    async def test_token_is_consumed_as_it_was_kept(self, store: Store[Any]) -> None:
        """A token comes back whole. ``peek`` returns it any number of times, ``consume`` once."""
        tokens = store.scope("user").tokens
        data = {"email": "zoë@example.com", "list": [1, None, True], "text": "🙂" * 10_000}
        for found in (await add_user(store.scope("user")), None):
            record = await add_token(store.scope("user"), found, extra_data=data)
            assert await tokens.peek("reset", record.token_hash, now=NOW) == record
            assert await tokens.peek("reset", record.token_hash, now=NOW) == record
            assert await tokens.consume("reset", record.token_hash, now=NOW) == record
            assert await tokens.consume("reset", record.token_hash, now=NOW) is None
            assert await tokens.peek("reset", record.token_hash, now=NOW) is None

    async def test_token_is_consumed_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """TK-11: if 32 calls consume a token at once, over separate connections, one gets it."""
        scopes = [store.scope("user"), second.scope("user")]
        record = await add_token(scopes[0], await add_user(scopes[0]))
        answers = await together(
            scopes[number % 2].tokens.consume("reset", record.token_hash, now=NOW) for number in range(32)
        )
        assert [answer for answer in answers if answer is not None] == [record]

    async def test_token_serves_its_purpose_only(self, store: Store[Any]) -> None:
        """A token is not found under another purpose, and is not consumed."""
        scoped = store.scope("user")
        record = await add_token(scoped, await add_user(scoped))
        for purpose in ("sign_in", "rese", "reset ", *NO_IDS):
            assert await scoped.tokens.peek(purpose, record.token_hash, now=NOW) is None
            assert await scoped.tokens.consume(purpose, record.token_hash, now=NOW) is None
        assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) == record

    async def test_token_expires(self, store: Store[Any]) -> None:
        """A token is live until a second before its end. From its end on it is not."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        offsets = (-SECOND, 0 * SECOND, SECOND)
        records = [await add_token(scoped, alice) for _ in offsets]
        for record, offset in zip(records, offsets, strict=True):
            live = record if offset < 0 * SECOND else None
            assert await scoped.tokens.peek("reset", record.token_hash, now=NOW + HOUR + offset) == live
            assert await scoped.tokens.consume("reset", record.token_hash, now=NOW + HOUR + offset) == live

    @pytest.mark.parametrize("changes", [{"stamp": OTHER}, {"disabled_at": NOW}], ids=["stamp", "disabled"])
    async def test_token_dies_with_the_account(self, store: Store[Any], changes: dict[str, Any]) -> None:
        """TK-12: a new stamp or a disabled account invalidates earlier tokens, also those that are inserted later."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        early = await add_token(scoped, alice)
        await scoped.accounts.update(alice.account.user_id, changes)
        late = await add_token(scoped, alice)
        for record in (early, late):
            assert await scoped.tokens.peek("reset", record.token_hash, now=NOW) is None
            assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) is None

    async def test_token_without_a_stamp_outlives_changes(self, store: Store[Any]) -> None:
        """A user's token without a stamp survives changes of the account. It is not live while the user is disabled."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        user_id = alice.account.user_id
        record = await add_token(scoped, alice, stamp=None)
        await scoped.accounts.update(user_id, {"stamp": OTHER, "password_hash": "h", "confirmed_at": NOW})
        assert await scoped.tokens.peek("reset", record.token_hash, now=NOW) == record
        assert await scoped.tokens.peek("reset", record.token_hash, now=NOW + HOUR) is None

        await scoped.accounts.update(user_id, {"disabled_at": NOW})
        assert await scoped.tokens.peek("reset", record.token_hash, now=NOW) is None
        assert await scoped.tokens.latest("reset", user_id, now=NOW) is None
        assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) is None
        await scoped.accounts.update(user_id, {"disabled_at": None})
        assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) == record

    async def test_token_without_a_stamp_dies_with_its_user(self, store: Store[Any]) -> None:
        """A token without a stamp is deleted with its user. An insert after the deletion stores nothing."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        early = await add_token(scoped, alice, stamp=None)
        await scoped.users.delete(alice.account.user_id)
        late = await add_token(scoped, alice, stamp=None)
        for record in (early, late):
            assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) is None

    async def test_token_latest_is_the_one_inserted_last(self, store: Store[Any]) -> None:
        """``latest`` returns the live token of this user and purpose that was inserted last, whatever its times."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        user_id, tokens = alice.account.user_id, scoped.tokens
        assert await tokens.latest("reset", user_id, now=NOW) is None
        first = await add_token(scoped, alice, created_at=NOW + SECOND, expires_at=NOW + 2 * HOUR)
        second = await add_token(scoped, alice, created_at=NOW - SECOND)
        await add_token(scoped, bob)
        await add_token(scoped, None)
        await add_token(scoped, alice, purpose="sign_in")
        await add_token(scoped, alice, stamp=OTHER)
        offsets = (-SECOND, 0 * SECOND, SECOND)
        latest = [await tokens.latest("reset", user_id, now=NOW + HOUR + offset) for offset in offsets]
        assert latest == [second, first, first]
        assert await tokens.consume("reset", second.token_hash, now=NOW) == second
        assert await tokens.latest("reset", user_id, now=NOW) == first
        for name in NO_IDS:
            assert await tokens.latest("reset", name, now=NOW) is None
            assert await tokens.latest(name, user_id, now=NOW) is None

    async def test_token_of_a_deleted_user_is_dead_from_birth(self, store: Store[Any]) -> None:
        """An insert after the deletion of the user raises no error, and the token is not live."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        await scoped.users.delete(alice.account.user_id)
        record = await add_token(scoped, alice)
        assert await scoped.tokens.consume("reset", record.token_hash, now=NOW) is None

    async def test_token_of_nobody_is_not_kept(self, store: Store[Any]) -> None:
        """RP-8: a token whose user id is unknown is not live, and does not become a token without a user."""
        scoped = store.scope("user")
        for name in sorted({*NO_IDS} - {*UNSTORABLE}):
            record = await add_token(scoped, None, user_id=name)
            assert await scoped.tokens.peek("reset", record.token_hash, now=NOW) is None

    async def test_token_insert_refuses_unstorable_text(self, store: Store[Any]) -> None:
        """RP-8: a value that some database cannot store is not written, at any depth."""
        scoped = store.scope("user")
        for text in UNSTORABLE:
            for changes in ({"purpose": text}, {"extra_data": {"a": [text]}}, {"extra_data": {text: 1}}):
                with pytest.raises(ValidationError):
                    await add_token(scoped, None, token_hash=b"h" * 32, **changes)
                purpose = str(changes.get("purpose", "reset"))
                assert await scoped.tokens.peek(purpose, b"h" * 32, now=NOW) is None

    async def test_token_retire_takes_the_older_ones(self, store: Store[Any]) -> None:
        """TK-12: the earlier tokens of this user and purpose, by insertion, are deleted, whatever their times."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        first = await add_token(scoped, alice, created_at=NOW + SECOND)
        theirs = await add_token(scoped, bob)
        other = await add_token(scoped, alice, purpose="sign_in")
        second = await add_token(scoped, alice)
        newest = await add_token(scoped, alice, created_at=NOW - SECOND)
        user_id = alice.account.user_id

        assert await scoped.tokens.retire("reset", user_id, older_than=b"x" * 32) == 0
        assert await scoped.tokens.retire("reset", user_id, older_than=second.token_hash) == 1
        assert await scoped.tokens.retire("reset", user_id, older_than=newest.token_hash) == 1
        assert await scoped.tokens.retire("reset", user_id, older_than=newest.token_hash) == 0
        records = (first, theirs, other, second, newest)
        left = [await scoped.tokens.peek(record.purpose, record.token_hash, now=NOW) for record in records]
        assert left == [None, theirs, other, None, newest]
        assert [await scoped.tokens.retire("reset", name, older_than=newest.token_hash) for name in NO_IDS] == [
            0
        ] * len(NO_IDS)

    async def test_token_retire_takes_all(self, store: Store[Any]) -> None:
        """Without ``older_than``, every token of this user and purpose is deleted, live or not. The others stay."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        for changes in ({}, {"stamp": None}, {"stamp": OTHER}, {"expires_at": NOW}):
            await add_token(scoped, alice, **changes)
        theirs = await add_token(scoped, bob)
        other = await add_token(scoped, alice, purpose="sign_in")
        nobodys = await add_token(scoped, None)

        assert [await scoped.tokens.retire("reset", alice.account.user_id) for _ in range(2)] == [4, 0]
        for record in (theirs, other, nobodys):
            assert await scoped.tokens.peek(record.purpose, record.token_hash, now=NOW) == record
        for name in NO_IDS:
            assert await scoped.tokens.retire("reset", name) == 0
            assert await scoped.tokens.retire(name, bob.account.user_id) == 0

    async def test_token_prune_takes_what_expired(self, store: Store[Any]) -> None:
        """Expired tokens are deleted in batches. Live ones stay."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        live = await add_token(scoped, alice, expires_at=NOW + SECOND)
        for offset in range(3):
            await add_token(scoped, alice, expires_at=NOW - offset * SECOND)
        assert [await scoped.tokens.prune(now=NOW, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await scoped.tokens.peek("reset", live.token_hash, now=NOW) == live

    async def test_token_of_another_subject_is_none(self, store: Store[Any]) -> None:
        """TK-23: no call sees, consumes, retires or prunes the token of another subject, or makes one for its user."""
        users, admins = store.scope("user"), store.scope("admin")
        alice = await add_user(users)
        older, newer = await add_token(users, alice), await add_token(users, alice)
        foreign = await add_token(admins, alice)

        assert await admins.tokens.peek("reset", newer.token_hash, now=NOW) is None
        assert await admins.tokens.consume("reset", newer.token_hash, now=NOW) is None
        assert await admins.tokens.retire("reset", alice.account.user_id, older_than=newer.token_hash) == 0
        assert await admins.tokens.retire("reset", alice.account.user_id) == 0
        assert await admins.tokens.latest("reset", alice.account.user_id, now=NOW) is None
        assert await admins.tokens.prune(now=NOW + 9 * HOUR, limit=9) == 0
        assert await users.tokens.peek("reset", older.token_hash, now=NOW) == older
        assert await admins.tokens.consume("reset", foreign.token_hash, now=NOW) is None
        assert await users.tokens.consume("reset", foreign.token_hash, now=NOW) is None
