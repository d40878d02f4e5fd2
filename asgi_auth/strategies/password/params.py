"""The passwords among the parameters of a phase."""

from collections.abc import Mapping, Sequence
from typing import Any

from asgi_auth.errors import ValidationError
from asgi_auth.messages import Message, said
from asgi_auth.passwords import Passwords, normalise_password
from asgi_auth.protocol.fields import Problems, read_texts
from asgi_auth.types import Client

DIFFERENT = Message("password.different", "The two passwords are not the same.")

PASSWORDS = frozenset({"password", "password_confirmation"})
"""Parameters that a form never shows again."""


def read_new_password(params: Mapping[str, Any], *, repeated: bool) -> str:
    """Return the new password. Raises ValidationError if it is missing, or if *repeated* and the two differ."""
    names = ["password", "password_confirmation"] if repeated else ["password"]
    texts = read_texts(params, required=names)
    if len(set(texts.values())) > 1:
        fields = {"password_confirmation": DIFFERENT}
        raise ValidationError("passwords differ", fields=fields)
    return texts["password"]


async def check_all(
    problems: Problems,
    params: Mapping[str, Any],
    passwords: Passwords,
    *,
    client: Client,
    context: Sequence[str] = (),
) -> None:
    """Check the new password by the policy, and raise its problems together with those in *problems*.

    Raises:
        ValidationError: parameters are invalid; the error names all of them.
        OverloadedError: too many passwords wait to be hashed.
    """
    password = params.get("password")
    if problems and "password" not in problems and isinstance(password, str):
        try:
            await passwords.check(password, context=context, client=client.address)
        except ValueError as exc:
            problems["password"] = said(exc)
    problems.check()


def check_password(password: str) -> None:
    """Raises ValidationError if the text cannot be a password. Called before any lookup."""
    try:
        normalise_password(password)
    except ValueError as exc:
        raise ValidationError("password refused", fields={"password": said(exc)}) from exc
