"""The contract of a store for invitations in races, over separate connections."""
# ruff: noqa: S101  # the asserts of tests

from typing import Any

from asgi_auth.store import InvitationRecord, InvitationStatus, Store
from asgi_auth.testing.stores.records import HOUR, NOW, SECOND, add_invitation, add_user, invitation_of, together

RENEWAL: dict[str, Any] = {
    "version": 1,
    "now": NOW,
    "expires_at": NOW + 2 * HOUR,
    "sent_before": NOW,
    "sent_at_most": 99,
}


def won(answers: list[Any]) -> list[InvitationRecord]:
    """The records of the calls that won. The other calls return None, and no call raises."""
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    return [answer for answer in answers if answer is not None]


class InvitationRaceTests:
    """``InvitationStore``: one of many calls at once wins."""

    async def test_invitation_end_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """If 16 calls of every kind end an invitation at once, one wins, and its end stays."""
        both = [store.scope("user").invitations, second.scope("user").invitations]
        record = await add_invitation(store.scope("user"))
        statuses: tuple[InvitationStatus, ...] = ("accepted", "accepted", "revoked", "declined")
        answers = await together(
            both[number % 2].end(record.id, statuses[number % 4], now=NOW, reason=str(number)) for number in range(16)
        )
        [ended] = won(answers)
        assert await both[0].get(record.id) == ended

    async def test_invitation_is_accepted_once_by_transactions(self, store: Store[Any], second: Store[Any]) -> None:
        """If 8 transactions at once accept and write more, one of them commits its writes."""
        scopes = [store.scope("user"), second.scope("user")]
        record = await add_invitation(scopes[0])

        async def accept(number: int) -> InvitationRecord | None:
            async with scopes[number % 2].transaction() as work:
                ended = await work.invitations.end(record.id, "accepted", now=NOW, version=1)
                if ended is not None:
                    await add_user(work, f"u{number}")
                    await work.invitations.attribute(record.id, (await add_user(work, f"v{number}")).account.user_id)
                return ended

        [_] = won(await together(accept(number) for number in range(8)))
        names = [f"u{number}@example.com" for number in range(8)]
        found = [await scopes[0].users.find("email", name) for name in names]
        assert sum(user is not None for user in found) == 1

    async def test_invitation_end_against_renew(self, store: Store[Any], second: Store[Any]) -> None:
        """An end and a renewal of one version race, and one wins: the old token never ends the new version."""
        one, two = store.scope("user"), second.scope("user")
        for number in range(8):
            record = await add_invitation(one, scope=str(number))
            calls = [
                one.invitations.end(record.id, "accepted", now=NOW, version=1),
                two.invitations.renew(record.id, **RENEWAL),
            ]
            [winner] = won(await together(calls[:: 1 if number % 2 else -1]))
            assert (winner.status, winner.version) in (("accepted", 1), ("pending", 2))
            assert await one.invitations.get(record.id) == winner

    async def test_invitation_revoke_against_renew(self, store: Store[Any], second: Store[Any]) -> None:
        """A revocation of any version, before or after a renewal, is never undone."""
        one, two = store.scope("user"), second.scope("user")
        for number in range(8):
            record = await add_invitation(one, scope=str(number))
            calls = [
                one.invitations.end(record.id, "revoked", now=NOW),
                two.invitations.renew(record.id, **RENEWAL),
            ]
            winners = won(await together(calls[:: 1 if number % 2 else -1]))
            found = await one.invitations.get(record.id)
            assert found is not None
            assert (found.status, found.version) == ("revoked", len(winners))
            assert found in winners

    async def test_invitation_renew_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """If 16 calls renew one version at once, one makes the next version."""
        both = [store.scope("user").invitations, second.scope("user").invitations]
        record = await add_invitation(store.scope("user"))
        answers = await together(
            both[number % 2].renew(record.id, **RENEWAL, grant={"number": number}) for number in range(16)
        )
        [renewed] = won(answers)
        assert (renewed.version, renewed.sent_count) == (2, 2)
        assert await both[0].get(record.id) == renewed

    async def test_invitation_insert_is_won_by_one_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """If 12 calls insert for one scope and address at once, one is stored, also if an older one just expired."""
        both = [store.scope("user").invitations, second.scope("user").invitations]
        for scope in (None, "", "team"):
            for hours in range(2):
                now = NOW + hours * HOUR
                records = [invitation_of(scope=scope, created_at=now, expires_at=now + HOUR) for _ in range(12)]
                answers = await together(both[number % 2].insert(record) for number, record in enumerate(records))
                assert sorted(map(bool, answers)) == [False] * 11 + [True]
                assert [isinstance(answer, bool) for answer in answers] == [True] * 12
                assert await both[0].find(scope, "eve@example.com", now=now) in records
        assert len(await both[0].list()) == 6
        assert len(await both[0].list(status="pending")) == 3

    async def test_invitation_end_against_expire(self, store: Store[Any], second: Store[Any]) -> None:
        """An end just before the expiry and a sweep just after it race, and one wins."""
        one, two = store.scope("user"), second.scope("user")
        for number in range(8):
            record = await add_invitation(one, scope=str(number))
            calls: list[Any] = [
                one.invitations.end(record.id, "accepted", now=NOW + HOUR - SECOND),
                two.invitations.expire(now=NOW + HOUR, limit=9),
            ]
            answers = await together(calls[:: 1 if number % 2 else -1])
            found = await one.invitations.get(record.id)
            assert found is not None
            assert found.status == ("accepted" if 0 in answers else "expired")
            assert (found in answers, 1 in answers) in ((True, False), (False, True))

    async def test_invitation_expire_counts_each_once(self, store: Store[Any], second: Store[Any]) -> None:
        """If several sweeps run at once, one of them marks each invitation."""
        both = [store.scope("user").invitations, second.scope("user").invitations]
        for number in range(10):
            await add_invitation(store.scope("user"), scope=str(number))
        answers: list[Any] = await together(both[number % 2].expire(now=NOW + HOUR, limit=3) for number in range(4))
        assert sum(answers) + await both[0].expire(now=NOW + HOUR, limit=99) == 10
