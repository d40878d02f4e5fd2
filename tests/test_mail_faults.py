"""A mail server that refuses, hangs or is down changes no answer and loses no token. Mail that arrives, end to end."""

import asyncio
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from aiosmtpd.smtp import Envelope

from asgi_auth.events import DeliveryFailed, Event
from asgi_auth.hooks import Hook
from asgi_auth.senders import SMTPSender
from asgi_auth.store import Work
from asgi_auth.strategies.password import Password, Resettable
from tests.senders.test_smtp import Mailbox, mail_server, smtp_sender
from tests.served import application
from tests.servers import serving
from tests.support import EMAIL, NEW_PASSWORD, OTHER_EMAIL, PASSWORD, LocalAuthentication, make_auth, register
from tests.workers import resetting, valid_passwords

pytestmark = pytest.mark.anyio

PUBLIC = "https://app.example.org"


class Listener(Hook):
    """Keeps the events of failed deliveries."""

    name = "listener"

    def __init__(self) -> None:
        self.failures: list[DeliveryFailed] = []
        self.failed = asyncio.Event()

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Keep the event of a failed delivery."""
        if isinstance(event, DeliveryFailed):
            self.failures.append(event)
            self.failed.set()


class Postbox(Mailbox):
    """A server that sets an event when mail arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = asyncio.Event()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Accept the message."""
        self.arrived.set()
        return await super().handle_DATA(server, session, envelope)


class Refusing(Mailbox):
    """A server that rejects every recipient."""

    async def handle_RCPT(self, *arguments: Any) -> str:  # noqa: N802  # the name that aiosmtpd calls
        """Reject the recipient."""
        return f"550 no such mailbox: {EMAIL}"


class Tarpit(Mailbox):
    """A server that accepts a message only after the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Wait for the release."""
        self.asked.set()
        await self.released.wait()
        return await super().handle_DATA(server, session, envelope)


class Switch:
    """A sender whose server the test can replace."""

    sender: SMTPSender

    async def send(self, user: Any, token: str | None, opts: Any) -> None:
        """Send by the current server."""
        await self.sender.send(user, token, opts)

    def point_at(self, port: int, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Use the server on this port from now on."""
        options: dict[str, Any] = {"host": "127.0.0.1", "from_address": "no-reply@app.example.org", "tls": "none"}
        self.sender = SMTPSender(port=port, timeout=timeout, **options)


def mailing_auth(directory: Path, switch: Switch, **options: Any) -> LocalAuthentication:
    """An Authentication that sends reset links by SMTP."""
    return make_auth(directory, strategies=[Password(resettable=Resettable(sender=switch))], **options)


def unused_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def link_in(mailbox: Mailbox) -> str:
    """The link of the one message that arrived."""
    text = next(part for part in mailbox.message().walk() if part.get_content_type() == "text/plain")
    lines: list[str] = text.get_content().splitlines()
    return next(line for line in lines if "://" in line)


def token_in(link: str) -> str:
    """The token of a link."""
    return parse_qs(urlsplit(link).query)["reset_token"][0]


async def ask(client: httpx.AsyncClient, address: str, **headers: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """The whole answer to a request for a reset, without the Date header."""
    answer = await client.post("/auth/password/reset_request", data={"email": address}, headers=headers)
    return answer.status_code, [item for item in answer.headers.multi_items() if item[0] != "date"], answer.content


async def test_mail_arrives_once_with_the_right_link(tmp_path: Path) -> None:
    """HT-1: one message reaches exactly the stored address; host headers of the request do not change its link."""
    switch = Switch()
    auth = mailing_auth(tmp_path, switch, base_url=PUBLIC)
    poison = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    async with auth.running(), serving(application(auth)) as url, httpx.AsyncClient(base_url=url) as client:
        await register(auth, "Alice@mail.example.org")
        mailbox = Postbox()
        async with mail_server(mailbox, starttls=False):
            switch.point_at(mailbox.port)
            assert (await ask(client, "ALICE@Mail.Example.ORG", **poison))[0] == 200
            await mailbox.arrived.wait()
        (envelope,) = mailbox.envelopes
        assert envelope.rcpt_tos == ["Alice@mail.example.org"]
        assert b"evil.example" not in (envelope.content or b"")
        link = link_in(mailbox)
        assert link.startswith(f"{PUBLIC}/auth/password/reset?reset_token=")

        page = await client.get(urlsplit(link).path, params=urlsplit(link).query)
        assert token_in(link) in page.text
        assert await finish_reset(client, switch, token_in(link)) == 200
        assert await valid_passwords(auth, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]


async def finish_reset(client: httpx.AsyncClient, switch: Switch, token: str) -> int:
    """Reset the password and return the status; the notice of the change arrives (AC-10)."""
    postbox = Postbox()
    async with mail_server(postbox, starttls=False):
        switch.point_at(postbox.port)
        answer = await client.post("/auth/password/reset", data=resetting(token))
        await postbox.arrived.wait()
    assert "password" in str(postbox.message()["Subject"])
    assert token.encode() not in (postbox.envelopes[0].content or b"")
    return answer.status_code


@pytest.mark.parametrize("make_mailbox", [None, Refusing, Tarpit], ids=["off", "refusing", "hanging"])
async def test_failed_mail_changes_no_answer(tmp_path: Path, make_mailbox: Callable[[], Mailbox] | None) -> None:
    """FT-3, TK-12: a failing server changes no byte of an answer and causes an event; the older link still works."""
    switch, listener = Switch(), Listener()
    auth = mailing_auth(tmp_path, switch, add_ons=[listener])
    async with auth.running(), serving(application(auth)) as url, httpx.AsyncClient(base_url=url) as client:
        user, _ = await register(auth)
        mailbox = Postbox()
        async with mail_server(mailbox, starttls=False):
            switch.point_at(mailbox.port)
            good = await ask(client, EMAIL)
            await mailbox.arrived.wait()
        token = token_in(link_in(mailbox))

        if make_mailbox is None:
            switch.point_at(unused_port())
            answers = [await ask(client, address) for address in (EMAIL, OTHER_EMAIL)]
            await listener.failed.wait()
        else:
            async with mail_server(make_mailbox(), starttls=False) as failing:
                switch.point_at(failing.port, timeout=timedelta(milliseconds=300))
                answers = [await ask(client, address) for address in (EMAIL, OTHER_EMAIL)]
                await listener.failed.wait()
            assert failing.envelopes == []
        assert answers == [good, good]
        assert [(failure.user_id, failure.purpose) for failure in listener.failures] == [(user.id, "reset")]
        assert await finish_reset(client, switch, token) == 200
        assert await valid_passwords(auth, PASSWORD, NEW_PASSWORD) == [NEW_PASSWORD]


class Later(Mailbox):
    """A server that rejects the message for now and quotes the recipient."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Reject the message with a temporary error."""
        return f"451 4.3.0 {envelope.rcpt_tos[0]}: try later"


FAULTS: dict[str, tuple[Callable[[], Mailbox] | None, dict[str, Any], dict[str, Any], str]] = {
    "550": (Refusing, {}, {}, "recipient: refused with 550"),
    "451": (Later, {}, {}, "message: refused with 451 4.3.0"),
    "off": (None, {}, {}, "connect: Connection refused"),
    "hanging": (Tarpit, {}, {"timeout": timedelta(milliseconds=300)}, "message: no answer within 0.3 s"),
    "password": (Mailbox, {}, {"username": "app", "password": "wrong horse"}, "login: refused with 535 5.7.8"),
    "no STARTTLS": (Mailbox, {"starttls": False}, {}, "STARTTLS: not supported by the server"),
    "certificate": (Mailbox, {}, {"tls_context": None}, "STARTTLS: bad certificate: "),
}
"""By name: the server, its options, the options of the sender, and the text in the log."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_log_and_event_say_why_mail_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str) -> None:
    """TK-4: log and event name the fault, and contain no address, no token and no password of the server."""
    make_mailbox, server, options, told = FAULTS[fault]
    switch, listener = Switch(), Listener()
    auth = mailing_auth(tmp_path, switch, add_ons=[listener], base_url=PUBLIC)
    async with auth.running():
        await register(auth)
        async with mail_server(make_mailbox and make_mailbox(), **server) as mailbox:
            port = mailbox.port if make_mailbox else unused_port()
            switch.sender = smtp_sender(mailbox, port=port, **options)
            await auth.strategy("password").reset_request({"email": EMAIL})

    (line,) = [message for message in caplog.messages if message.startswith("a reset message could not be sent: ")]
    (failure,) = listener.failures
    assert line.startswith(f"a reset message could not be sent: 127.0.0.1:{port}: {told}")
    assert line.endswith(failure.reason)
    ours = "".join(record.getMessage() for record in caplog.records if record.name == "asgi_auth")
    assert EMAIL not in ours
    assert "wrong horse" not in ours
    assert "reset_token" not in ours


async def test_slow_mail_does_not_reveal_a_known_address(tmp_path: Path) -> None:
    """EN-3: both answers arrive while the server holds the mail, and so does the next one on the same connection."""
    switch, tarpit = Switch(), Tarpit()
    auth = mailing_auth(tmp_path, switch)
    limits = httpx.Limits(max_connections=1)
    async with auth.running(), serving(application(auth)) as url:
        await register(auth)
        async with mail_server(tarpit, starttls=False):
            switch.point_at(tarpit.port)
            async with httpx.AsyncClient(base_url=url, limits=limits) as client:
                answers = [await ask(client, address) for address in (OTHER_EMAIL, EMAIL)]
                await tarpit.asked.wait()
                assert (await client.get("/ping")).text == "pong"
                assert tarpit.envelopes == []
                assert answers[0] == answers[1]
                tarpit.released.set()
    assert [envelope.rcpt_tos for envelope in tarpit.envelopes] == [[EMAIL]]
