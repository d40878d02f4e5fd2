"""The contract of a store with invitations."""
# ruff: noqa: S101  # the asserts of tests

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.store import InvitationRecord, Store
from asgi_auth.testing.stores.invitation_changes import InvitationAgeTests, InvitationChangeTests
from asgi_auth.testing.stores.invitation_races import InvitationRaceTests
from asgi_auth.testing.stores.records import (
    HOUR,
    NO_IDS,
    NOW,
    SECOND,
    UNSTORABLE,
    Scoped,
    add_invitation,
    add_user,
    invitation_of,
)

SCOPES = (None, "", "team", "Team", "team ", "=", "🙂" * 100)
"""Scopes that all differ from each other, and from None."""


class InvitationTests:
    """``InvitationStore``: storing and finding."""

    async def test_invitation_comes_back_as_it_was_kept(self, store: Store[Any]) -> None:
        """A record comes back whole, to the microsecond, with all optional fields or none of them."""
        scoped = store.scope("user")
        alice, bob = [(await add_user(scoped, name)).account.user_id for name in ("alice", "bob")]
        full = invitation_of(
            scope="team 🙂",
            email="Zoë@example.com",
            email_key="zoë@example.com",
            grant={"roles": ["editor", None, {"deep": True}], "size": 2**63 - 1, "text": "🙂" * 10_000},
            strategies=("password", "passkey"),
            inviter_id=alice,
            status="accepted",
            version=7,
            sent_count=8,
            last_sent_at=NOW + SECOND,
            delivery="failed",
            accepted_by=bob,
            accepted_via="password",
            ended_at=NOW + HOUR,
            ended_by=alice,
            reason="Zoë 🙂",
        )
        for record in (full, invitation_of()):
            assert await scoped.invitations.insert(record) is True
            assert await scoped.invitations.get(record.id) == record

    async def test_invitation_without_a_row_is_none(self, store: Store[Any]) -> None:
        """RP-8: an unknown id, address or scope finds nothing and changes nothing."""
        scoped = store.scope("user")
        record, invitations = await add_invitation(scoped), scoped.invitations
        for name in NO_IDS:
            assert await invitations.get(name) is None
            assert await invitations.find(None, name, now=NOW) is None
            assert await invitations.find(name, record.email_key, now=NOW) is None
            assert await invitations.list(inviter_id=name) == []
            assert await invitations.list(scope=name) == []
            assert await invitations.end(name, "revoked", now=NOW) is None
            renewed = invitations.renew(
                name, version=1, now=NOW, expires_at=NOW + HOUR, sent_before=NOW, sent_at_most=9
            )
            assert await renewed is None
            await invitations.attribute(name, name)
            await invitations.note_delivery(name, 1, "sent")
            await invitations.forget(name, "hash")
        assert await invitations.get(record.id) == record

    async def test_invitation_insert_refuses_unstorable_text(self, store: Store[Any]) -> None:
        """RP-8: text that some database cannot store is not written, in any field."""
        scoped = store.scope("user")
        for text in UNSTORABLE:
            for changes in (
                {"scope": text},
                {"email": text},
                {"email_key": text},
                {"grant": {"a": [text]}},
                {"grant": {text: 1}},
                {"strategies": (text,)},
                {"reason": text},
            ):
                with pytest.raises(ValidationError):
                    await scoped.invitations.insert(invitation_of(**changes))
        assert await scoped.invitations.list() == []

    async def test_invitation_is_one_for_an_address_in_a_scope(self, store: Store[Any]) -> None:
        """A second pending invitation for the same scope and address is refused. Any other may be pending too."""
        invitations = store.scope("user").invitations
        addresses = ("eve@example.com", "mallory@example.com")
        records = [invitation_of(scope=scope, email_key=address) for scope, address in product(SCOPES, addresses)]
        for record in records:
            assert await invitations.insert(record) is True
            another = invitation_of(scope=record.scope, email_key=record.email_key, email="other@example.com")
            assert await invitations.insert(another) is False
            assert await invitations.get(another.id) is None
        for record in records:
            assert await invitations.find(record.scope, record.email_key, now=NOW) == record
        for scope in filter(None, SCOPES):
            assert {found.scope for found in await invitations.list(scope=scope)} == {scope}
        assert {found.scope for found in await invitations.list(scope="")} == {""}

    @pytest.mark.parametrize("status", ["accepted", "revoked", "declined", "expired"])
    async def test_invitation_that_ended_makes_way(self, store: Store[Any], status: Any) -> None:
        """An ended invitation is not found by its address, and does not prevent a new one."""
        scoped = store.scope("user")
        first = await add_invitation(scoped)
        await scoped.invitations.end(first.id, status, now=NOW)
        assert await scoped.invitations.find(None, first.email_key, now=NOW) is None
        again = await add_invitation(scoped)
        assert await scoped.invitations.find(None, first.email_key, now=NOW) == again

    @pytest.mark.parametrize("offset", [-SECOND, 0 * SECOND, SECOND], ids=["before", "at", "after"])
    async def test_invitation_expires(self, store: Store[Any], offset: Any) -> None:
        """An invitation is pending until a second before its end. Then it is expired, and the next insert marks it."""
        scoped = store.scope("user")
        old, now = await add_invitation(scoped), NOW + HOUR + offset
        live = offset < 0 * SECOND
        assert await scoped.invitations.find(None, old.email_key, now=now) == (old if live else None)

        new = invitation_of(created_at=now, expires_at=now + HOUR)
        assert await scoped.invitations.insert(new) is not live
        kept = old if live else replace(old, status="expired", ended_at=old.expires_at)
        assert await scoped.invitations.get(old.id) == kept
        assert await scoped.invitations.get(new.id) == (None if live else new)

    async def test_invitation_insert_expires_nobody_elses(self, store: Store[Any]) -> None:
        """An insert marks only the invitation of the same scope and address as expired."""
        scoped, later = store.scope("user"), NOW + 2 * HOUR
        others = [
            await add_invitation(scoped, **changes) for changes in ({"scope": ""}, {"email_key": "bob@example.com"})
        ]
        await add_invitation(scoped, created_at=later, expires_at=later + HOUR)
        assert [await scoped.invitations.get(other.id) for other in others] == others

    async def test_invitation_list_has_the_newest_first(self, store: Store[Any]) -> None:
        """The list is ordered by time, then by id. Its pages have each invitation exactly once."""
        scoped = store.scope("user")
        records = [await self._numbered(scoped, number, created_at=NOW + number // 4 * SECOND) for number in range(11)]
        expected = sorted(records, key=lambda record: (record.created_at, record.id), reverse=True)
        assert list(await scoped.invitations.list()) == expected
        assert list(await scoped.invitations.list(limit=3)) == expected[:3]
        paged: list[InvitationRecord] = []
        for _ in range(7):
            paged += await scoped.invitations.list(before=paged[-1] if paged else None, limit=2)
        assert paged == expected

    async def test_invitation_list_is_filtered(self, store: Store[Any]) -> None:
        """The list is filtered by inviter, scope, status or all of them. The next page keeps the filter."""
        scoped = store.scope("user")
        inviters = [None, *[(await add_user(scoped, name)).account.user_id for name in ("alice", "bob")]]
        records = [
            await self._numbered(scoped, number, inviter_id=inviter, scope=scope)
            for number, (inviter, scope) in enumerate(product(inviters, (None, "", "team")))
        ]
        for record in records[::2]:
            await scoped.invitations.end(record.id, "declined", now=NOW)
        stored = list(await scoped.invitations.list())
        assert len(stored) == 9
        for inviter, scope, status in product(inviters, (None, "", "team"), (None, "pending", "declined", "expired")):
            wanted: dict[str, Any] = {"inviter_id": inviter, "scope": scope, "status": status}
            filters = {name: value for name, value in wanted.items() if value is not None}
            expected = [record for record in stored if all(getattr(record, name) == filters[name] for name in filters)]
            assert list(await scoped.invitations.list(**filters)) == expected
            rest = [await scoped.invitations.list(**filters, before=record) for record in expected]
            assert [list(page) for page in rest] == [expected[number:] for number in range(1, len(expected) + 1)]

    async def _numbered(self, scoped: Scoped, number: int, **changes: Any) -> InvitationRecord:
        return await add_invitation(scoped, email_key=f"{number}@example.com", **changes)

    async def test_invitation_outlives_whoever_made_it(self, store: Store[Any]) -> None:
        """Deleting a user keeps the invitations that name them, as history."""
        scoped = store.scope("user")
        user_id = (await add_user(scoped)).account.user_id
        made = await add_invitation(scoped, inviter_id=user_id)
        accepted = await add_invitation(scoped, scope="team")
        ended = await scoped.invitations.end(accepted.id, "accepted", now=NOW, accepted_by=user_id, ended_by=user_id)
        assert await scoped.users.delete(user_id)
        assert await scoped.invitations.get(made.id) == made
        assert await scoped.invitations.get(accepted.id) == ended
        assert list(await scoped.invitations.list(inviter_id=user_id)) == [made]

    async def test_invitation_of_another_subject_is_none(self, store: Store[Any]) -> None:
        """TK-23: no call finds, lists, changes, expires or prevents the invitation of another subject."""
        users, admins = store.scope("user"), store.scope("admin")
        user_id, later = (await add_user(users)).account.user_id, NOW + 9 * HOUR
        pending = await add_invitation(users, inviter_id=user_id)
        ended = await add_invitation(users, scope="team")
        await users.invitations.end(ended.id, "accepted", now=NOW)
        rows = [await users.invitations.get(record.id) for record in (pending, ended)]

        theirs = admins.invitations
        for record in (pending, ended):
            assert await theirs.get(record.id) is None
            assert await theirs.end(record.id, "revoked", now=NOW) is None
            renewed = theirs.renew(
                record.id, version=1, now=NOW, expires_at=later, sent_before=NOW, sent_at_most=9, grant={}
            )
            assert await renewed is None
            await theirs.attribute(record.id, user_id)
            await theirs.note_delivery(record.id, 1, "sent")
            await theirs.forget(record.id, "hash")
        assert await theirs.find(None, pending.email_key, now=NOW) is None
        assert [list(await theirs.list()), list(await theirs.list(inviter_id=user_id))] == [[], []]
        assert await theirs.expire(now=later, limit=9) == 0
        assert list(await theirs.aged(before=later, limit=9)) == []
        await add_invitation(admins, created_at=later, expires_at=later + HOUR)
        assert [await users.invitations.get(record.id) for record in (pending, ended)] == rows


@pytest.mark.anyio
class InvitationSuite(InvitationTests, InvitationChangeTests, InvitationAgeTests, InvitationRaceTests):
    """Tests of the contract of ``InvitationStore``, with the fixtures of ``StoreSuite``.

    The store must also store users, because users make some of the invitations.
    """
