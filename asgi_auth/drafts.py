"""Drafts: what will be written of a user, as the hooks have made it, normalised, with the password's hash."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from asgi_auth.acts import Draft
from asgi_auth.errors import ValidationError
from asgi_auth.hooks import Hook
from asgi_auth.messages import NOT_SUPPORTED, NOT_TEXT, said
from asgi_auth.passwords import Passwords
from asgi_auth.protocol.email import parse_email, parse_username
from asgi_auth.store import ScopedStore
from asgi_auth.types import EMPTY, Client

U = TypeVar("U")

Fields = tuple[dict[str, Any], dict[str, str]]
"""What is written of a user, by logical name, and the key by which each address or user name in it is compared."""


class Drafts(Generic[U]):
    """Asks the hooks about a draft and checks what is left to write."""

    def __init__(
        self, store: ScopedStore[U], *, hooks: Sequence[Hook], passwords: Passwords, special_use: bool
    ) -> None:
        """Args: special_use: Whether addresses such as ``a@x.test`` are accepted: on loopback only."""
        self._store, self._hooks, self._passwords, self._special_use = store, hooks, passwords, special_use

    async def prepare(self, draft: Draft) -> Draft:
        """*draft* as the hooks have altered it, each after the one before it."""
        for hook in self._hooks:
            draft = await hook.prepare(draft)
            if not isinstance(draft, Draft):
                raise TypeError(f"{type(hook).__name__}.prepare returned {type(draft).__name__}, not the draft")
        return draft

    def normalise(self, field: str, text: str) -> tuple[str, str]:
        """An address or user name as it is kept, and the key by which it is compared.

        Raises:
            ValidationError: it is not one; ``fields`` says why.
        """
        try:
            return parse_email(text, special_use=self._special_use) if field == "email" else parse_username(text)
        except ValueError as exc:
            raise ValidationError(f"{field} refused", fields={field: said(exc)}) from exc

    def normalise_fields(self, fields: Mapping[str, Any]) -> Fields:
        """Normalise every address and user name among *fields*. ValidationError names each one that is invalid."""
        values, keys, problems = dict(fields), dict[str, str](), dict[str, str]()
        for field in ("email", "username"):
            value = fields.get(field)
            if value is None:
                continue
            if not isinstance(value, str):
                problems[field] = NOT_TEXT
                continue
            try:
                values[field], keys[field] = self.normalise(field, value)
            except ValidationError as exc:
                problems.update(exc.fields)
        unknown = keys.keys() - self._store.users.identity_fields
        problems.update(dict.fromkeys(unknown, NOT_SUPPORTED))
        if problems:
            raise ValidationError("fields refused", fields=problems)
        return values, keys

    def check_hash(self, password_hash: str | None) -> None:
        """ValidationError if the hash of another system is none that can be verified."""
        try:
            if password_hash is not None:
                self._passwords.check_hash(password_hash)
        except ValueError as exc:
            raise ValidationError("password hash refused", fields={"password_hash": said(exc)}) from exc

    async def hash(self, password: object, values: Mapping[str, Any], client: Client) -> str:
        """The hash of a new password. ValidationError if it is invalid, or made of the *values* of its user."""
        if not isinstance(password, str):
            raise ValidationError("password is not text", fields={"password": NOT_TEXT})
        context = [value for value in values.values() if isinstance(value, str)]
        try:
            return await self._passwords.set(password, context=context, client=client.address)
        except ValueError as exc:
            raise ValidationError("password refused", fields={"password": said(exc)}) from exc


def as_told(draft: Draft) -> Draft:
    """*draft* as an event has it: nothing that was sent, which may be secret, and nothing to be called again."""
    return replace(draft, params=EMPTY, spend=None, follow_up=None, is_password_of=None)
