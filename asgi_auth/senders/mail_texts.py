"""What the messages say, in English, by purpose."""

import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple


class Words(NamedTuple):
    """The words of one message: lines of text, without the link."""

    subject: str
    lead: str
    ending: str


_OTHER = Words(
    "A message from {app_name}",
    "This message is about your account at {app_name}.",
    "If you did not expect it, there is nothing to do.",
)
_WORDS = {
    "reset": Words(
        "Set a new password for {app_name}",
        "Somebody asked to set a new password for your account at {app_name}.",
        "If it was not you, there is nothing to do: your password stays as it is.",
    ),
    "password_changed": Words(
        "Your password for {app_name} was changed",
        "The password of your account at {app_name} was changed.",
        "If it was not you, go to the sign-in page and ask to set a new password at once.",
    ),
    "confirmation": Words(
        "Confirm your address for {app_name}",
        "Somebody registered at {app_name} with this address. If it was you, open the link to confirm it.",
        "If it was not you, do not open the link: the account cannot be used without it.",
    ),
    "already_registered": Words(
        "You have an account at {app_name} already",
        "Somebody wanted to register at {app_name} with this address, which has an account already. Sign in as usual,"
        " or ask for a new password.",
        "If it was not you, there is nothing to do.",
    ),
    "email_change": Words(
        "Confirm your new address for {app_name}",
        "Somebody asked to use this address for their account at {app_name}. If it was you, open the link.",
        "If it was not you, do not open the link: it would give this address to somebody else's account.",
    ),
    "email_change_asked": Words(
        "A new address for your account at {app_name}",
        "Somebody who is signed in to your account at {app_name} asked to change its address. Until the new one is"
        " confirmed, this one stays.",
        "If it was not you, set a new password at once: that ends the change and signs everybody out.",
    ),
    "email_changed": Words(
        "The address of your account at {app_name} was changed",
        "Your account at {app_name} does not use this address any more.",
        "If it was not you, open the link to take the change back. It signs everybody out; then set a new password.",
    ),
    "email_in_use": Words(
        "You have an account at {app_name} already",
        "Somebody wanted to use this address for another account at {app_name}. It stays with yours.",
        "If it was not you, there is nothing to do.",
    ),
    "invitation": Words(
        "You are invited to {app_name}",
        "{inviter} has invited you to {scope}. Open the link to make your account, or to decline.",
        "If you do not know who this is, there is nothing to do: nothing happens without you.",
    ),
    "sign_in": Words(
        "New sign-in to {app_name}",
        "There was a new sign-in to your account at {app_name}.",
        "If it was not you, go to the sign-in page and ask to set a new password at once.",
    ),
}
_INVITED_WITH_ACCOUNT = _WORDS["invitation"]._replace(
    lead="{inviter} has invited you to {scope}. You have an account at {app_name}: open the link and sign in to"
    " accept, or to decline."
)


def words_for(opts: Mapping[str, Any]) -> Words:
    """The words for ``opts["purpose"]``; a purpose that is not known gets words that suit every purpose."""
    app_name = one_line(opts["app_name"])
    words = _WORDS.get(opts["purpose"], _OTHER)
    if opts["purpose"] == "invitation" and opts.get("registered"):
        words = _INVITED_WITH_ACCOUNT
    inviter, scope = (one_line(opts.get(name) or app_name) for name in ("inviter", "scope"))
    return Words(*(text.format(app_name=app_name, inviter=inviter, scope=scope) for text in words))


def one_line(value: object) -> str:
    """*value* as one line of text: what could end a header or a line becomes a space."""
    spaced = (" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(value))
    return " ".join("".join(spaced).split())
