"""The state machine of invitations is compared with a model of it, in any order of steps."""

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asgi_auth.add_ons import APPLICATION
from asgi_auth.errors import (
    AuthError,
    ForbiddenError,
    IdentityTakenError,
    InvalidTokenError,
    RateLimitedError,
    ValidationError,
)
from asgi_auth.limits import Limit
from tests.add_ons.inviting import Roles, invitations, joining, make_inviting, member_of, newest_token

pytestmark = pytest.mark.slow

EMAILS = ("alice@mail.example.org", "bob@mail.example.org")
INVITERS = ("ann@mail.example.org", "ben@mail.example.org", None)
LIFETIME, LONGEST, PAUSE, MOST = timedelta(days=2), timedelta(days=4), timedelta(minutes=1), 3

emails, inviters = st.sampled_from(EMAILS), st.sampled_from(INVITERS)
roles_, ages = st.sampled_from(["editor", "viewer"]), st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4])


@dataclass
class Row:
    """The expected state of one invitation."""

    id: str
    email: str
    inviter: str | None
    role: str
    created_at: datetime
    sent_at: datetime
    expires_at: datetime
    status: str = "pending"
    version: int = 1
    reason: str | None = None
    accepted_by: str | None = None


@dataclass
class Model:
    """The expected state of the database."""

    rows: dict[str, Row] = field(default_factory=dict)
    tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    granted: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    barred: set[str | None] = field(default_factory=set)


class Invitations(RuleBasedStateMachine):  # pragma: no cover  # hypothesis chooses the steps
    """Two addresses, two inviters and the application; users open mails late, twice, or mails of another user."""

    def __init__(self) -> None:
        super().__init__()
        self._loop, self._directory = asyncio.Runner(), tempfile.TemporaryDirectory()
        self.model, self.roles = Model(), Roles()
        self.mails: list[str] = []
        limit = Limit(10_000, timedelta(days=1))
        self.auth = make_inviting(
            Path(self._directory.name),
            roles=self.roles,
            registration="invite_only",
            invitation={
                "may_invite": lambda inviter, *_: inviter.email not in self.model.barred,
                "may_revoke": lambda actor, invitation: actor.email == INVITERS[0],
                "lifetime": LIFETIME,
                "extends_to": LONGEST,
                "resend_after": PAUSE,
                "sent_at_most": MOST,
                "per_inviter": limit,
                "per_address": limit,
            },
        )
        self.people: dict[str | None, Any] = {None: APPLICATION}
        for email in INVITERS[:2]:
            self.people[email] = self.run(member_of(self.auth, str(email)))
        self.model.users[EMAILS[1]] = self.run(member_of(self.auth, EMAILS[1])).id

    def run(self, act: Coroutine[Any, Any, Any]) -> Any:
        """Return the answer of *act*, or the error that it raises."""
        try:
            return self._loop.run(act)
        except AuthError as error:
            return error

    def teardown(self) -> None:
        self.run(self.auth.close())
        self._loop.close()
        self._directory.cleanup()

    @property
    def verbs(self) -> Any:
        return self.auth.add_on("invitation")

    @property
    def now(self) -> datetime:
        return self.auth.clock()

    def live(self, row: Row) -> bool:
        return row.status == "pending" and row.expires_at > self.now

    def pending(self, email: str) -> Row | None:
        return next((row for row in self.model.rows.values() if row.email == email and self.live(row)), None)

    def mailed(self, row: Row) -> None:
        """Record that another mail was sent."""
        self.mails.append(newest_token(self.auth))
        assert self.mails[-1] not in self.model.tokens
        self.model.tokens[self.mails[-1]] = (row.id, row.version)

    def mail(self, age: int) -> str:
        """Return the token of one of the newest mails."""
        return self.mails[-1 - age % len(self.mails)]

    def renewed(self, row: Row) -> bool:
        """Return whether another mail may be sent now; count it if so."""
        if row.sent_at + PAUSE > self.now or row.version >= MOST:
            return False
        row.version, row.sent_at = row.version + 1, self.now
        row.expires_at = min(self.now + LIFETIME, row.created_at + LONGEST)
        return True

    def sound(self, row: Row) -> bool:
        """Return whether the inviter may still invite; if not, the next use revokes the invitation."""
        if row.inviter in self.model.barred:
            row.status, row.reason = "revoked", "inviter_lost_authority"
            return False
        return True

    def opened(self, token: str) -> Row | None:
        """Return the invitation of a mail if its link is live, else None."""
        invitation, version = self.model.tokens[token]
        row = self.model.rows[invitation]
        return row if self.live(row) and row.version == version else None

    # --- steps

    @rule(minutes=st.sampled_from([1, 1, 1, 60, 24 * 60, 48 * 60]))
    def time_goes_by(self, minutes: int) -> None:
        self.auth.clock.advance(timedelta(minutes=minutes))

    @rule(inviter=st.sampled_from(INVITERS[:2]))
    def change_of_authority(self, inviter: str) -> None:
        self.model.barred ^= {inviter}

    @rule()
    def sweep(self) -> None:
        self.run(self.auth.prune())

    @initialize(inviter=inviters)
    def begin(self, inviter: str | None) -> None:
        self.invite(inviter, EMAILS[1], "editor")

    @rule(inviter=inviters, email=emails, role=roles_)
    def invite_somebody(self, inviter: str | None, email: str, role: str) -> None:
        self.invite(inviter, email, role)

    def invite(self, inviter: str | None, email: str, role: str) -> None:
        answer = self.run(self.verbs.invite(self.people[inviter], email, grant={"role": role}))
        if inviter in self.model.barred:
            assert isinstance(answer, ForbiddenError)
            return
        row = self.pending(email)
        if row is not None and row.inviter == inviter:
            if not self.renewed(row):
                assert isinstance(answer, RateLimitedError)
                return
            row.role = role
            self.mailed(row)
            return
        assert answer == (None, None)
        if row is not None and inviter == INVITERS[1]:
            return
        if row is not None:
            row.status, row.reason = "revoked", "superseded"
        [fresh] = [each for each in self.run(invitations(self.auth)) if each.id not in self.model.rows]
        self.model.rows[fresh.id] = Row(fresh.id, email, inviter, role, self.now, self.now, self.now + LIFETIME)
        self.mailed(self.model.rows[fresh.id])

    @rule(age=ages, actor=inviters)
    def resend(self, age: int, actor: str | None) -> None:
        mail = self.mail(age)
        row = self.model.rows[self.model.tokens[mail][0]]
        answer = self.run(self.verbs.resend(self.people[actor], row.id))
        foreign, was_live = actor == INVITERS[1] != row.inviter, self.live(row)
        if foreign or not self.live(row) or not self.sound(row):
            lost = row.reason == "inviter_lost_authority" and was_live
            assert type(answer) is (ForbiddenError if foreign or lost else ValidationError)
        elif not self.renewed(row):
            assert isinstance(answer, RateLimitedError)
        else:
            self.mailed(row)

    @rule(age=ages, actor=inviters)
    def revoke(self, age: int, actor: str | None) -> None:
        mail = self.mail(age)
        row = self.model.rows[self.model.tokens[mail][0]]
        answer = self.run(self.verbs.revoke(self.people[actor], row.id))
        if actor == INVITERS[1] != row.inviter:
            assert isinstance(answer, ForbiddenError)
        elif not self.live(row):
            assert isinstance(answer, ValidationError)
        else:
            row.status, row.reason = "revoked", "revoked"

    @rule(age=ages)
    def look(self, age: int) -> None:
        mail = self.mail(age)
        answer = self.run(self.verbs.view({"invitation_token": mail}))
        row = self.opened(mail)
        assert isinstance(answer, InvalidTokenError) if row is None else answer.data["email"] == row.email

    @rule(age=ages)
    def decline(self, age: int) -> None:
        mail = self.mail(age)
        row, answer = self.opened(mail), self.run(self.verbs.decline({"invitation_token": mail}))
        assert isinstance(answer, InvalidTokenError) is (row is None)
        if row is not None:
            row.status = "declined"

    @rule(age=ages, email=st.sampled_from((*EMAILS, None)))
    def register(self, age: int, email: str | None) -> None:
        mail = self.mail(age)
        form = joining(mail, **({} if email is None else {"email": email}))
        row, answer = self.opened(mail), self.run(self.auth.strategy("password").register(form))
        if row is None or not self.sound(row):
            assert isinstance(answer, InvalidTokenError)
        elif email not in (None, row.email):
            assert isinstance(answer, ValidationError)
        elif row.email in self.model.users:
            assert isinstance(answer, IdentityTakenError)
        else:
            self.model.users[row.email] = answer.user.id
            self.accepted(row, answer.user.id)

    @rule(age=ages, own=st.sampled_from([True, True, False]))
    def accept(self, age: int, own: bool) -> None:
        mail = self.mail(age)
        row, done = self.opened(mail), self.model.rows[self.model.tokens[mail][0]]
        email = done.email if own and done.email in self.model.users else str(INVITERS[0])
        found = self.run(self.auth.accounts.find("email", email))
        answer = self.run(self.verbs.accept(found.user, {"invitation_token": mail}))
        again = (done.accepted_by, done.version) == (found.user.id, self.model.tokens[mail][1])
        if again and self.now < done.expires_at:  # the link has not expired
            assert answer == (found.user, None)
        elif row is None or not self.sound(row) or row.email != email:
            assert type(answer) is (ForbiddenError if row is not None and row.reason is None else InvalidTokenError)
        else:
            self.accepted(row, found.user.id)

    def accepted(self, row: Row, user_id: str) -> None:
        row.status, row.accepted_by = "accepted", user_id
        self.model.granted.append((user_id, {"role": row.role}))

    # --- invariants

    @invariant()
    def rows_are_as_they_should_be(self) -> None:
        kept = {row.id: row for row in self.run(invitations(self.auth))}
        assert kept.keys() == self.model.rows.keys()
        for row in self.model.rows.values():
            known = kept[row.id]
            late = row.status == "pending" and not self.live(row)
            assert known.status == row.status or (late and known.status == "expired")
            assert (known.version, known.sent_count, known.grant) == (row.version, row.version, {"role": row.role})
            assert (known.expires_at, known.reason, known.accepted_by) == (row.expires_at, row.reason, row.accepted_by)

    @invariant()
    def only_what_was_accepted_was_granted(self) -> None:
        assert self.roles.granted == self.model.granted


Invitations.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestInvitations = Invitations.TestCase
