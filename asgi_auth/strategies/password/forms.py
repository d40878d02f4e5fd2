"""The forms of the password strategy."""

from functools import partial
from typing import TYPE_CHECKING

from asgi_auth.messages import Message
from asgi_auth.phases import Form, FormField

if TYPE_CHECKING:
    from asgi_auth.strategies.password.options import Password

_EMAIL = FormField(
    name="email", label=Message("field.email", "E-mail address"), autocomplete="username", inputmode="email"
)
_USERNAME = FormField(
    name="username", label=Message("field.username", "User name"), autocomplete="username", inputmode="text"
)
_PASSWORD = FormField(
    name="password", label=Message("field.password", "Password"), type="password", autocomplete="current-password"
)
_REMEMBER = FormField(
    name="remember_me", label=Message("field.remember_me", "Keep me signed in"), type="checkbox", optional=True
)
_NEW = Message("field.new_password", "New password")
_AGAIN = Message("field.password_again", "Repeat the password")
_LOOK_AT_MAIL = Message("page.look_at_mail", "Check your mail")
_CREATE = Message("register.button", "Create the account")
_REGISTER = Message("register.title", "Create an account")


def identity_field(options: "Password", *, shown: str | None = None) -> FormField:
    """The field for the address or user name. If *shown* is given, it is shown in place of an input."""
    field = _EMAIL if options.identity_field == "email" else _USERNAME
    return FormField(
        name=field.name, label=field.label, autocomplete="username", inputmode=field.inputmode, shown=shown
    )


def sign_in_form(options: "Password") -> Form:
    """The form to sign in."""
    refused = (
        Message("sign_in.refused", "The address or the password is wrong, or the address is not confirmed yet.")
        if options.identity_field == "email"
        else Message("sign_in.refused_name", "The user name or the password is wrong.")
    )
    return Form(
        title=Message("sign_in.title", "Sign in"),
        fields=(identity_field(options), _PASSWORD, _REMEMBER),
        button=Message("sign_in.button", "Sign in"),
        refused=refused,
    )


def register_form(options: "Password") -> Form:
    """The form to create an account."""
    return Form(
        title=_REGISTER,
        text=Message("register.text", "Choose a long password that nobody would guess, such as a few words."),
        fields=(identity_field(options), *_extra_fields(options), *_new_password(options)),
        button=_CREATE,
        done_title=_LOOK_AT_MAIL,
        done=Message(
            "register.done",
            "We have sent a mail to this address. Open the link in it to confirm that the address is yours. Then you"
            " can sign in.",
        ),
    )


def invited_form(options: "Password") -> Form:
    """The form to create an account after an invitation, with the address of the invitation."""
    known_by = () if options.identity_field == "email" else (identity_field(options),)
    return Form(
        title=_REGISTER,
        token="invitation_token",
        fields=(*known_by, *_extra_fields(options, but="email"), *_new_password(options)),
        button=_CREATE,
        done=Message("register.made", "Your account was created. You can sign in now."),
    )


def reauthenticate_form(options: "Password", shown: str | None = None) -> Form:
    """The form to prove the password again. *shown*: the address or user name of the user."""
    known = () if shown is None else (identity_field(options, shown=shown),)
    return Form(
        title=Message("reauthenticate.title", "Is it still you?"),
        text=Message("reauthenticate.text", "You signed in a while ago. Enter your password once more to continue."),
        fields=(*known, _PASSWORD),
        refused=Message("password.wrong", "The password is wrong."),
    )


def reset_request_form(options: "Password") -> Form:
    """The form to ask for a reset link."""
    return Form(
        title=Message("reset_request.title", "Forgot your password?"),
        text=Message("reset_request.text", "We send you a link to choose a new password."),
        fields=(identity_field(options),),
        button=Message("button.send_link", "Send the link"),
        done_title=_LOOK_AT_MAIL,
        done=Message(
            "reset_request.done",
            "If there is an account with this address or name, a link to choose a new password is on its way.",
        ),
    )


def reset_form(options: "Password", shown: str | None = None) -> Form:
    """The form of a reset link. *shown*: the address or user name of the account."""
    known = () if shown is None else (identity_field(options, shown=shown),)
    return Form(
        title=Message("reset.title", "Choose a new password"),
        token="reset_token",
        fields=(*known, *_new_password(options, _NEW)),
        button=Message("reset.button", "Set the new password"),
        done=Message("reset.done", "Your new password is set. You can sign in with it now."),
    )


def _extra_fields(options: "Password", *, but: str | None = None) -> tuple[FormField, ...]:
    """The extra fields of a registration. The label of an application's field is made from its name."""
    address = FormField(name="email", label=_EMAIL.label, autocomplete="email", inputmode="email")
    return tuple(
        address
        if name == "email"
        else FormField(name=name, label=name.replace("_", " ").capitalize(), autocomplete="on")
        for name in options.register_fields
        if name != but
    )


def _new_password(options: "Password", label: str = _PASSWORD.label) -> tuple[FormField, ...]:
    new_password = partial(FormField, type="password", autocomplete="new-password")
    fields = [new_password(name="password", label=label)]
    if options.repeat_password:
        fields.append(new_password(name="password_confirmation", label=_AGAIN))
    return tuple(fields)
