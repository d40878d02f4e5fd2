"""Explains why a mail server did not accept a mail, without any content of the mail."""

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
"""The refused part, for exceptions whose class says more than the current step."""
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?!\S)", re.ASCII)
"""An enhanced status code (RFC 3463). It is the only part of a reply's text that cannot quote the mail."""


def explain(exc: Exception, *, step: str, timeout: timedelta) -> str:
    """One line for the log: the step and the failure, with the codes of the server.

    The text of the server's reply is left out: many servers quote the address, some the password.

    Args:
        exc: The exception of aiosmtplib or the network.
        step: The current step.
        timeout: How long the sender waits.
    """
    if isinstance(exc, aiosmtplib.SMTPRecipientsRefused):
        exc = exc.recipients[0]  # there is only one
    return f"{_STEPS.get(type(exc), step)}: {_what(exc, timeout)}"


def _what(exc: Exception, timeout: timedelta) -> str:
    if isinstance(exc, aiosmtplib.SMTPResponseException):
        status = _STATUS.match(exc.message)
        return f"refused with {exc.code} {status[0] if status else ''}".rstrip()
    if isinstance(exc, TimeoutError):
        return f"no answer within {timeout.total_seconds():g} s"
    if type(exc) in (aiosmtplib.SMTPException, aiosmtplib.SMTPNotSupported):
        return "not supported by the server"
    return _network(exc.__cause__ or exc)  # aiosmtplib wraps errors of the network


def _network(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"bad certificate: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed: {exc.reason}"
    if isinstance(exc, aiosmtplib.SMTPServerDisconnected):
        return "the server hung up"
    if isinstance(exc, OSError) and exc.errno is not None:
        # For an unknown host name the number is the resolver's. asyncio replaces the system's text by its own.
        return str(exc.strerror) if isinstance(exc, socket.gaierror) else os.strerror(exc.errno)
    # asyncio raises a bare OSError for a host with several addresses.
    return str(exc) if type(exc) is OSError else type(exc).__name__
