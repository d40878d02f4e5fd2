"""ConsoleSender: a readable message without control sequences for the terminal."""

import io
from datetime import UTC, datetime

import pytest

from asgi_auth.sender import Sender
from asgi_auth.senders import ConsoleSender

NOTICE = {"purpose": "password_changed", "address": "alice@example.com", "app_name": "Acme"}
LINK = {
    "purpose": "reset",
    "address": "alice@example.com",
    "app_name": "Acme",
    "url": "http://localhost:8000/auth/password/reset?reset_token=abc",
    "expires_at": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
}


@pytest.mark.anyio
async def test_console_prints_the_link(capsys: pytest.CaptureFixture[str]) -> None:
    """The link is printed on standard output."""
    await ConsoleSender().send(None, "abc", LINK)

    assert capsys.readouterr().out == (
        "--- reset, to alice@example.com: Set a new password for Acme\n"
        "Someone asked to set a new password for your account at Acme. If it was you, open the link.\n"
        "http://localhost:8000/auth/password/reset?reset_token=abc\n"
        "The link works once, until 2026-03-04 05:06 UTC.\n"
        "If it was not you, there is nothing to do. Your password stays as it is.\n"
        "This mail was sent to alice@example.com.\n"
        "\n"
    )


@pytest.mark.anyio
async def test_console_prints_a_notice_to_a_stream() -> None:
    """A notice has no link; it is printed to the given stream."""
    stream = io.StringIO()

    await ConsoleSender(stream).send(None, None, NOTICE)

    assert stream.getvalue() == (
        "--- password_changed, to alice@example.com: Your password for Acme was changed\n"
        "The password of your account at Acme was changed.\n"
        "If it was not you, go to the sign-in page and ask to set a new password at once.\n"
        "This mail was sent to alice@example.com.\n"
        "\n"
    )


@pytest.mark.anyio
async def test_console_neutralises_control_characters() -> None:
    """AU-3: a new line or an escape sequence in an entered value does not reach the terminal."""
    stream = io.StringIO()

    await ConsoleSender(stream).send(None, None, {**NOTICE, "address": "a\x1b[2J\r\nfake\ud800@example.com"})

    line = "--- password_changed, to a\ufffd[2J\ufffd\ufffdfake\ufffd@example.com: Your password for Acme was changed"
    assert stream.getvalue().splitlines()[0] == line


def test_console_is_a_sender_for_local_use() -> None:
    """``Authentication`` reads this mark and refuses it on https."""
    assert ConsoleSender.local_only is True
    assert isinstance(ConsoleSender(), Sender)
