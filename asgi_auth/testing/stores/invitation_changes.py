"""The contract of a store for invitations: changes and ends."""
# ruff: noqa: S101  # the asserts of tests

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.store import InvitationStatus, Store
from asgi_auth.testing.stores.records import HOUR, NOW, SECOND, UNSTORABLE, add_invitation, add_user, invitation_of

TERMINAL: tuple[InvitationStatus, ...] = ("accepted", "revoked", "declined", "expired")
RENEWAL: dict[str, Any] = {
    "version": 4,
    "now": NOW + SECOND,
    "expires_at": NOW + 3 * HOUR,
    "sent_before": NOW,
    "sent_at_most": 6,
}
"""Arguments that renew an invitation of version 4 that was sent 5 times; each guard is at its limit."""


class InvitationChangeTests:
    """``InvitationStore``: how they change and end."""

    @pytest.mark.parametrize(
        "grant", [None, {}, {"role": "admin", "text": "🙂" * 10_000}], ids=["kept", "empty", "new"]
    )
    async def test_invitation_renew_makes_the_next_version(self, store: Store[Any], grant: Any) -> None:
        """A renewal writes its values and keeps the others: inviter, address, scope and creation."""
        scoped = store.scope("user")
        inviter_id = (await add_user(scoped)).account.user_id
        old = await add_invitation(
            scoped, version=4, sent_count=5, delivery="failed", grant={"role": "editor"}, inviter_id=inviter_id
        )
        renewed = await scoped.invitations.renew(old.id, **RENEWAL, grant=grant)
        assert renewed == replace(
            old,
            version=5,
            sent_count=6,
            last_sent_at=NOW + SECOND,
            expires_at=NOW + 3 * HOUR,
            delivery="waiting",
            grant=old.grant if grant is None else grant,
        )
        assert await scoped.invitations.get(old.id) == renewed
        assert await scoped.invitations.renew(old.id, **RENEWAL) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"version": 3},
            {"version": 5},
            {"version": 2**63},
            {"now": NOW + HOUR},
            {"now": NOW + HOUR + SECOND},
            {"sent_before": NOW - timedelta(microseconds=1)},
            {"sent_at_most": 5},
            {"sent_at_most": 0},
        ],
        ids=["older", "newer", "no version", "at the end", "after the end", "too soon", "too often", "never"],
    )
    async def test_invitation_renew_misses_by_each_guard(self, store: Store[Any], changes: dict[str, Any]) -> None:
        """If one guard fails, nothing is written."""
        scoped = store.scope("user")
        old = await add_invitation(scoped, version=4, sent_count=5)
        assert await scoped.invitations.renew(old.id, **{**RENEWAL, **changes}, grant={"role": "admin"}) is None
        assert await scoped.invitations.get(old.id) == old
        assert await scoped.invitations.renew(old.id, **RENEWAL) is not None

    @pytest.mark.parametrize("status", TERMINAL)
    async def test_invitation_that_ended_stays_as_it_ended(self, store: Store[Any], status: Any) -> None:
        """An ended invitation is not renewed, ended again, or marked as expired."""
        scoped = store.scope("user")
        old = await add_invitation(scoped, version=4, sent_count=5)
        ended = await scoped.invitations.end(old.id, status, now=NOW)
        assert await scoped.invitations.renew(old.id, **RENEWAL) is None
        for again in TERMINAL:
            assert await scoped.invitations.end(old.id, again, now=NOW + SECOND) is None
        assert await scoped.invitations.expire(now=NOW + 9 * HOUR, limit=9) == 0
        assert await scoped.invitations.get(old.id) == ended

    async def test_invitation_change_refuses_unstorable_text(self, store: Store[Any]) -> None:
        """RP-8: text that some database cannot store is not written, and the invitation stays pending."""
        scoped = store.scope("user")
        old = await add_invitation(scoped, version=4, sent_count=5)
        for text in UNSTORABLE:
            for grant in ({"a": [text]}, {text: 1}):
                with pytest.raises(ValidationError):
                    await scoped.invitations.renew(old.id, **RENEWAL, grant=grant)
            with pytest.raises(ValidationError):
                await scoped.invitations.end(old.id, "revoked", now=NOW, reason=text)
            with pytest.raises(ValidationError):
                await scoped.invitations.end(old.id, "accepted", now=NOW, accepted_via=text)
        assert await scoped.invitations.get(old.id) == old

    @pytest.mark.parametrize("status", TERMINAL)
    @pytest.mark.parametrize("version", [None, 4])
    async def test_invitation_end_writes_what_it_is_told(self, store: Store[Any], status: Any, version: Any) -> None:
        """An end is written with all its values. The returned record has the grant."""
        scoped = store.scope("user")
        alice, bob = [(await add_user(scoped, name)).account.user_id for name in ("alice", "bob")]
        old = await add_invitation(scoped, version=4, grant={"role": "editor"})
        said: dict[str, Any] = {"accepted_by": alice, "accepted_via": "password", "ended_by": bob, "reason": "Zoë 🙂"}
        ended = await scoped.invitations.end(old.id, status, now=NOW + SECOND, version=version, **said)
        assert ended == replace(old, status=status, ended_at=NOW + SECOND, **said)
        assert await scoped.invitations.get(old.id) == ended

    @pytest.mark.parametrize("offset", [-SECOND, 0 * SECOND, SECOND], ids=["before", "at", "after"])
    async def test_invitation_end_is_in_time(self, store: Store[Any], offset: Any) -> None:
        """An invitation can be ended a second before it expires, but not at that second or later."""
        scoped = store.scope("user")
        old = await add_invitation(scoped)
        ended = await scoped.invitations.end(old.id, "accepted", now=NOW + HOUR + offset)
        assert (ended is not None) is (offset < 0 * SECOND)
        assert await scoped.invitations.get(old.id) == (ended or old)

    @pytest.mark.parametrize("version", [0, 3, 5, 2**63])
    async def test_invitation_end_is_of_its_version(self, store: Store[Any], version: int) -> None:
        """The token of another version ends nothing."""
        scoped = store.scope("user")
        old = await add_invitation(scoped, version=4)
        assert await scoped.invitations.end(old.id, "accepted", now=NOW, version=version) is None
        assert await scoped.invitations.get(old.id) == old

    async def test_invitation_is_undone_with_its_transaction(self, store: Store[Any]) -> None:
        """FT-2: a block that raises undoes its changes: one invitation is still pending, the other does not exist."""
        scoped = store.scope("user")
        old = await add_invitation(scoped)
        over = await add_invitation(scoped, scope="team", expires_at=NOW)

        async def fail() -> None:
            async with scoped.transaction() as work:
                assert await work.invitations.end(old.id, "accepted", now=NOW) is not None
                await add_invitation(work)
                await add_invitation(work, scope="team")
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert await scoped.invitations.find(None, old.email_key, now=NOW) == old
        assert await scoped.invitations.get(over.id) == over
        assert len(await scoped.invitations.list()) == 2

    async def test_invitation_that_is_refused_dooms_no_transaction(self, store: Store[Any], second: Store[Any]) -> None:
        """After an insert that was refused, and an end that missed, the block goes on and is committed."""
        scoped = store.scope("user")
        old = await add_invitation(scoped)
        async with scoped.transaction() as work:
            assert await work.invitations.insert(invitation_of()) is False
            assert await work.invitations.end(old.id, "accepted", now=NOW, version=2) is None
            ended = await work.invitations.end(old.id, "revoked", now=NOW)
            again = await add_invitation(work)
        assert await second.scope("user").invitations.get(old.id) == ended
        assert await second.scope("user").invitations.get(again.id) == again

    async def test_invitation_is_attributed_once(self, store: Store[Any]) -> None:
        """The accepting user is stored once, after the acceptance, and only for an accepted invitation."""
        scoped = store.scope("user")
        alice, bob = [(await add_user(scoped, name)).account.user_id for name in ("alice", "bob")]
        old = await add_invitation(scoped)
        await scoped.invitations.attribute(old.id, bob)
        assert await scoped.invitations.get(old.id) == old
        ended = await scoped.invitations.end(old.id, "accepted", now=NOW)
        assert ended is not None
        for user_id in (alice, bob):
            await scoped.invitations.attribute(old.id, user_id)
        assert await scoped.invitations.get(old.id) == replace(ended, accepted_by=alice)

        revoked = await add_invitation(scoped)
        await scoped.invitations.end(revoked.id, "revoked", now=NOW)
        await scoped.invitations.attribute(revoked.id, alice)
        found = await scoped.invitations.get(revoked.id)
        assert found is not None
        assert found.accepted_by is None

    async def test_invitation_notes_the_newest_delivery(self, store: Store[Any]) -> None:
        """The delivery is stored for the newest version only, also if the invitation has ended meanwhile."""
        scoped = store.scope("user")
        old = await add_invitation(scoped, version=4)
        for version in (3, 5, 2**63):
            await scoped.invitations.note_delivery(old.id, version, "sent")
        assert await scoped.invitations.get(old.id) == old
        deliveries: tuple[Literal["failed", "sent"], ...] = ("failed", "sent")
        for delivery in deliveries:
            await scoped.invitations.note_delivery(old.id, 4, delivery)
            assert await scoped.invitations.get(old.id) == replace(old, delivery=delivery)
        await scoped.invitations.end(old.id, "accepted", now=NOW)
        await scoped.invitations.note_delivery(old.id, 4, "failed")
        found = await scoped.invitations.get(old.id)
        assert found is not None
        assert (found.status, found.delivery) == ("accepted", "failed")


class InvitationAgeTests:
    """``InvitationStore``: expiry and forgetting."""

    async def test_invitation_expire_writes_down_what_is_over(self, store: Store[Any]) -> None:
        """Expired invitations are marked in batches, with the time of their expiry. The others stay."""
        scoped = store.scope("user")
        live = await add_invitation(scoped, expires_at=NOW + SECOND)
        over = [
            await add_invitation(scoped, scope=str(number), expires_at=NOW - number * SECOND) for number in range(3)
        ]
        assert [await scoped.invitations.expire(now=NOW, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await scoped.invitations.get(live.id) == live
        for record in over:
            expired = replace(record, status="expired", ended_at=record.expires_at)
            assert await scoped.invitations.get(record.id) == expired

    async def test_invitation_is_forgotten_when_it_ended(self, store: Store[Any]) -> None:
        """An ended invitation loses its address and grant. A pending one keeps them until its last second."""
        scoped = store.scope("user")
        pending = await add_invitation(scoped, grant={"role": "editor"})
        await scoped.invitations.forget(pending.id, "hash")
        assert await scoped.invitations.get(pending.id) == pending

        ended = await scoped.invitations.end(pending.id, "revoked", now=NOW, reason="superseded")
        assert ended is not None
        await scoped.invitations.forget(ended.id, "hash")
        assert await scoped.invitations.get(ended.id) == replace(ended, email="", email_key="hash", grant={})
        again = await add_invitation(scoped, email_key="hash")
        assert await scoped.invitations.find(None, "hash", now=NOW) == again

    async def test_invitation_aged_has_what_is_to_be_forgotten(self, store: Store[Any]) -> None:
        """Invitations that ended before an instant are returned in batches until forgotten; never pending ones."""
        scoped = store.scope("user")
        await add_invitation(scoped, expires_at=NOW - HOUR)
        ended = [
            await scoped.invitations.end(
                (await add_invitation(scoped, scope=str(offset))).id, "declined", now=NOW + offset * SECOND
            )
            for offset in range(-2, 3)
        ]
        pages = []
        for _ in range(3):
            pages.append(list(await scoped.invitations.aged(before=NOW + SECOND, limit=2)))
            for record in pages[-1]:
                await scoped.invitations.forget(record.id, f"hash of {record.scope}")
        assert [len(page) for page in pages] == [2, 1, 0]
        aged = [record for page in pages for record in page]
        assert sorted(aged, key=lambda record: int(record.scope or 0)) == ended[:3]
