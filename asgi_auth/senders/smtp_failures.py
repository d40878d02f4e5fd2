"""Why a mail server did not take a mail, in words that hold nothing of the mail."""

import os
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import timedelta

import aiosmtplib

_STEPS: Mapping[type[Exception], str] = {
    aiosmtplib.SMTPHeloError: "greeting",
    aiosmtplib.SMTPSenderRefused: "sender address",
    aiosmtplib.SMTPRecipientRefused: "recipient",
}
"""What was refused, where the kind of the exception says more than what was going on."""
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?!\S)", re.ASCII)
"""An enhanced status code (RFC 3463), the one part of a reply's text that cannot quote the mail."""


def explain(exc: Exception, *, step: str, timeout: timedelta) -> str:
    """One line for the log: at which step, and what happened, with the codes of the server.

    The text of the server's reply is left out: many quote the address, some the password.

    Args:
        exc: What aiosmtplib or the network raised.
        step: What was going on.
        timeout: How long the sender waits.
    """
    if isinstance(exc, aiosmtplib.SMTPRecipientsRefused):
        exc = exc.recipients[0]  # there is one
    return f"{_STEPS.get(type(exc), step)}: {_what(exc, timeout)}"


def _what(exc: Exception, timeout: timedelta) -> str:
    if isinstance(exc, aiosmtplib.SMTPResponseException):
        status = _STATUS.match(exc.message)
        return f"refused with {exc.code} {status[0] if status else ''}".rstrip()
    if isinstance(exc, TimeoutError):
        return f"no answer within {timeout.total_seconds():g} s"
    if type(exc) in (aiosmtplib.SMTPException, aiosmtplib.SMTPNotSupported):
        return "not supported by the server"
    return _network(exc.__cause__ or exc)  # aiosmtplib wraps what the network says


def _network(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"bad certificate: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed: {exc.reason}"
    if isinstance(exc, aiosmtplib.SMTPServerDisconnected):
        return "the server hung up"
    if isinstance(exc, OSError) and exc.errno is not None:
        # Of a name that is not found the number is the resolver's own. asyncio puts words of its own over the system's.
        return str(exc.strerror) if isinstance(exc, socket.gaierror) else os.strerror(exc.errno)
    # A bare OSError is asyncio's, about a host with several addresses.
    return str(exc) if type(exc) is OSError else type(exc).__name__
