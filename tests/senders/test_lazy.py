"""Senders that require an extra are imported at their first use."""

import sys

import pytest

from asgi_auth import senders
from asgi_auth.errors import ConfigurationError


def test_smtp_without_its_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiosmtplib the package works; importing SMTPSender names the command to install it."""
    monkeypatch.delitem(sys.modules, "asgi_auth.senders.smtp", raising=False)
    monkeypatch.delattr(senders, "smtp", raising=False)
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)

    with pytest.raises(ConfigurationError, match=r"SMTPSender needs aiosmtplib: pip install 'asgi-auth\[smtp\]'"):
        _ = senders.SMTPSender


def test_unknown_name_is_an_attribute_error() -> None:
    """An unknown name raises AttributeError, as in every module."""
    with pytest.raises(AttributeError, match="no attribute 'PigeonSender'"):
        _ = senders.PigeonSender


def test_every_public_name_can_be_imported() -> None:
    """The names are sorted, and each can be imported."""
    assert senders.__all__ == ["ConsoleSender", "Mail", "MemorySender", "SMTPSender"]
    assert [getattr(senders, name).__name__ for name in senders.__all__] == senders.__all__
