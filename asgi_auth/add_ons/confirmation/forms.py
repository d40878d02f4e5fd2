"""The forms of confirmation, and the text about the address on the account page."""

from dataclasses import replace

from asgi_auth.messages import Message
from asgi_auth.phases import Form, FormField
from asgi_auth.store import TokenRecord

ADDRESS = Message("account.address", "Your address")

CONFIRM = Form(
    title=Message("confirm.title", "Confirm that this is yours"),
    text=Message(
        "confirm.text",
        "Confirm only if you asked for this. The account that asked will be able to use this address.",
    ),
    token="confirmation_token",
    button=Message("confirm.button", "Confirm"),
    done_title=Message("confirm.done_title", "Confirmed"),
    done=Message("confirm.done", "Your address is confirmed."),
)
UNDO = Form(
    title=Message("undo.title", "Undo the change of your address"),
    text=Message(
        "undo.text", "Your account gets this address back. Everybody is signed out, and you set a new password."
    ),
    token="undo_token",
    button=Message("undo.button", "Undo the change"),
    done=Message(
        "undo.done",
        "Your account has its address back, and everybody was signed out. Now ask for a link to choose a new password.",
    ),
)
_ON_ITS_WAY = Message("page.look_at_mail", "Check your mail")
_SEND = Message("button.send_link", "Send the link")
_AGAIN = Message("button.send_again", "Send the link again")
RESEND = Form(
    title=Message("resend.title", "Confirm your address"),
    text=Message("resend.text", "Enter the address that you registered with. We send you another link to confirm it."),
    fields=(
        FormField(
            name="email", label=Message("field.email", "E-mail address"), autocomplete="username", inputmode="email"
        ),
    ),
    button=_SEND,
    done_title=_ON_ITS_WAY,
    done=Message(
        "resend.done",
        "If this address waits to be confirmed, another link is on its way. There is one a minute at most.",
    ),
)
RESEND_ALL = Form(title="", button=_AGAIN, done_title=_ON_ITS_WAY, done=RESEND.done)
CANCEL = Form(
    title="",
    button=Message("cancel.button", "Cancel the change"),
    done=Message("cancel.done", "The change was cancelled. Your address stays as it is."),
)
CHANGE_EMAIL = Form(
    title=Message("change_email.title", "Change your address"),
    text=Message(
        "change_email.text",
        "We send a link to the new address. Your present address stays until you confirm the new one with that link.",
    ),
    fields=(
        FormField(
            name="email",
            label=Message("field.new_email", "New e-mail address"),
            autocomplete="email",
            inputmode="email",
        ),
        FormField(
            name="current_password",
            label=Message("field.current_password", "Current password"),
            type="password",
            autocomplete="current-password",
        ),
    ),
    button=_SEND,
    done_title=_ON_ITS_WAY,
    done=Message("change_email.done", "A link is on its way to the new address. Open it to confirm the change."),
)


def confirm_form(record: TokenRecord, *, first: bool) -> Form:
    """The form for the link of *record*. It names the value to confirm. *first*: it is the address of an account."""
    if first:
        text = Message(
            "confirm.text_first",
            "You confirm {address} for your account. Confirm only if you registered with this address yourself.",
            address=record.extra_data["email"],
        )
    else:
        [value] = record.extra_data["fields"].values()
        text = Message(
            "confirm.text_change",
            "{address} becomes the address of the account that asked for this. Confirm only if it was you.",
            address=value,
        )
    return replace(CONFIRM, text=text)


def address_text(address: str | None, waiting: str | None, *, unproven: bool) -> Message:
    """The text about the address on the account page.

    Args:
        address: The current address.
        waiting: The new address that waits for its confirmation.
        unproven: Whether the current address is not confirmed.
    """
    if waiting is not None and address is None:
        return Message("account.waiting_only", "{waiting} waits to be confirmed.", waiting=waiting)
    if waiting is not None:
        return Message(
            "account.waiting",
            "{address} stays your address until {waiting} is confirmed.",
            address=address,
            waiting=waiting,
        )
    if unproven:
        return Message("account.unproven", "{address} is not confirmed yet.", address=address)
    return Message("account.proven", "{address} is confirmed.", address=address)
