"""A sender for mail. RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 6531 (SMTPUTF8), RFC 3834 (Auto-Submitted).

One message has one recipient. The mail server does DKIM and queues mail.
"""

import asyncio
import html
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Any, Literal, NamedTuple

import aiosmtplib
from email_validator import EmailNotValidError, validate_email

from asgi_auth.errors import ConfigurationError, SenderError
from asgi_auth.mail_texts import one_line, texts_of
from asgi_auth.messages import ENGLISH, direction_of
from asgi_auth.runtime.callables import discard, refuse_async
from asgi_auth.senders.smtp_failures import explain

_ATOM = r"""[^\s@<>()\[\],;:"\\\x00-\x1f\x7f\ud800-\udfff]+"""
_MAILBOX = re.compile(f"{_ATOM}@{_ATOM}")


class Mail(NamedTuple):
    """The subject and the texts of a message. The sender makes every other header."""

    subject: str
    """The subject. The sender removes control characters."""
    text: str
    html: str
    """The same text as HTML. Values in it must be escaped."""


def render_mail(opts: Mapping[str, Any]) -> Mail:
    """The message for ``opts["purpose"]``, in the language of ``opts["locale"]``.

    An unknown purpose gets general texts. *opts* is not trusted: the HTML part escapes all its values (CVE-2022-31127).
    """
    texts, locale = texts_of(opts), opts.get("locale", ENGLISH)
    body = (texts.lead, texts.link, texts.expiry, texts.ending, texts.sent_to)
    paragraphs = [_anchor(text) if text is texts.link else _paragraph(text) for text in body if text]
    return Mail(
        subject=texts.subject,
        text="\n\n".join(filter(None, body)) + "\n",
        html=_page(paragraphs, locale),
    )


def _page(paragraphs: Sequence[str], locale: str) -> str:
    start = f'<!doctype html>\n<html lang="{html.escape(locale)}" dir="{direction_of(locale)}">\n<meta charset="utf-8">'
    return "\n".join((start, "<body>", *paragraphs, "</body>", "</html>\n"))


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _anchor(link: str) -> str:
    return f'<p><a href="{html.escape(link)}">{html.escape(link)}</a></p>'


@dataclass(frozen=True, slots=True, kw_only=True)
class SMTPSender:
    """Sends mail through a server. It sends mail in clear only with ``tls="none"``, and a password never.

    Raises:
        ConfigurationError: an option is invalid; the message names it.
    """

    host: str
    port: int = 587
    """587 for submission (RFC 6409), 465 with ``tls="implicit"`` (RFC 8314)."""
    from_address: str
    """The address alone, in ASCII. The displayed name is the name of the application."""
    username: str | None = None
    """None: the server requires no password."""
    password: str | None = field(default=None, repr=False)
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    """How to encrypt. A server without support gets no mail; there is no fallback. ``none``: for a local relay."""
    tls_context: ssl.SSLContext | None = None
    """None: the certificate must be valid for *host* and known to the system's authorities."""
    timeout: timedelta = timedelta(seconds=10)
    """The time for one message, with its connection. Closing the connection may take one second more."""
    render: Callable[[Mapping[str, Any]], Mail] = render_mail
    """Makes the mail from ``opts``. The function must be plain, not async, and quick."""

    def __post_init__(self) -> None:
        if not (self.from_address.isascii() and _MAILBOX.fullmatch(self.from_address)):
            raise ConfigurationError("from_address: must be one ASCII mailbox, without a name")
        if self.tls not in ("starttls", "implicit", "none"):
            raise ConfigurationError("tls: must be 'starttls', 'implicit' or 'none'")
        if (self.username is None) != (self.password is None):
            raise ConfigurationError("username, password: give both or neither")
        if self.username is not None and self.tls == "none":
            raise ConfigurationError("tls: 'none' is not supported with a password: use 'starttls' or 'implicit'")
        if self.timeout <= timedelta(0):
            raise ConfigurationError("timeout: must be longer than 0")
        if not callable(self.render):
            raise ConfigurationError("render: must be a function that takes opts and returns a Mail")
        refuse_async("render", self.render)

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Send one message to ``opts["address"]`` only.

        Raises:
            SenderError: the message was not accepted. There was no connection or no TLS, the server refused or was too
                slow, or the address is not one mailbox or not supported by the server. The text names the server, the
                step and the codes of the reply. It has no address, token or password.
        """
        recipient = _recipient(opts["address"])
        mail: object = self.render(opts)
        if not isinstance(mail, Mail):
            discard(mail)
            raise SenderError(f"render returned {type(mail).__name__}, not a Mail")
        message = self._message(recipient, mail, app_name=opts["app_name"])
        await self._submit(message, recipient)

    def _message(self, recipient: str, mail: Mail, *, app_name: str) -> EmailMessage:
        domain = self.from_address.rpartition("@")[2]
        message = EmailMessage()
        message["From"] = _address(self.from_address, name=app_name)
        message["To"] = _address(recipient)
        message["Subject"] = one_line(mail.subject)
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = make_msgid(domain=domain)
        message["Auto-Submitted"] = "auto-generated"  # prevents vacation replies
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
        return message

    async def _submit(self, message: EmailMessage, recipient: str) -> None:
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            use_tls=self.tls == "implicit",
            start_tls=False,  # a separate step below; None would use TLS only if the server offers it
            tls_context=self.tls_context,
            timeout=self.timeout.total_seconds(),
            local_hostname=self.from_address.rpartition("@")[2],  # otherwise a DNS query would block the loop
        )
        step = "connect"
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                await client.connect()
                if self.tls == "starttls":
                    step = "STARTTLS"
                    await client.starttls()
                if self.username is not None and self.password is not None:
                    step = "login"
                    await client.login(self.username, self.password)
                step = "message"
                await client.send_message(message, sender=self.from_address, recipients=[recipient])
        except (aiosmtplib.SMTPException, OSError, ValueError) as exc:
            told = explain(exc, step=step, timeout=self.timeout)
            raise SenderError(f"{self.host}:{self.port}: {told}") from exc
        else:
            with suppress(aiosmtplib.SMTPException):  # the server already has the mail
                await client.quit(timeout=1)
        finally:
            client.close()


def _address(mailbox: str, *, name: str = "") -> Address:
    local, _, domain = mailbox.rpartition("@")
    # A name without specials requires no quotes. The standard library loses quotes when it folds a long header.
    return Address(re.sub(r'[<>@,;:"\\()\[\]]', " ", one_line(name)), local, domain)


def _recipient(address: object) -> str:
    """*address* for the envelope. A domain that is not ASCII is written as an A-label.

    If the local part is not ASCII, the address is unchanged: it requires SMTPUTF8, which supports both parts.

    Raises:
        SenderError: the address is not exactly one mailbox (AC-7).
    """
    if not (isinstance(address, str) and _MAILBOX.fullmatch(address)):
        raise SenderError("the address is not one mailbox")
    local, _, domain = address.rpartition("@")
    if domain.isascii() or not local.isascii():
        return address
    try:  # IDNA 2008: the standard library's older rule would change a domain into another (ß into ss)
        checked = validate_email(f"postmaster@{domain}", check_deliverability=False, test_environment=True)
    except EmailNotValidError as exc:
        raise SenderError("the domain of the address has no ASCII form") from exc
    return f"{local}@{checked.ascii_domain}"
