"""The passwords among the parameters of a phase."""

from collections.abc import Mapping
from typing import Any

from asgi_auth.errors import ValidationError
from asgi_auth.passwords import normalise_password
from asgi_auth.protocol.fields import read_texts

PASSWORDS = frozenset({"password", "password_confirmation"})
"""Parameters that are never shown again."""


def read_new_password(params: Mapping[str, Any], *, repeated: bool) -> str:
    """A password to set. ValidationError if it is missing, or the two are not the same where it is *repeated*."""
    names = ["password", "password_confirmation"] if repeated else ["password"]
    texts = read_texts(params, required=names)
    if len(set(texts.values())) > 1:
        fields = {"password_confirmation": "The two passwords are not the same."}
        raise ValidationError("passwords differ", fields=fields)
    return texts["password"]


def check_password(password: str) -> None:
    """ValidationError for a text that cannot be a password, before anything is looked up."""
    try:
        normalise_password(password)
    except ValueError as exc:
        raise ValidationError("password refused", fields={"password": str(exc)}) from exc
