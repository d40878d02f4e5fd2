"""Drafts: passes them through the hooks, normalises their fields and hashes their passwords."""

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
"""The fields of a user to write, by logical name; and the key of each address or user name for comparison."""


class Drafts(Generic[U]):
    """Passes a draft through the hooks and checks its fields."""

    def __init__(
        self, store: ScopedStore[U], *, hooks: Sequence[Hook], passwords: Passwords, special_use: bool
    ) -> None:
        """Args: special_use: True if addresses such as ``a@x.test`` are valid; for loopback only."""
        self._store, self._hooks, self._passwords, self._special_use = store, hooks, passwords, special_use

    async def prepare(self, draft: Draft) -> Draft:
        """Pass *draft* through every hook in order, and return the result."""
        for hook in self._hooks:
            draft = await hook.prepare(draft)
            if not isinstance(draft, Draft):
                raise TypeError(f"{type(hook).__name__}.prepare returned {type(draft).__name__}, not the draft")
        return draft

    def normalise(self, field: str, text: str) -> tuple[str, str]:
        """An address or user name in its stored form, and its key for comparison.

        Raises:
            ValidationError: it is invalid; ``fields`` has the reason.
        """
        try:
            return parse_email(text, special_use=self._special_use) if field == "email" else parse_username(text)
        except ValueError as exc:
            raise ValidationError(f"{field} refused", fields={field: said(exc)}) from exc

    def normalise_fields(self, fields: Mapping[str, Any]) -> Fields:
        """Normalise every address and user name in *fields*. Raises ValidationError that names each invalid one."""
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
        """Raise ValidationError if the hasher cannot verify the hash of another system."""
        try:
            if password_hash is not None:
                self._passwords.check_hash(password_hash)
        except ValueError as exc:
            raise ValidationError("password hash refused", fields={"password_hash": said(exc)}) from exc

    async def hash(self, password: object, values: Mapping[str, Any], client: Client) -> str:
        """Hash a new password. Raises ValidationError if it is invalid, or consists of the *values* of its user."""
        if not isinstance(password, str):
            raise ValidationError("password is not text", fields={"password": NOT_TEXT})
        context = [value for value in values.values() if isinstance(value, str)]
        try:
            return await self._passwords.set(password, context=context, client=client.address)
        except ValueError as exc:
            raise ValidationError("password refused", fields={"password": said(exc)}) from exc


def as_told(draft: Draft) -> Draft:
    """*draft* for an event: without the client's parameters, which may be secret, and without its functions."""
    return replace(draft, params=EMPTY, spend=None, follow_up=None, is_password_of=None)
