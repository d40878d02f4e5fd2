"""The forms of the plug's own pages."""

from functools import partial
from typing import TYPE_CHECKING

from asgi_auth.phases import Form, FormField

if TYPE_CHECKING:
    from asgi_auth.strategies.password.options import Password


def reset_form(options: "Password") -> Form:
    """For whoever has followed the link of a reset."""
    fields = _password_fields(options, "New password")
    return Form(title="Choose a new password", token="reset_token", fields=fields, button="Set the new password")


def registration_form(options: "Password") -> Form:
    """For somebody who was invited: the address is that of the invitation."""
    fields = [
        FormField(name=name, label=name.replace("_", " ").capitalize(), autocomplete="on")
        for name in options.register_fields
        if name != "email"
    ]
    if options.identity_field == "username":
        username = FormField(name="username", label="Username", autocomplete="username", inputmode="text")
        fields.insert(0, username)
    return Form(
        title="Create an account",
        token="invitation_token",
        fields=(*fields, *_password_fields(options, "Password")),
        button="Create the account",
    )


def _password_fields(options: "Password", label: str) -> tuple[FormField, ...]:
    new_password = partial(FormField, type="password", autocomplete="new-password")
    fields = [new_password(name="password", label=label)]
    if options.repeat_password:
        fields.append(new_password(name="password_confirmation", label=f"{label}, again"))
    return tuple(fields)
