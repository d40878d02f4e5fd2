"""The forms of the demo, and what its pages may say at their top."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from asgi_auth import Activity
from asgi_auth.phases import Form, FormField


class Step(NamedTuple):
    """A form that posts to a phase, the page that shows it, and where else one may want to go."""

    path: str
    form: Form
    links: Mapping[str, str]


EMAIL = FormField(name="email", label="E-mail address", autocomplete="username", inputmode="email")
PASSWORD = FormField(name="password", label="Password", type="password", autocomplete="current-password")
REMEMBER = FormField(name="remember_me", label="Keep me signed in for 30 days", type="checkbox")
_NEW = replace(PASSWORD, autocomplete="new-password")
_AGAIN = replace(_NEW, name="password_confirmation", label="Password, again")
_NEW_EMAIL = replace(EMAIL, label="New e-mail address", autocomplete="email")
_CURRENT = replace(PASSWORD, name="current_password", label="Current password")
_OTHERS_EMAIL = replace(EMAIL, autocomplete="off")
_ACCOUNT = {"/account": "Back to your account"}

SIGN_IN = Activity("password", "sign_in")
REGISTER = Activity("password", "register")
RESET_REQUEST = Activity("password", "reset_request")
REAUTHENTICATE = Activity("password", "reauthenticate")
RESEND_LINK = Activity("confirmation", "resend")
CHANGE_EMAIL = Activity("confirmation", "change_email")
INVITE = Activity("invitation", "invite")
VIEW = Activity("invitation", "view")
ROWS = (Activity("invitation", "resend"), Activity("invitation", "revoke"))
"""What can be done about one of several invitations."""
FRESH = timedelta(minutes=15)
"""How long ago somebody may have proven who they are, to change the address."""

STEPS = {
    SIGN_IN: Step(
        "/sign_in",
        Form(title="Sign in", fields=(EMAIL, PASSWORD, REMEMBER), button="Sign in"),
        {
            "/forgot_password": "Forgot your password?",
            "/confirm_address": "No mail to confirm your address?",
            "/register": "Create an account",
        },
    ),
    REGISTER: Step(
        "/register",
        Form(
            title="Create an account",
            text="Choose at least 8 characters: a few words that nobody would guess.",
            fields=(EMAIL, _NEW, _AGAIN),
            button="Create the account",
        ),
        {"/sign_in": "Sign in instead"},
    ),
    RESET_REQUEST: Step(
        "/forgot_password",
        Form(
            title="Forgot your password?",
            text="Enter the address of your account, and we send you a link to choose a new password.",
            fields=(EMAIL,),
            button="Send the link",
        ),
        {"/sign_in": "Back to sign in"},
    ),
    RESEND_LINK: Step(
        "/confirm_address",
        Form(
            title="Confirm your address",
            text="Enter the address that you have registered with, and we send you another link to confirm it.",
            fields=(EMAIL,),
            button="Send the link",
        ),
        {"/sign_in": "Back to sign in", "/register": "Create an account"},
    ),
    REAUTHENTICATE: Step(
        "/reauthenticate",
        Form(
            title="Is it still you?",
            text="You have been signed in for a while. Enter your password once more to go on.",
            fields=(PASSWORD,),
            button="Go on",
        ),
        _ACCOUNT,
    ),
    CHANGE_EMAIL: Step(
        "/account/address",
        Form(
            title="Change your address",
            text="We send a link to the new address. Until you open it, the one that you have now stays.",
            fields=(_NEW_EMAIL, _CURRENT),
            button="Send the link",
        ),
        _ACCOUNT,
    ),
    INVITE: Step(
        "/invitations",
        Form(
            title="Invite people",
            text="We send a link by mail. It can be used once, within seven days.",
            fields=(_OTHERS_EMAIL,),
            button="Send the invitation",
        ),
        _ACCOUNT,
    ),
}
FOR_STRANGERS = (SIGN_IN, REGISTER, RESET_REQUEST, RESEND_LINK)
"""Whoever is signed in has no use for these."""

NOTES = {
    "made": "Your account was made. You can sign in now.",
    "set": "Your password was set. You can sign in with it now.",
    "signed_out": "You are signed out.",
    "ended": "The session was ended.",
    "others_ended": "You are signed out everywhere but here.",
    "confirmed": "Your address is confirmed.",
    "proven": "Your address is confirmed. You can sign in now.",
    "sent_again": "If the address waits to be confirmed, another link is on its way. There is one a minute at most.",
    "change_asked": "A link is on its way to the new address. Open it to confirm the change.",
    "kept": "The change was cancelled. Your address stays as it is.",
    "undone": "Your account has its address back, and everybody was signed out. Now choose a new password.",
    "invited": "The invitation is on its way.",
    "invited_again": "The invitation was sent again. The older link does not work any more.",
    "revoked": "The invitation was revoked. Its link does not work any more.",
    "joined": "You have accepted the invitation. Welcome!",
    "declined": "You have declined the invitation. Nothing else will happen.",
}
"""What a page may say at its top: the query names one, so that no link can put words of its own there."""
