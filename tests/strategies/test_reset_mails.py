"""Limits of reset mails for one address: what is mailed, what is counted, and what an answer reveals."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import StoreUnavailableError
from asgi_auth.limits import Limit
from asgi_auth.senders import MemorySender
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.web.plug import AuthPlug
from tests.asgi import JSON, PAGE, Answer, Headers, ask, tables
from tests.senders.test_smtp import Mailbox, mail_server
from tests.support import EMAIL, NEW_PASSWORD, OTHER_EMAIL, LocalAuthentication, mailed_token, make_auth, register
from tests.test_mail_faults import Refusing, Switch, unused_port
from tests.workers import OnPostgres, OnSQLite, resetting, valid_passwords, workers

pytestmark = pytest.mark.anyio

REQUEST, RESET = "/auth/password/reset_request", "/auth/password/reset"
TWICE = 2


def resettable(directory: Path, mails: int = TWICE, **options: Any) -> LocalAuthentication:
    """Return an ``Authentication`` that sends at most *mails* reset mails an hour to one address."""
    sender = MemorySender()
    strategies = [Password(resettable=Resettable(sender=sender, mails=Limit(mails, timedelta(hours=1))))]
    return make_auth(directory, sender=sender, **{"strategies": strategies, **options})


async def request(auth: LocalAuthentication, email: str = EMAIL, *, headers: Headers = ()) -> Answer:
    """Request a reset over HTTP; a mail has been sent when this returns."""
    return await ask(AuthPlug(auth), "POST", REQUEST, data={"email": email}, headers=headers)


def purposes(auth: LocalAuthentication) -> list[str]:
    """Return the purposes of the mails since the last call and clear the mailbox."""
    sent = [opts["purpose"] for _, _, opts in auth.sender.messages]
    auth.sender.messages.clear()
    return sent


@pytest.mark.parametrize("headers", [{}, JSON, PAGE], ids=["plain", "json", "page"])
async def test_reset_mails_are_limited_silently(tmp_path: Path, headers: Headers) -> None:
    """RL-6, EN-3: fifty requests send five mails; every answer has the same bytes as for an unknown address."""
    auth = make_auth(tmp_path)
    async with auth.running():
        await register(auth)
        answers = [await request(auth, headers=headers) for _ in range(50)]
        answers.append(await request(auth, OTHER_EMAIL, headers=headers))
        assert answers == [answers[0]] * 51
        assert answers[0].status == 200
        assert purposes(auth) == ["reset"] * 5


async def test_reset_mails_are_sent_again_after_the_window(tmp_path: Path) -> None:
    """RL-6: the window ends an hour after the first mail, not after the last."""
    auth = resettable(tmp_path)
    async with auth.running():
        await register(auth)
        sent = []
        for pause in (0, 40, 10, 9, 1, 0, 0):
            auth.clock.advance(timedelta(minutes=pause))
            await request(auth)
            sent.append(len(purposes(auth)))
        assert sent == [1, 1, 0, 0, 1, 1, 0]


async def test_window_of_reset_mails_is_the_lifetime_of_a_link(tmp_path: Path) -> None:
    """RL-3, RL-6: while a stranger uses up every mail, the newest link in the owner's mailbox stays valid."""
    sender = MemorySender()
    reset = Resettable(sender=sender, token_lifetime=timedelta(minutes=15))
    auth = make_auth(tmp_path, sender=sender, strategies=[Password(resettable=reset)])
    async with auth.running():
        await register(auth)
        for _ in range(100):
            await request(auth)
            await auth.services.tokens.peek("reset", mailed_token(auth))
            auth.clock.advance(timedelta(minutes=1))
        assert len(sender.messages) == 5 * 7


async def test_link_stays_valid_if_mails_are_used_up(tmp_path: Path) -> None:
    """RL-6: a request that sends no mail issues no token and invalidates none."""
    auth = resettable(tmp_path)
    async with auth.running():
        await register(auth)
        for _ in range(5):
            await request(auth)
        assert len(tables(tmp_path)["asgi_auth_tokens"]) <= 2
        answer = await ask(AuthPlug(auth), "POST", RESET, data=resetting(mailed_token(auth)))
        assert answer.status == 200
        assert await valid_passwords(auth, NEW_PASSWORD) == [NEW_PASSWORD]


async def test_notice_of_a_reset_is_not_counted(tmp_path: Path) -> None:
    """RL-6: the owner gets the notice of a changed password even if a thief has used up the mails."""
    auth = resettable(tmp_path, 1)
    async with auth.running():
        await register(auth)
        for _ in range(3):
            await request(auth)
        await ask(AuthPlug(auth), "POST", RESET, data=resetting(mailed_token(auth)))
        assert purposes(auth) == ["reset", "password_changed"]
        auth.clock.advance(timedelta(hours=1))
        await request(auth)  # the notice was not counted
        assert purposes(auth) == ["reset"]


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"email": EMAIL.upper()}},
        {"data": {"email": f"  {EMAIL} "}},
        {"json": {"email": EMAIL}},
        {"json": {"email": "Alice@MAIL.example.org"}},
        {"data": {"email": EMAIL}, "headers": {"Accept": "application/json"}},
    ],
    ids=["case", "spaces", "json", "domain", "accept"],
)
async def test_spellings_of_an_address_share_a_quota(tmp_path: Path, sent: Mapping[str, Any]) -> None:
    """RL-4: letter case, spaces, form and JSON share the count of one address."""
    auth = resettable(tmp_path)
    async with auth.running():
        await register(auth)
        await request(auth)
        await ask(AuthPlug(auth), "POST", REQUEST, **sent)
        assert purposes(auth) == ["reset"] * 2
        for again in ({"data": {"email": EMAIL}}, sent):
            await ask(AuthPlug(auth), "POST", REQUEST, **again)
        assert purposes(auth) == []


async def test_changed_spelling_or_user_name_keeps_the_count(tmp_path: Path) -> None:
    """RL-4: a user who changes the spelling of the address or the user name gets no additional mails."""
    sender = MemorySender()
    reset = Resettable(sender=sender, mails=Limit(TWICE, timedelta(hours=1)))
    strategy = Password(identity_field="username", register_fields=["email"], resettable=reset)
    auth = make_auth(tmp_path, sender=sender, strategies=[strategy])
    async with auth.running():
        user = await auth.accounts.create({"username": "alice", "email": EMAIL})
        for fields in ({}, {"email": "Alice@mail.example.org"}, {"username": "alicia"}, {"email": EMAIL}):
            user = await auth.accounts.change(user, fields)
            await auth.strategy("password").reset_request({"username": user.username})
        assert [opts["address"] for _, _, opts in sender.messages] == [EMAIL, "Alice@mail.example.org"]


async def test_nothing_is_counted_without_a_mail(tmp_path: Path) -> None:
    """RL-6: unknown addresses and disabled users get no counter; a counter's row has only a keyed hash."""
    auth = resettable(tmp_path)
    async with auth.running():
        user, _ = await register(auth)
        await auth.accounts.disable(user.id)
        for number in range(20):
            await request(auth, f"nobody{number}@mail.example.org")
            await request(auth)
        assert tables(tmp_path)["asgi_auth_counters"] == []
        await auth.accounts.enable(user.id)
        await request(auth)
        [row] = tables(tmp_path)["asgi_auth_counters"]
        assert EMAIL not in str(row)


async def test_restart_keeps_the_count(tmp_path: Path) -> None:
    """RL-7: the count is stored in the database."""
    for sent in (["reset"] * 2, []):
        auth = resettable(tmp_path)
        async with auth.running():
            if sent:
                await register(auth)
            for _ in range(3):
                await request(auth)
            assert purposes(auth) == sent


async def test_addresses_are_counted_separately(tmp_path: Path) -> None:
    """RL-6: requests for one address do not use up the mails of another."""
    auth = resettable(tmp_path)
    async with auth.running():
        for email in (EMAIL, OTHER_EMAIL):
            await register(auth, email)
            for _ in range(3):
                await request(auth, email)
            assert purposes(auth) == ["reset"] * 2


async def test_race_of_requests_does_not_exceed_the_limit(shared: OnSQLite | OnPostgres) -> None:
    """RL-5, RL-7: forty concurrent requests at five workers send five mails."""
    async with workers(shared) as auths:
        await register(auths[0])
        answers = await asyncio.gather(*(request(auths[number % 5]) for number in range(40)))
        assert answers == [answers[0]] * 40
        assert sum(len(purposes(auth)) for auth in auths) == 5


async def test_mails_that_fail_concurrently_are_not_counted(tmp_path: Path) -> None:
    """RL-6, FT-3: this holds also if failed mails had used up the limit while other requests were rejected."""
    over, sent = asyncio.Event(), list[str | None]()

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        await over.wait()
        if not sent:
            raise ConnectionRefusedError
        sent.append(token)

    auth = make_auth(
        tmp_path, strategies=[Password(resettable=Resettable(sender=send, mails=Limit(TWICE, timedelta(hours=1))))]
    )
    async with auth.running():
        await auth.accounts.create({"email": EMAIL})
        asked = [asyncio.create_task(request(auth)) for _ in range(10)]
        await asyncio.wait(asked[2:], return_when=asyncio.FIRST_COMPLETED)
        over.set()
        await asyncio.gather(*asked)
        sent.append(None)
        for _ in range(3):
            await request(auth)
    assert len(sent) == 1 + TWICE


async def test_mail_without_a_link_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-1: a link that cannot be stored is not mailed and not counted."""
    auth = resettable(tmp_path)
    async with auth.running():
        await register(auth)
        with monkeypatch.context() as patch:
            patch.setattr(auth.services.tokens, "issue", _fail)
            for _ in range(3):
                await request(auth)
        assert purposes(auth) == []
        for _ in range(3):
            await request(auth)
        assert purposes(auth) == ["reset"] * 2


async def _fail(*_: Any, **__: Any) -> None:
    raise StoreUnavailableError("sqlite: SQLITE_IOERR")


@pytest.mark.parametrize("is_up", [True, False], ids=["refusing", "off"])
async def test_failed_mail_is_not_counted(tmp_path: Path, is_up: bool) -> None:
    """RL-6, FT-3: mails that the server rejects are not counted; later all mails of the limit are available."""
    switch, mailbox, refusing = Switch(), Mailbox(), Refusing()
    auth = make_auth(
        tmp_path, strategies=[Password(resettable=Resettable(sender=switch, mails=Limit(TWICE, timedelta(hours=1))))]
    )
    async with auth.running(), mail_server(refusing, starttls=False), mail_server(mailbox, starttls=False):
        await register(auth)
        answers = []
        for port in (refusing.port if is_up else unused_port(), mailbox.port):
            switch.point_at(port)
            answers += [await request(auth) for _ in range(5)]
    assert answers == [answers[0]] * 10
    assert (len(refusing.envelopes), len(mailbox.envelopes)) == (0, 2)
