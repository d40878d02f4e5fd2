"""The texts of the library's mails, by purpose. Every text is a ``Message``, so ``translate`` can replace it."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from asgi_auth.messages import Message


class MailTexts(NamedTuple):
    """The texts of one mail, in the language of its recipient."""

    subject: str
    lead: str
    """The event, and the action that the recipient can take."""
    link: str
    """The URL; empty: there is none."""
    expiry: str
    """How long the link works; empty: there is none."""
    ending: str
    """What to do if the recipient did not expect the mail."""
    sent_to: str


class _Texts(NamedTuple):
    subject: Message
    lead: Message
    ending: Message


_NOTHING_TO_DO = Message("mail.nothing_to_do", "If it was not you, there is nothing to do.")
_RESET_AT_ONCE = Message(
    "mail.reset_at_once", "If it was not you, go to the sign-in page and ask to set a new password at once."
)
_OTHER = _Texts(
    Message("mail.other.subject", "A message from {app_name}"),
    Message("mail.other.lead", "This message is about your account at {app_name}."),
    Message("mail.other.ending", "If you did not expect it, there is nothing to do."),
)
_TEXTS = {
    "reset": _Texts(
        Message("mail.reset.subject", "Set a new password for {app_name}"),
        Message(
            "mail.reset.lead",
            "Someone asked to set a new password for your account at {app_name}. If it was you, open the link.",
        ),
        Message("mail.reset.ending", "If it was not you, there is nothing to do. Your password stays as it is."),
    ),
    "password_changed": _Texts(
        Message("mail.password_changed.subject", "Your password for {app_name} was changed"),
        Message("mail.password_changed.lead", "The password of your account at {app_name} was changed."),
        _RESET_AT_ONCE,
    ),
    "confirmation": _Texts(
        Message("mail.confirmation.subject", "Confirm your address for {app_name}"),
        Message(
            "mail.confirmation.lead",
            "Someone registered at {app_name} with this address. If it was you, open the link to confirm it.",
        ),
        Message(
            "mail.confirmation.ending",
            "If it was not you, do not open the link. The account cannot be used without it.",
        ),
    ),
    "already_registered": _Texts(
        Message("mail.already_registered.subject", "You already have an account at {app_name}"),
        Message(
            "mail.already_registered.lead",
            "Someone tried to register at {app_name} with this address, which already has an account. Sign in as"
            " usual, or ask for a new password.",
        ),
        _NOTHING_TO_DO,
    ),
    "email_change": _Texts(
        Message("mail.email_change.subject", "Confirm your new address for {app_name}"),
        Message(
            "mail.email_change.lead",
            "Someone asked to use this address for their account at {app_name}. If it was you, open the link.",
        ),
        Message(
            "mail.email_change.ending",
            "If it was not you, do not open the link. It would give this address to the account of another person.",
        ),
    ),
    "email_change_asked": _Texts(
        Message("mail.email_change_asked.subject", "A new address for your account at {app_name}"),
        Message(
            "mail.email_change_asked.lead",
            "Someone who is signed in to your account at {app_name} asked to change its address. This address stays"
            " until the new one is confirmed.",
        ),
        Message(
            "mail.email_change_asked.ending",
            "If it was not you, set a new password at once. That cancels the change and signs everybody out.",
        ),
    ),
    "email_changed": _Texts(
        Message("mail.email_changed.subject", "The address of your account at {app_name} was changed"),
        Message("mail.email_changed.lead", "Your account at {app_name} does not use this address any more."),
        Message(
            "mail.email_changed.ending",
            "If it was not you, open the link to undo the change. This signs everybody out. Then set a new password.",
        ),
    ),
    "email_in_use": _Texts(
        Message("mail.email_in_use.subject", "You already have an account at {app_name}"),
        Message(
            "mail.email_in_use.lead",
            "Someone tried to use this address for another account at {app_name}. It stays with your account.",
        ),
        _NOTHING_TO_DO,
    ),
    "invitation": _Texts(
        Message("mail.invitation.subject", "You are invited to {app_name}"),
        Message(
            "mail.invitation.lead",
            "{inviter} has invited you to {scope}. Open the link to create your account, or to decline.",
        ),
        Message(
            "mail.invitation.ending",
            "If you do not know who this is, there is nothing to do. Nothing happens without you.",
        ),
    ),
    "sign_in": _Texts(
        Message("mail.sign_in.subject", "New sign-in to {app_name}"),
        Message("mail.sign_in.lead", "There was a new sign-in to your account at {app_name}."),
        _RESET_AT_ONCE,
    ),
}
_INVITED_WITH_ACCOUNT = _TEXTS["invitation"]._replace(
    lead=Message(
        "mail.invitation.with_account",
        "{inviter} has invited you to {scope}. You have an account at {app_name}. Open the link and sign in to accept,"
        " or to decline.",
    )
)
_EXPIRY = Message("mail.expiry", "The link works once, until {time} UTC.")
_SENT_TO = Message("mail.sent_to", "This mail was sent to {address}.")


def mail_texts(opts: Mapping[str, Any], say: Callable[[str], str] = str) -> MailTexts:
    """The texts for ``opts["purpose"]``. An unknown purpose gets texts that suit every purpose.

    Nothing in *opts* is trusted: each value becomes one line.

    Args:
        opts: The ``opts`` of the sender.
        say: Returns a text in the language of the recipient.
    """
    app_name = one_line(opts["app_name"])
    texts = _TEXTS.get(opts["purpose"], _OTHER)
    if opts["purpose"] == "invitation" and opts.get("registered"):
        texts = _INVITED_WITH_ACCOUNT
    inviter, scope = (one_line(opts.get(name) or app_name) for name in ("inviter", "scope"))
    values = {"app_name": app_name, "inviter": inviter, "scope": scope}
    subject, lead, ending = (say(text.given(**values)) for text in texts)
    link = one_line(opts.get("url", ""))
    expiry = say(_EXPIRY.given(time=f"{opts['expires_at']:%Y-%m-%d %H:%M}")) if link else ""
    sent_to = say(_SENT_TO.given(address=one_line(opts["address"])))
    return MailTexts(subject=subject, lead=lead, link=link, expiry=expiry, ending=ending, sent_to=sent_to)


def texts_of(opts: Mapping[str, Any]) -> MailTexts:
    """The texts in *opts*. If there are none, they are made from the other values, in English."""
    texts = opts.get("texts")
    return texts if isinstance(texts, MailTexts) else mail_texts(opts)


def one_line(value: object) -> str:
    """*value* as one line of text: a character that could end a header or a line becomes a space."""
    spaced = (" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(value))
    return " ".join("".join(spaced).split())
