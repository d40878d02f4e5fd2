"""The texts of messages that depend on more than the purpose."""

from typing import Any

import pytest

from asgi_auth.mail_texts import mail_texts

INVITATION = {"purpose": "invitation", "app_name": "Acme", "inviter": None, "scope": None, "registered": False}


@pytest.mark.parametrize(
    ("opts", "lead"),
    [
        ({}, "Acme has invited you to Acme. Open the link to create your account, or to decline."),
        (
            {"inviter": "bob@mail.example.org", "scope": "The {app_name} club"},
            "bob@mail.example.org has invited you to The {app_name} club. Open the link to create your account, or"
            " to decline.",
        ),
        (
            {"inviter": "Bob\r\nBcc: x", "registered": True},
            "Bob Bcc: x has invited you to Acme. You have an account at Acme. Open the link and sign in to accept, or"
            " to decline.",
        ),
    ],
)
def test_invitation_names_inviter_and_scope(opts: dict[str, Any], lead: str) -> None:
    """A registered user is told to sign in; values of other people are one line of text and no template."""
    assert mail_texts({"address": "a@mail.example.org", **INVITATION, **opts}).lead == lead
