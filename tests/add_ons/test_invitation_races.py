"""Races for an invitation, over separate connections, on SQLite and PostgreSQL: each has one winner."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import APPLICATION, Invitation
from asgi_auth.errors import (
    ForbiddenError,
    IdentityTakenError,
    InvalidTokenError,
    RateLimitedError,
    ValidationError,
)
from asgi_auth.limits import Limit
from asgi_auth.senders import MemorySender
from asgi_auth.store import Work
from asgi_auth.strategies import Password
from asgi_auth.testing import FakeClock
from asgi_auth.testing.stores.records import together
from tests.add_ons.inviting import (
    ROLE,
    Provider,
    Proving,
    Roles,
    admin_of,
    invitations,
    invite,
    joining,
    member_of,
    newest_token,
    states,
)
from tests.postgres import database
from tests.support import EMAIL, OTHER_EMAIL, LocalAuthentication, registration
from tests.workers import OnPostgres, OnSQLite, overtake, workers

pytestmark = pytest.mark.anyio

AT_ONCE = 16
ROUNDS = 4
"""How often a race of two runs: the database decides which one is first."""

Shared = OnSQLite | OnPostgres
Act = Callable[[LocalAuthentication], Awaitable[Any]]


@pytest.fixture(params=["sqlite", "postgres"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """An empty database of each kind, for several workers."""
    if request.param == "sqlite":
        yield OnSQLite(tmp_path)
        return
    async with database() as dsn:
        yield OnPostgres(dsn)


@asynccontextmanager
async def inviting(
    shared: Shared, grant: Any = None, hooks: tuple[Any, ...] = (), **options: Any
) -> AsyncIterator[list[LocalAuthentication]]:
    """Workers on one database, with one clock and one mailbox."""
    sender, limit = MemorySender(), Limit(1000, timedelta(days=1))
    chosen = {"may_invite": lambda *_: True, "grant": grant or Roles(), "per_address": limit, **options}
    add_ons, strategies = [*hooks, Invitation(sender=sender, **chosen)], [Password(), Provider()]
    async with workers(shared, 4, sender=sender, clock=FakeClock(), add_ons=add_ons, strategies=strategies) as auths:
        yield auths


async def race(auths: list[LocalAuthentication], acts: list[Act]) -> tuple[int, list[type]]:
    """Run the acts at once, spread over the workers; return the number of successes and the other acts' errors."""
    answers = await together(act(auths[number % len(auths)]) for number, act in enumerate(acts))
    lost = [type(answer) for answer in answers if isinstance(answer, Exception)]
    return len(answers) - len(lost), lost


async def register_with(token: str, auth: LocalAuthentication) -> Any:
    return await auth.strategy("password").register(joining(token))


async def accept_with(user: Any, token: str, auth: LocalAuthentication) -> Any:
    return await auth.add_on("invitation").accept(user, {"invitation_token": token})


async def decline_with(token: str, auth: LocalAuthentication) -> Any:
    return await auth.add_on("invitation").decline({"invitation_token": token})


async def test_race_of_registrations_has_one_winner(shared: Shared) -> None:
    """IN-1: of 16 registrations with one invitation, by two strategies, one creates a user and grants once."""
    roles = Roles()
    async with inviting(shared, roles) as auths:
        token = await invite(auths[0], grant=ROLE)
        before = await shared.count_rows("users")

        async def by_provider(number: int, auth: LocalAuthentication) -> Any:
            form = {"subject": f"alice{number}", "invitation_token": token}
            return await auth.strategy("provider").callback(form)

        acts: list[Act] = []
        for number in range(AT_ONCE // 2):
            acts += [partial(register_with, token), partial(by_provider, number)]
        won, lost = await race(auths, acts)

        assert (won, set(lost), len(lost)) == (1, {InvalidTokenError}, AT_ONCE - 1)
        assert (await shared.count_rows("users"), len(roles.granted)) == (before + 1, 1)
        [record] = await invitations(auths[1])
        assert (record.status, record.accepted_by) == ("accepted", roles.granted[0][0])


async def test_race_of_acceptances_grants_once(shared: Shared) -> None:
    """IN-1: 16 acceptances by the invited user succeed and grant once; those of another user are rejected."""
    roles = Roles()
    async with inviting(shared, roles) as auths:
        user, other = await member_of(auths[0]), await member_of(auths[0], OTHER_EMAIL)
        token = await invite(auths[0], grant=ROLE)
        acts: list[Act] = [partial(accept_with, user, token)] * AT_ONCE + [partial(accept_with, other, token)] * 4
        won, lost = await race(auths, acts)

        assert (won, len(lost), set(lost) <= {InvalidTokenError, ForbiddenError}) == (AT_ONCE, 4, True)
        assert roles.granted == [(user.id, {"role": "editor"})]


async def test_acceptance_overtaken_by_the_same_user_succeeds(shared: Shared) -> None:
    """IN-1: if a second click overtakes the first, both succeed and the grant is given once."""
    roles = Roles()
    async with inviting(shared, roles) as auths:
        user = await member_of(auths[0])
        token = await invite(auths[0], grant=ROLE)
        overtake(auths[0], partial(accept_with, user, token, auths[1]))

        assert await accept_with(user, token, auths[0]) == (user, None)
        assert roles.granted == [(user.id, ROLE)]


@pytest.mark.parametrize("late", ["accept", "decline"])
async def test_answer_overtaken_by_a_revocation_is_refused(shared: Shared, late: str) -> None:
    """IN-1: an invitation that is revoked after it was read is neither accepted nor declined."""
    roles = Roles()
    async with inviting(shared, roles) as auths:
        user = await member_of(auths[0])
        token = await invite(auths[0], grant=ROLE)
        [record] = await invitations(auths[0])
        answers: dict[str, Act] = {"accept": partial(accept_with, user, token), "decline": partial(decline_with, token)}
        overtake(auths[0], partial(auths[1].add_on("invitation").revoke, APPLICATION, record.id))

        with pytest.raises(InvalidTokenError):
            await answers[late](auths[0])
        assert (roles.granted, await states(auths[1])) == ([], ["revoked"])


async def test_resend_overtaken_by_another_sends_nothing(shared: Shared) -> None:
    """The slower of two resends is rejected because the last mail is too recent; one mail is sent."""
    async with inviting(shared) as auths:
        await invite(auths[0])
        [record] = await invitations(auths[0])
        auths[0].clock.advance(timedelta(minutes=1))
        resends = [partial(auth.add_on("invitation").resend, APPLICATION, record.id) for auth in auths[:2]]
        overtake(auths[0], resends[1])

        with pytest.raises(RateLimitedError):
            await resends[0]()
        assert len(auths[0].sender.messages) == 2
        await register_with(newest_token(auths[0]), auths[1])


@pytest.mark.parametrize("path", ["register", "accept"])
@pytest.mark.parametrize("against", ["revoke", "decline", "resend", "invite"])
async def test_race_of_acceptance_and_end_has_one_winner(shared: Shared, path: str, against: str) -> None:
    """IN-1: the first act wins and the other is rejected; an invitation that ended otherwise grants nothing."""
    for round_ in range(ROUNDS):
        roles = Roles()
        async with inviting(shared, roles) as auths:
            email = f"{path}{round_}@mail.example.org"
            user = await member_of(auths[0], email) if path == "accept" else None
            token = await invite(auths[0], email, grant=ROLE)
            auths[0].clock.advance(timedelta(minutes=1))
            [record] = [each for each in await invitations(auths[0]) if each.email == email]
            admin = await admin_of(auths[0])

            async def end(auth: LocalAuthentication) -> None:
                add_on = auth.add_on("invitation")
                if against == "decline":
                    await add_on.decline({"invitation_token": token})  # noqa: B023  # awaited in this round
                elif against == "invite":
                    await add_on.invite(admin, email, grant={"role": "viewer"})  # noqa: B023
                else:
                    await getattr(add_on, against)(APPLICATION, record.id)  # noqa: B023

            act = partial(register_with, token) if user is None else partial(accept_with, user, token)
            both: list[Act] = [act, end]
            won, lost = await race(auths, both[:: 1 if round_ % 2 else -1])
            after = [each for each in await invitations(auths[1]) if each.email == email]
            accepted = [each for each in after if each.status == "accepted"]

            assert roles.granted == [(each.accepted_by, ROLE) for each in accepted]
            assert len(accepted) <= 1
            if against != "invite":  # inviting a user who has just joined creates a new invitation
                assert (won, len(lost), len(after)) == (1, 1, 1)
                assert lost[0] in (InvalidTokenError, ValidationError, RateLimitedError)
                ended = {"revoke": "revoked", "decline": "declined", "resend": "pending"}[against]
                assert after[0].status == ("accepted" if accepted else ended)
            assert [each.version for each in accepted] == [1] * len(accepted)
            found = await auths[0].accounts.find("email", email)
            assert (found is None) is (user is None and accepted == [])


async def test_race_of_acceptance_and_expiry_is_decided_by_the_statement(shared: Shared) -> None:
    """CVE-2025-64708: the time of the accepting statement decides, not the time at which the row was read."""
    roles = Roles()

    async with inviting(shared, roles) as auths:
        token, clock = await invite(auths[0]), auths[0].clock
        user = await member_of(auths[0])
        clock.advance(timedelta(days=7, seconds=-1))

        async def expire() -> None:
            clock.advance(timedelta(seconds=1))

        for act in (partial(register_with, token), partial(accept_with, user, token)):
            overtake(auths[0], expire)
            with pytest.raises(InvalidTokenError):
                await act(auths[0])
            clock.advance(timedelta(seconds=-1))
        await auths[1].prune()

        assert roles.granted == []
        [record] = await invitations(auths[1])
        assert record.status == "pending"


async def test_race_of_sweep_and_acceptance_accepts_nothing(shared: Shared) -> None:
    """An expired invitation is rejected before and after the sweep marks it as expired."""
    async with inviting(shared) as auths:
        token = await invite(auths[0])
        auths[0].clock.advance(timedelta(days=7))
        acts: list[Act] = [partial(register_with, token)] * 4 + [lambda auth: auth.prune()] * 4
        won, lost = await race(auths, acts)

        assert (won, lost) == (4, [InvalidTokenError] * 4)
        assert [each.status for each in await invitations(auths[0])] == ["expired"]


@pytest.mark.parametrize("inviters", ["one", "several", "the application"])
async def test_race_of_invitations_creates_one_row(shared: Shared, inviters: str) -> None:
    """One address gets one pending invitation and one mail, from any inviter; only RateLimitedError is raised."""
    async with inviting(shared) as auths:
        admin = await admin_of(auths[0])
        users = [await member_of(auths[0], f"u{number}@mail.example.org") for number in range(4)]

        async def act(number: int, auth: LocalAuthentication) -> Any:
            inviter = {"one": admin, "several": users[number % 4], "the application": APPLICATION}[inviters]
            return await auth.add_on("invitation").invite(inviter, "Alice@mail.example.org" if number % 2 else EMAIL)

        won, lost = await race(auths, [partial(act, number) for number in range(8)])

        assert [each.status for each in await invitations(auths[1])] == ["pending"]
        assert len(auths[0].sender.messages) == 1
        assert won >= 1
        assert set(lost) <= {RateLimitedError}


async def test_race_of_resends_sends_one(shared: Shared) -> None:
    """The race makes one new version and sends one mail, whose link is valid."""
    async with inviting(shared) as auths:
        await invite(auths[0])
        [record] = await invitations(auths[0])
        auths[0].clock.advance(timedelta(minutes=1))
        won, lost = await race(auths, [lambda auth: auth.add_on("invitation").resend(APPLICATION, record.id)] * 8)

        assert (won, lost) == (1, [RateLimitedError] * 7)
        assert [each.version for each in await invitations(auths[1])] == [2]
        assert len(auths[0].sender.messages) == 2
        await register_with(newest_token(auths[0]), auths[1])


async def test_race_for_the_last_seat_has_one_winner(shared: Shared) -> None:
    """Two users, one seat: the application's guarded statement in the same transaction admits one of them."""
    taken = "UPDATE seats SET free = free - 1 WHERE free > 0"

    async def take_seat(user: Any, data: Mapping[str, Any], work: Work[Any]) -> None:
        if isinstance(shared, OnSQLite):
            changed = (await work.connection.execute(taken)).rowcount
        else:
            changed = int((await work.connection.execute(taken)).split()[-1])
        if not changed:
            raise ForbiddenError("no seat left")

    async with inviting(shared, take_seat) as auths:
        async with auths[0].services.store.transaction() as work:
            await work.connection.execute("CREATE TABLE seats (free INTEGER NOT NULL)")
            await work.connection.execute("INSERT INTO seats VALUES (1)")
        user = await member_of(auths[0], OTHER_EMAIL)
        tokens = [await invite(auths[0], email) for email in (EMAIL, OTHER_EMAIL)]
        won, lost = await race(auths, [partial(register_with, tokens[0]), partial(accept_with, user, tokens[1])])

        assert (won, lost) == (1, [ForbiddenError])
        assert sorted(each.status for each in await invitations(auths[1])) == ["accepted", "pending"]


async def test_race_of_claims_has_one_winner(shared: Shared) -> None:
    """Case C: a stranger's unconfirmed account is claimed once, and concurrent attempts cause no deadlock."""
    async with inviting(shared, None, (Proving(),)) as auths:
        await member_of(auths[0], confirmed=False)
        token = await invite(auths[0])
        user = await member_of(auths[0], OTHER_EMAIL)
        acts: list[Act] = [partial(register_with, token)] * 6 + [partial(accept_with, user, token)] * 6
        won, lost = await race(auths, acts)

        assert (won, len(lost)) == (1, 11)
        assert set(lost) <= {InvalidTokenError, ForbiddenError}


async def test_race_of_invited_and_open_registration_has_one_winner(shared: Shared) -> None:
    """AC-9: one address gets one account; an invitation that lost the race is not consumed."""
    for round_ in range(ROUNDS):
        email = f"alice{round_}@mail.example.org"
        async with inviting(shared) as auths:
            token = await invite(auths[0], email)
            acts: list[Act] = [
                partial(register_with, token),
                lambda auth: auth.strategy("password").register(registration(email)),  # noqa: B023
            ]
            won, lost = await race(auths, acts[:: 1 if round_ % 2 else -1])
            [record] = [each for each in await invitations(auths[1]) if each.email == email]
            found = await auths[1].accounts.find("email", email)

            assert (won, lost) == (1, [IdentityTakenError])
            assert found is not None
            invited = found.account.confirmed_at is not None
            assert record.status == ("accepted" if invited else "pending")
