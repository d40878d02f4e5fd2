"""The contract of a store for sessions."""
# ruff: noqa: S101  # the asserts of tests

from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.store import Store
from asgi_auth.testing.stores.records import (
    HOUR,
    NO_IDS,
    NOW,
    SECOND,
    UNSTORABLE,
    add_session,
    add_user,
    session_of,
    together,
)

OTHER = b"t" * 16


class SessionTests:
    """``SessionStore``."""

    async def test_session_is_loaded_as_it_was_kept(self, store: Store[Any]) -> None:
        """A session comes back with its user, by the hash and by its id, to the microsecond."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        session, secret_hash = await add_session(
            scoped, alice, label="Zoë's 🙂", factors={"password": NOW, "totp": NOW + SECOND}, remembered=True
        )
        loaded = await scoped.sessions.load(secret_hash, now=NOW)
        assert loaded == (session, alice.user)
        assert await scoped.sessions.load_by_id(session.id, now=NOW) == loaded
        assert await scoped.sessions.load(b"x" * 32, now=NOW) is None

    async def test_session_without_a_row_is_none(self, store: Store[Any]) -> None:
        """RP-8: an unknown id loads, ends and changes nothing."""
        sessions = store.scope("user").sessions
        for name in NO_IDS:
            assert await sessions.load_by_id(name, now=NOW) is None
            assert await sessions.revoke(name, now=NOW) is False
            assert await sessions.revoke_all(name, now=NOW) == 0
            assert await sessions.list(name, now=NOW) == []
            await sessions.touch(name, last_seen_at=NOW, idle_expires_at=NOW)
            await sessions.restamp(name, OTHER)

    async def test_session_ends_by_both_clocks(self, store: Store[Any]) -> None:
        """SE-7: a session is live until a second before either end. From that end on it is not."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        idle, idle_hash = await add_session(scoped, alice)
        _, absolute_hash = await add_session(scoped, alice, idle_expires_at=NOW + 9 * HOUR)
        for secret_hash, end in ((idle_hash, NOW + HOUR), (absolute_hash, NOW + 2 * HOUR)):
            live = [await scoped.sessions.load(secret_hash, now=end + offset) for offset in (-SECOND, 0 * HOUR, SECOND)]
            assert [found is not None for found in live] == [True, False, False]
        by_id = [await scoped.sessions.load_by_id(idle.id, now=NOW + HOUR + offset) for offset in (-SECOND, 0 * HOUR)]
        assert [found is not None for found in by_id] == [True, False]

    async def test_session_dies_with_the_stamp(self, store: Store[Any], second: Store[Any]) -> None:
        """SE-16: a session with an older stamp is not live, also if it is inserted after the change."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        session, secret_hash = await add_session(scoped, alice)
        await second.scope("user").accounts.update(alice.account.user_id, {"stamp": OTHER})
        _, late_hash = await add_session(scoped, alice)

        assert await scoped.sessions.load(secret_hash, now=NOW) is None
        assert await scoped.sessions.load(late_hash, now=NOW) is None
        assert await scoped.sessions.load_by_id(session.id, now=NOW) is None
        assert await scoped.sessions.list(alice.account.user_id, now=NOW) == []

    async def test_session_dies_with_a_disabled_account(self, store: Store[Any]) -> None:
        """SE-6: no session of a disabled account is live."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        session, secret_hash = await add_session(scoped, alice)
        await scoped.accounts.update(alice.account.user_id, {"disabled_at": NOW})
        assert await scoped.sessions.load(secret_hash, now=NOW) is None
        assert await scoped.sessions.load_by_id(session.id, now=NOW) is None
        assert await scoped.sessions.list(alice.account.user_id, now=NOW) == []

    async def test_session_of_a_deleted_user_is_dead_from_birth(self, store: Store[Any]) -> None:
        """An insert after the deletion of the user raises no error, and the session is not live."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        await scoped.users.delete(alice.account.user_id)
        _, secret_hash = await add_session(scoped, alice)
        assert await scoped.sessions.load(secret_hash, now=NOW) is None

    async def test_session_of_nobody_is_not_kept(self, store: Store[Any]) -> None:
        """RP-8: a session whose user id is unknown is not live."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        for name in sorted({*NO_IDS} - {*UNSTORABLE}):
            _, secret_hash = await add_session(scoped, alice, user_id=name)
            assert await scoped.sessions.load(secret_hash, now=NOW) is None

    async def test_session_is_not_revoked_for_nobody(self, store: Store[Any]) -> None:
        """RP-8: an unknown user id owns no session."""
        scoped = store.scope("user")
        session, secret_hash = await add_session(scoped, await add_user(scoped))
        for name in NO_IDS:
            assert await scoped.sessions.revoke(session.id, user_id=name, now=NOW) is False
        assert await scoped.sessions.load(secret_hash, now=NOW)

    async def test_session_insert_refuses_unstorable_text(self, store: Store[Any]) -> None:
        """RP-8: text that some database cannot store is not written."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        for text in UNSTORABLE:
            for changes in ({"label": text}, {"factors": {text: NOW}}):
                with pytest.raises(ValidationError):
                    await scoped.sessions.insert(session_of(alice, **changes), b"h" * 32)
        assert await scoped.sessions.load(b"h" * 32, now=NOW) is None

    async def test_session_restamped_survives(self, store: Store[Any]) -> None:
        """The acting session gets the new stamp and stays live. An ended session is not revived."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        acting, acting_hash = await add_session(scoped, alice)
        ended, ended_hash = await add_session(scoped, alice)
        await scoped.sessions.revoke(ended.id, now=NOW)
        await scoped.accounts.update(alice.account.user_id, {"stamp": OTHER})
        assert [await scoped.sessions.restamp(session.id, OTHER) for session in (acting, ended)] == [True, False]
        assert not await scoped.sessions.restamp("nobody's", OTHER)
        loaded = await scoped.sessions.load(acting_hash, now=NOW)
        assert loaded is not None
        assert loaded.session.stamp == OTHER
        assert await scoped.sessions.load(ended_hash, now=NOW) is None

    async def test_session_touch_moves_forward_only(self, store: Store[Any]) -> None:
        """Each clock moves forward by itself and never back, in any order of the calls."""
        scoped = store.scope("user")
        session, secret_hash = await add_session(scoped, await add_user(scoped))
        later, much_later = NOW + SECOND, NOW + HOUR + SECOND
        notes = [
            (later, much_later, (later, much_later)),
            (NOW, NOW + HOUR, (later, much_later)),
            (later + SECOND, NOW, (later + SECOND, much_later)),
            (NOW, much_later + SECOND, (later + SECOND, much_later + SECOND)),
        ]
        for last_seen_at, idle_expires_at, clocks in notes:
            await scoped.sessions.touch(session.id, last_seen_at=last_seen_at, idle_expires_at=idle_expires_at)
            loaded = await scoped.sessions.load(secret_hash, now=NOW)
            assert loaded is not None
            assert (loaded.session.last_seen_at, loaded.session.idle_expires_at) == clocks

    async def test_session_touch_revives_nothing(self, store: Store[Any]) -> None:
        """SE-7: a session that was revoked, or had expired at its use, does not become live."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        revoked, revoked_hash = await add_session(scoped, alice)
        over, over_hash = await add_session(scoped, alice)
        await scoped.sessions.revoke(revoked.id, now=NOW)
        await scoped.sessions.touch(revoked.id, last_seen_at=NOW, idle_expires_at=NOW + HOUR)
        await scoped.sessions.touch(over.id, last_seen_at=NOW + HOUR, idle_expires_at=NOW + 2 * HOUR)
        assert await scoped.sessions.load(revoked_hash, now=NOW) is None
        assert await scoped.sessions.load(over_hash, now=NOW + HOUR) is None


class RevocationTests:
    """``SessionStore``: ends of sessions."""

    async def test_session_revoke_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """If many calls revoke a session at once, over separate connections, one of them returns True."""
        scopes = [store.scope("user"), second.scope("user")]
        session, secret_hash = await add_session(scopes[0], await add_user(scopes[0]))
        answers = await together(scopes[number % 2].sessions.revoke(session.id, now=NOW) for number in range(8))
        assert sorted(map(bool, answers)) == [False] * 7 + [True]
        assert await scopes[1].sessions.load(secret_hash, now=NOW) is None

    async def test_session_revoke_by_its_owner_only(self, store: Store[Any]) -> None:
        """With a user id, the session of another user is not revoked."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        session, secret_hash = await add_session(scoped, alice)
        assert await scoped.sessions.revoke(session.id, user_id=bob.account.user_id, now=NOW) is False
        assert await scoped.sessions.load(secret_hash, now=NOW) is not None
        assert await scoped.sessions.revoke(session.id, user_id=alice.account.user_id, now=NOW) is True

    async def test_session_revoke_tells_whether_it_was_alive(self, store: Store[Any]) -> None:
        """A session is not live at the second of its end."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        before, at = [(await add_session(scoped, alice))[0] for _ in range(2)]
        assert await scoped.sessions.revoke(before.id, now=NOW + HOUR - SECOND) is True
        assert await scoped.sessions.revoke(at.id, now=NOW + HOUR) is False

    async def test_session_revoked_while_disabled_stays_dead(self, store: Store[Any]) -> None:
        """SE-6: a session that is not live for a temporary reason can be revoked too."""
        scoped = store.scope("user")
        alice, _ = await add_user(scoped), await add_user(scoped, "bob")  # his account does not affect hers
        user_id = alice.account.user_id
        (one, one_hash), (_, two_hash), (_, three_hash) = [await add_session(scoped, alice) for _ in range(3)]
        await scoped.accounts.update(user_id, {"disabled_at": NOW})
        assert await scoped.sessions.revoke(one.id, now=NOW) is False
        assert await scoped.sessions.revoke_by_secrets([two_hash], now=NOW) == []
        assert await scoped.sessions.revoke_all(user_id, now=NOW) == 0
        await scoped.accounts.update(user_id, {"disabled_at": None})
        for secret_hash in (one_hash, two_hash, three_hash):
            assert await scoped.sessions.load(secret_hash, now=NOW) is None

    async def test_session_revoke_by_secrets_is_won_once(self, store: Store[Any]) -> None:
        """The sessions with these hashes are ended and returned once. The others stay live."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        mine, theirs, kept = [await add_session(scoped, owner) for owner in (alice, bob, bob)]
        shown = [b"?" * 32, mine[1], theirs[1], mine[1]]
        ended = await scoped.sessions.revoke_by_secrets(shown, now=NOW)
        assert {session.id: session for session in ended} == {found.id: found for found in (mine[0], theirs[0])}
        assert len(ended) == 2
        assert await scoped.sessions.revoke_by_secrets(shown, now=NOW) == []
        assert [await scoped.sessions.load(each, now=NOW) for each in shown] == [None] * 4
        assert await scoped.sessions.load(kept[1], now=NOW) is not None

    async def test_session_revoke_by_secrets_takes_any_number(self, store: Store[Any]) -> None:
        """Any number of hashes is supported, also none. Expired sessions are not returned."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        made = [await add_session(scoped, alice, idle_expires_at=NOW + n % 3 * HOUR) for n in range(19)]
        assert await scoped.sessions.revoke_by_secrets([], now=NOW) == []
        ended = await scoped.sessions.revoke_by_secrets([secret_hash for _, secret_hash in made], now=NOW)
        assert {session.id for session in ended} == {session.id for n, (session, _) in enumerate(made) if n % 3}
        assert await scoped.sessions.list(alice.account.user_id, now=NOW - HOUR) == []

    async def test_session_revoke_all_but_one(self, store: Store[Any]) -> None:
        """SE-6: every session of this user ends except the named one. The number of live ones is returned."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        mine = [await add_session(scoped, alice) for _ in range(3)]
        _, over = await add_session(scoped, alice, idle_expires_at=NOW)
        _, theirs = await add_session(scoped, bob)

        assert await scoped.sessions.revoke_all(alice.account.user_id, except_id=mine[1][0].id, now=NOW) == 2
        live = [await scoped.sessions.load(secret_hash, now=NOW) for _, secret_hash in mine]
        assert [found is not None for found in live] == [False, True, False]
        assert await scoped.sessions.load(over, now=NOW - SECOND) is None
        assert await scoped.sessions.load(theirs, now=NOW) is not None
        assert await scoped.sessions.revoke_all(alice.account.user_id, now=NOW) == 1

    async def test_session_list_is_the_live_ones_last_seen_first(self, store: Store[Any]) -> None:
        """The list has the live sessions of the user. The last used one is first."""
        scoped = store.scope("user")
        alice, bob = await add_user(scoped), await add_user(scoped, "bob")
        old, new, middle = [
            (await add_session(scoped, alice, last_seen_at=NOW + offset * SECOND))[0] for offset in (-3, 0, -2)
        ]
        revoked, _ = await add_session(scoped, alice)
        await scoped.sessions.revoke(revoked.id, now=NOW)
        await add_session(scoped, alice, idle_expires_at=NOW)
        await add_session(scoped, bob)
        assert list(await scoped.sessions.list(alice.account.user_id, now=NOW)) == [new, middle, old]

    async def test_session_prune_takes_what_ended(self, store: Store[Any]) -> None:
        """Revoked and expired sessions are deleted in batches. Live ones stay."""
        scoped = store.scope("user")
        alice = await add_user(scoped)
        live, live_hash = await add_session(scoped, alice)
        revoked, _ = await add_session(scoped, alice)
        await scoped.sessions.revoke(revoked.id, now=NOW)
        await add_session(scoped, alice, idle_expires_at=NOW)
        for _ in range(2):
            await add_session(scoped, alice, expires_at=NOW - SECOND)
        pruned = [await scoped.sessions.prune(now=NOW, limit=2) for _ in range(3)]
        assert pruned == [2, 2, 0]
        assert await scoped.sessions.load(live_hash, now=NOW) is not None
        assert await scoped.sessions.prune(now=live.idle_expires_at, limit=2) == 1

    async def test_session_of_another_subject_is_none(self, store: Store[Any]) -> None:
        """TK-23: no call loads, lists, changes or ends the session of another subject."""
        users, admins = store.scope("user"), store.scope("admin")
        alice = await add_user(users)
        user_id = alice.account.user_id
        session, secret_hash = await add_session(users, alice)
        _, foreign_hash = await add_session(admins, alice)

        assert await admins.sessions.load(secret_hash, now=NOW) is None
        assert await admins.sessions.load_by_id(session.id, now=NOW) is None
        assert await admins.sessions.list(user_id, now=NOW) == []
        await admins.sessions.touch(session.id, last_seen_at=NOW + SECOND, idle_expires_at=NOW + 2 * HOUR)
        await admins.sessions.restamp(session.id, OTHER)
        assert await admins.sessions.revoke(session.id, now=NOW) is False
        assert await admins.sessions.revoke_by_secrets([secret_hash], now=NOW) == []
        assert await admins.sessions.revoke_all(user_id, now=NOW) == 0
        assert await admins.sessions.prune(now=NOW + 9 * HOUR, limit=9) == 0
        assert await users.sessions.load(secret_hash, now=NOW) == (session, alice.user)
        assert await admins.sessions.load(foreign_hash, now=NOW) is None
        assert await users.sessions.load(foreign_hash, now=NOW) is None
