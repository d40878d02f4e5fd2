"""SMTPSender against a real server on loopback."""

import asyncio
import email.policy
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope
from aiosmtplib import SMTPHeloError

from asgi_auth.errors import ConfigurationError, SenderError
from asgi_auth.sender import Sender
from asgi_auth.senders import Mail, SMTPSender
from asgi_auth.senders.smtp import render_mail
from asgi_auth.senders.smtp_failures import explain
from tests.support import PATIENCE

NOTICE = {"purpose": "password_changed", "address": "Alice@example.com", "app_name": "Acme"}
LINK = {
    "purpose": "reset",
    "address": "Alice@example.com",
    "app_name": "Acme",
    "url": "https://app.example/auth/password/reset?a=1&reset_token=hush",
    "expires_at": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
}
AUTHORITY = trustme.CA()
TRUST = ssl.create_default_context()
AUTHORITY.configure_trust(TRUST)


@dataclass
class Mailbox:
    """The messages and commands that the server received."""

    port: int = 0
    envelopes: list[Envelope] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  # the server calls it so
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Reject one address and accept every other."""
        if address == "nobody@example.com":
            return "550 no such mailbox: nobody@example.com"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Keep the message."""
        self.envelopes.append(envelope)
        return "250 OK"

    def login(self, server: Any, session: Any, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        """Let one user in."""
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"open sesame", handled=False)

    def message(self) -> EmailMessage:
        """The one message that arrived."""
        (envelope,) = self.envelopes
        assert isinstance(envelope.content, bytes)
        return message_from_bytes(envelope.content, policy=email.policy.default)


class Abrupt(Mailbox):
    """A server that disconnects without a reply to QUIT."""

    async def handle_QUIT(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Disconnect."""
        server.transport.abort()
        return "221 Bye"


class Slow(Mailbox):
    """A server that answers each command in time, but takes too long for the whole message."""

    async def handle_MAIL(  # noqa: N802
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer late."""
        envelope.mail_from = address
        return await asyncio.sleep(0.6, "250 OK")

    async def handle_RCPT(self, *arguments: Any) -> str:  # noqa: N802
        """Answer later still."""
        return await asyncio.sleep(0.6, await super().handle_RCPT(*arguments))


class Connection(SMTP):
    """One connection; a test can wait for its end."""

    def __init__(self, mailbox: Mailbox, **options: Any) -> None:
        super().__init__(mailbox, hostname="localhost", authenticator=mailbox.login, **options)
        self.ended = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        """Close everything before the loop closes."""
        super().connection_lost(error)
        self.ended.set()


def server_context() -> ssl.SSLContext:
    """The server's certificate, from the tests' own authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    return context


@asynccontextmanager
async def mail_server(
    mailbox: Mailbox | None = None,
    *,
    starttls: bool = True,
    implicit: bool = False,
    **options: Any,
) -> AsyncIterator[Mailbox]:
    """A mail server on a free port of loopback."""
    mailbox = mailbox or Mailbox()
    loop = asyncio.get_running_loop()
    options |= {"tls_context": server_context(), "require_starttls": True} if starttls else {}
    connections: list[Connection] = []

    def connect() -> Connection:
        connections.append(Connection(mailbox, loop=loop, **options))
        return connections[-1]

    async with (
        await loop.create_server(connect, "127.0.0.1", 0, ssl=server_context() if implicit else None) as server,
        asyncio.timeout(PATIENCE),
    ):
        mailbox.port = server.sockets[0].getsockname()[1]
        yield mailbox
        for connection in connections:
            await connection.ended.wait()


def smtp_sender(mailbox: Mailbox, **options: Any) -> SMTPSender:
    """A sender for this server that trusts its certificate."""
    defaults: dict[str, Any] = {"host": "127.0.0.1", "from_address": "no-reply@app.example", "tls_context": TRUST}
    return SMTPSender(**defaults | {"port": mailbox.port} | options)


def parts(message: EmailMessage) -> tuple[str, str]:
    """The text and the HTML of a message."""
    text, page = message.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(page, EmailMessage)
    return text.get_content(), page.get_content()


@pytest.mark.anyio
async def test_smtp_sends_text_and_html_to_the_address_alone() -> None:
    """A message has one recipient, the stored address, and the link in both parts."""
    async with mail_server() as mailbox:
        await smtp_sender(mailbox).send(None, "hush", LINK)

    (envelope,) = mailbox.envelopes
    text, page = parts(mailbox.message())
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@app.example", ["Alice@example.com"])
    assert mailbox.message().get_content_type() == "multipart/alternative"
    assert text.splitlines() == [
        "Someone asked to set a new password for your account at Acme. If it was you, open the link.",
        "",
        "https://app.example/auth/password/reset?a=1&reset_token=hush",
        "",
        "The link works once, until 2026-03-04 05:06 UTC.",
        "",
        "If it was not you, there is nothing to do. Your password stays as it is.",
        "",
        "This mail was sent to Alice@example.com.",
    ]
    assert 'href="https://app.example/auth/password/reset?a=1&amp;reset_token=hush"' in page


@pytest.mark.anyio
async def test_smtp_headers_say_what_it_is() -> None:
    """The headers are From, To, Date, Message-ID and Auto-Submitted; none names the machine."""
    async with mail_server() as mailbox:
        await smtp_sender(mailbox).send(None, None, NOTICE)

    message = mailbox.message()
    assert message["From"] == "Acme <no-reply@app.example>"
    assert message["To"] == "Alice@example.com"
    assert message["Message-ID"].endswith("@app.example>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert abs(message["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("purpose", "subject"),
    [
        ("reset", "Set a new password for Acme"),
        ("password_changed", "Your password for Acme was changed"),
        ("already_registered", "You already have an account at Acme"),
        ("email_in_use", "You already have an account at Acme"),
        ("confirmation", "Confirm your address for Acme"),
        ("email_change", "Confirm your new address for Acme"),
        ("email_change_asked", "A new address for your account at Acme"),
        ("email_changed", "The address of your account at Acme was changed"),
        ("invitation", "You are invited to Acme"),
        ("sign_in", "New sign-in to Acme"),
        ("something_new", "A message from Acme"),
    ],
)
def test_render_mail_has_words_for_every_purpose(purpose: str, subject: str) -> None:
    """Each purpose has its own subject; an unknown purpose gets a message, too."""
    assert render_mail({**NOTICE, "purpose": purpose}).subject == subject


def test_render_mail_of_a_notice_has_no_link() -> None:
    """A notice has neither link nor expiry."""
    mail = render_mail(NOTICE)

    assert "http" not in mail.text + mail.html
    assert "until" not in mail.text + mail.html


def test_render_mail_escapes_every_value() -> None:
    """RD-4, CVE-2022-31127: markup in the address, the name or the link is text in the HTML part."""
    hostile = {
        **LINK,
        "app_name": "<script>alert(1)</script>",
        "address": '"><img src=x>@example.com',
        "url": 'https://app.example/"onclick="x',
    }

    mail = render_mail(hostile)

    assert "<script" not in mail.html
    assert "<img" not in mail.html
    assert 'href="https://app.example/&quot;onclick=&quot;x"' in mail.html
    assert "account at <script>alert(1)</script>." in mail.text


@pytest.mark.parametrize("name", ["{{7*7}}", "%s %(x)s", "{app_name.__class__}", "' OR 1=1--"])
def test_render_mail_takes_template_characters_as_text(name: str) -> None:
    """RP-11: a value is never interpreted as a template."""
    assert render_mail({**NOTICE, "app_name": name}).subject == f"Your password for {name} was changed"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    [
        "Acme\r\nBcc: eve@example.net",
        "Acme\nTo: eve@example.net\n\n<p>hello",
        'Eve <eve@example.net>, "Acme"',
        "Acme, eve@example.net, " * 6,
        "Büro & Söhne, eve@example.net, " * 8,
        "Acme\u2028Bcc: eve@example.net\x00\ud800",
    ],
)
async def test_smtp_name_adds_no_header_and_no_address(name: str) -> None:
    """RD-3: any name of the application gives one sender, one recipient and no further header."""
    async with mail_server() as mailbox:
        await smtp_sender(mailbox).send(None, None, {**NOTICE, "app_name": name})

    message = mailbox.message()
    assert [address.addr_spec for address in message["From"].addresses] == ["no-reply@app.example"]
    assert [address.addr_spec for address in message["To"].addresses] == ["Alice@example.com"]
    assert mailbox.envelopes[0].rcpt_tos == ["Alice@example.com"]
    assert sorted(message.keys()) == [
        *("Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "address",
    [
        ["victim@example.com", "eve@example.net"],
        "victim@example.com,eve@example.net",
        "victim@example.com eve@example.net",
        "victim@example.com\r\nRCPT TO:<eve@example.net>",
        '"Victim" <victim@example.com>',
        "<victim@example.com>",
        "victim@example.com@example.net",
        '"a b"@example.com',
        "<script>@example.com",
        "@example.com",
        "victim",
        "",
        None,
        "victim@ä..example",
        "victim\ud800@example.com",
    ],
    ids=ascii,
)
async def test_smtp_refuses_what_is_not_one_mailbox(address: Any) -> None:
    """AC-7: no mail is sent to a list, a display name or an injected command."""
    async with mail_server() as mailbox:
        with pytest.raises(SenderError, match="address"):
            await smtp_sender(mailbox).send(None, None, {**NOTICE, "address": address})

    assert mailbox.envelopes == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("Alice.O'Hara+tag@Example.com", "Alice.O'Hara+tag@Example.com"),
        ("a@faß.de", "a@xn--fa-hia.de"),
        ("a@fass.de", "a@fass.de"),
    ],
)
async def test_smtp_rcpt_to_is_the_stored_address(address: str, recipient: str) -> None:
    """AC-6, AC-7: RCPT TO is the stored address; an international domain is sent as its IDNA 2008 A-label."""
    async with mail_server() as mailbox:
        await smtp_sender(mailbox).send(None, None, {**NOTICE, "address": address})

    assert mailbox.envelopes[0].rcpt_tos == [recipient]
    assert [to.addr_spec for to in mailbox.message()["To"].addresses] == [recipient]


@pytest.mark.anyio
async def test_smtp_writes_a_local_part_in_other_letters_where_the_server_can() -> None:
    """RFC 6531: with SMTPUTF8 the address is sent unchanged."""
    async with mail_server(enable_SMTPUTF8=True) as mailbox:
        await smtp_sender(mailbox).send(None, None, {**NOTICE, "address": "Älice@faß.de"})

    assert mailbox.envelopes[0].rcpt_tos == ["Älice@faß.de"]


@pytest.mark.anyio
async def test_smtp_refuses_a_local_part_in_other_letters_where_the_server_cannot() -> None:
    """RFC 6531: without SMTPUTF8 no mail is sent, also not to a similar address."""
    async with mail_server() as mailbox:
        with pytest.raises(SenderError, match="message: not supported by the server"):
            await smtp_sender(mailbox).send(None, None, {**NOTICE, "address": "älice@example.com"})

    assert mailbox.envelopes == []


@pytest.mark.anyio
async def test_smtp_refused_recipient_is_an_error_without_the_address() -> None:
    """The error is for the log; it has neither the address nor the token."""
    async with mail_server() as mailbox:
        with pytest.raises(SenderError) as caught:
            await smtp_sender(mailbox).send(None, "hush", {**LINK, "address": "nobody@example.com"})

    assert caught.value.reason == f"127.0.0.1:{mailbox.port}: recipient: refused with 550"
    assert caught.value.__cause__ is not None


@pytest.mark.anyio
async def test_smtp_signs_in_over_tls() -> None:
    """The user name and the password are sent only after the connection is encrypted."""
    async with mail_server() as mailbox:
        await smtp_sender(mailbox, username="app", password="open sesame").send(None, None, NOTICE)

    assert mailbox.logins == [(b"app", b"open sesame")]
    assert len(mailbox.envelopes) == 1


@pytest.mark.anyio
async def test_smtp_wrong_password_is_an_error_without_it() -> None:
    """The error of a rejected password has the code, not the password."""
    async with mail_server() as mailbox:
        with pytest.raises(SenderError) as caught:
            await smtp_sender(mailbox, username="app", password="guess").send(None, None, NOTICE)

    assert caught.value.reason == f"127.0.0.1:{mailbox.port}: login: refused with 535 5.7.8"


@pytest.mark.anyio
async def test_smtp_sends_nothing_in_clear() -> None:
    """A server without STARTTLS, also if an attacker removed the offer, gets neither password nor mail."""
    async with mail_server(starttls=False, auth_require_tls=False) as mailbox:
        with pytest.raises(SenderError, match=r": STARTTLS: not supported by the server$"):
            await smtp_sender(mailbox, username="app", password="open sesame").send(None, "hush", LINK)

    assert (mailbox.logins, mailbox.envelopes) == ([], [])


@pytest.mark.anyio
async def test_smtp_trusts_no_unknown_certificate() -> None:
    """A certificate of an unknown authority ends the connection, also on loopback."""
    async with mail_server() as mailbox:
        with pytest.raises(SenderError, match=r": STARTTLS: bad certificate: \w"):
            await smtp_sender(mailbox, tls_context=None).send(None, "hush", LINK)

    assert mailbox.envelopes == []


@pytest.mark.anyio
@pytest.mark.parametrize(("tls", "implicit"), [("implicit", True), ("none", False)])
async def test_smtp_other_ways_to_connect(tls: str, implicit: bool) -> None:
    """TLS from the first byte, and a connection without TLS if the option says so."""
    async with mail_server(starttls=False, implicit=implicit) as mailbox:
        await smtp_sender(mailbox, tls=tls).send(None, None, NOTICE)

    assert len(mailbox.envelopes) == 1


@pytest.mark.anyio
async def test_smtp_takes_a_hang_up_after_the_mail_for_success() -> None:
    """The server has accepted the mail, so a missing reply to QUIT is not a failure."""
    async with mail_server(Abrupt()) as mailbox:
        await smtp_sender(mailbox).send(None, None, NOTICE)

    assert len(mailbox.envelopes) == 1


@pytest.mark.anyio
async def test_smtp_gives_up_on_a_silent_server() -> None:
    """A server that does not answer costs no more than the timeout."""

    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server, asyncio.timeout(PATIENCE):
        mailbox = Mailbox(port=server.sockets[0].getsockname()[1])
        with pytest.raises(SenderError, match=r": connect: no answer within 0\.05 s$"):
            await smtp_sender(mailbox, timeout=timedelta(milliseconds=50)).send(None, "hush", LINK)
        await ended.wait()


@pytest.mark.anyio
async def test_smtp_timeout_is_for_the_whole_message() -> None:
    """A server that answers each command just in time cannot delay a mail beyond the timeout."""
    async with mail_server(Slow(), starttls=False) as mailbox:
        with pytest.raises(SenderError, match=r": message: no answer within 1 s$"):
            await smtp_sender(mailbox, tls="none", timeout=timedelta(seconds=1)).send(None, "hush", LINK)

    assert mailbox.envelopes == []


@pytest.mark.anyio
async def test_smtp_without_a_server_is_an_error() -> None:
    """A closed port is an error like any other."""
    async with mail_server() as mailbox:
        pass

    with pytest.raises(SenderError, match=r": connect: Connection refused$"):
        await smtp_sender(mailbox).send(None, "hush", LINK)


class Refusing(Mailbox):
    """A server that answers one command with a reply that quotes secret values."""

    def __init__(self, command: str, reply: str) -> None:
        super().__init__()
        setattr(self, f"handle_{command}", self._refuse)
        self.reply = reply

    async def _refuse(self, *arguments: Any) -> str:
        return self.reply


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("command", "reply", "told"),
    [
        ("MAIL", "553 5.7.1 <no-reply@app.example> is not yours", "sender address: refused with 553 5.7.1"),
        ("RCPT", "550 5.1.1 <Alice@example.com>: no such mailbox", "recipient: refused with 550 5.1.1"),
        ("RCPT", "450 Alice@example.com: greylisted", "recipient: refused with 450"),
        ("RCPT", "550 5.1.1.hush", "recipient: refused with 550"),
        ("DATA", "451 4.3.0 later", "message: refused with 451 4.3.0"),
        ("DATA", "554 5.7.1 https://app.example/?reset_token=hush looks like spam", "message: refused with 554 5.7.1"),
    ],
    ids=["sender", "recipient", "greylisted", "no status", "later", "spam"],
)
async def test_smtp_error_names_the_step_and_the_codes(command: str, reply: str, told: str) -> None:
    """TK-4: the error has the codes of the reply, not its text, which may quote the address or the token."""
    async with mail_server(Refusing(command, reply)) as mailbox:
        with pytest.raises(SenderError) as caught:
            await smtp_sender(mailbox).send(None, "hush", LINK)

    assert caught.value.reason == f"127.0.0.1:{mailbox.port}: {told}"
    assert mailbox.envelopes == []


@asynccontextmanager
async def raw_server(first: bytes) -> AsyncIterator[Mailbox]:
    """A server that sends *first* to each client, and disconnects."""
    ended = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, asyncio.timeout(PATIENCE):
        yield Mailbox(port=server.sockets[0].getsockname()[1])
        await ended.wait()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("first", "options", "told"),
    [
        (b"421 4.7.0 too many connections\r\n", {}, "connect: refused with 421 4.7.0"),
        (b"", {}, "connect: the server hung up"),
        (b"220 plain text\r\n", {"tls": "implicit"}, "connect: TLS failed: WRONG_VERSION_NUMBER"),
    ],
    ids=["busy", "silent", "no TLS"],
)
async def test_smtp_error_names_what_became_of_the_connection(first: bytes, options: dict[str, Any], told: str) -> None:
    """The error says whether the server was busy, disconnected, or does not use TLS on this port."""
    async with raw_server(first) as mailbox:
        with pytest.raises(SenderError) as caught:
            await smtp_sender(mailbox, **options).send(None, "hush", LINK)

    assert caught.value.reason == f"127.0.0.1:{mailbox.port}: {told}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SMTPHeloError(554, "5.7.1 go away, hush"), "greeting: refused with 554 5.7.1"),
        (ValueError("Command contains newline: hush"), "message: ValueError"),
        (OSError("Multiple exceptions: one, two"), "message: Multiple exceptions: one, two"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "message: Name or service not known"),
    ],
    ids=["greeting", "value", "several", "name"],
)
def test_smtp_error_of_another_kind_is_told_by_codes_or_type(error: Exception, told: str) -> None:
    """An error of another kind is logged by its codes or type, because its text may quote the mail."""
    assert explain(error, step="message", timeout=timedelta(seconds=1)) == told


@pytest.mark.anyio
async def test_smtp_render_replaces_the_words() -> None:
    """An application can write the text of a mail; the sender sets the headers, and the subject is one line."""

    def render(opts: Any) -> Mail:
        return Mail("Hello\r\nBcc: eve@example.net", f"text for {opts['purpose']}\n", "<p>page</p>\n")

    async with mail_server() as mailbox:
        await smtp_sender(mailbox, render=render).send(None, None, NOTICE)

    assert mailbox.message()["Subject"] == "Hello Bcc: eve@example.net"
    assert mailbox.message()["Bcc"] is None
    assert [part.split() for part in parts(mailbox.message())] == [["text", "for", "password_changed"], ["<p>page</p>"]]


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"from_address": "Acme <no-reply@app.example>"}, "from_address"),
        ({"from_address": "no-reply@bücher.example"}, "from_address"),
        ({"tls": "maybe"}, "tls"),
        ({"username": "app"}, "username, password"),
        ({"password": "open sesame"}, "username, password"),
        ({"username": "app", "password": "open sesame", "tls": "none"}, "tls"),
        ({"timeout": timedelta(0)}, "timeout"),
    ],
    ids=str,
)
def test_smtp_refuses_wrong_options_by_name(options: dict[str, Any], parameter: str) -> None:
    """Options that cannot work, or would send a password in clear, are rejected at start."""
    with pytest.raises(ConfigurationError, match=f"^{parameter}: "):
        smtp_sender(Mailbox(), **options)


def test_smtp_repr_hides_the_password() -> None:
    """The repr of a sender does not show the password."""
    sender = smtp_sender(Mailbox(), username="app", password="open sesame")

    assert "open sesame" not in repr(sender)
    assert isinstance(sender, Sender)
