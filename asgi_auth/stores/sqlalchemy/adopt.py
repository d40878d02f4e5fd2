"""Makes accounts for users that existed before the library."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import and_, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from asgi_auth.protocol.email import parse_email, parse_username
from asgi_auth.protocol.password_hashes import check_hash
from asgi_auth.runtime.callables import returned
from asgi_auth.stores.sqlalchemy.accounts import encode_account
from asgi_auth.stores.sqlalchemy.model import Model
from asgi_auth.stores.sqlalchemy.tables import Tables

BATCH = 200
"""Users in one transaction."""


class Adopted(NamedTuple):
    """The result for users without an account."""

    created: int
    """How many users have an account now."""
    refused: Mapping[str, str]
    """Why the other users have none, by the id of the user."""


class Batch(NamedTuple):
    """The result for the next users, by their ids."""

    last: Any
    """None if no user was left."""
    refused: Mapping[str, str]
    created: int


class Adoption:
    """Gives users of one subject an account."""

    def __init__(
        self,
        model: Model,
        tables: Tables,
        subject_name: str,
        account: Callable[[Any], Mapping[str, Any]],
        can_verify: Callable[[str], bool],
    ) -> None:
        self._model, self._accounts, self._subject_name = model, tables.accounts, subject_name
        self._account, self._can_verify = account, can_verify

    def next_batch(self, session: Session, last: Any) -> Batch:
        """Adopt the users after the id *last*; None for the first ones."""
        accounts = self._accounts.c
        theirs = and_(accounts.user_id == self._model.id, accounts.subject_name == self._subject_name)
        statement = (
            select(self._model.cls)
            .outerjoin(self._accounts, theirs)
            .where(accounts.user_id.is_(None), *([] if last is None else [self._model.id > last]))
            .order_by(self._model.id)
            .limit(BATCH)
        )
        users = session.scalars(statement).unique().all()
        found = {self._model.user_id(user): self._adopt(session, user) for user in users}
        refused = {user_id: reason for user_id, reason in found.items() if reason is not None}
        next_id = getattr(users[-1], self._model.id_attribute) if users else None
        return Batch(next_id, refused, len(found) - len(refused))

    def _adopt(self, session: Session, user: Any) -> str | None:
        """Make an account for the user. Returns None, or the reason why not."""
        known = returned(self._account(user), Mapping, "adopt: account")  # type: ignore[type-abstract]  # no instance
        try:
            keys = self._keys(user)
            if known.get("password_hash") is not None:
                check_hash(known["password_hash"], self._verifies)
        except ValueError as exc:
            return str(exc)
        row = {
            "subject_name": self._subject_name,
            "user_id": getattr(user, self._model.id_attribute),
            **encode_account({"stamp": secrets.token_bytes(16), **known}),
            **keys,
        }
        try:
            with session.begin_nested():
                session.execute(insert(self._accounts).values(row))
        except IntegrityError:
            return "another user has this address or name"
        return None

    def _verifies(self, stored: str) -> bool:
        return returned(self._can_verify(stored), bool, "adopt: can_verify")

    def _keys(self, user: Any) -> dict[str, str]:
        values = self._model.read(user)
        texts = {name: values[name] for name in sorted(self._model.identities) if values[name] is not None}
        if not texts:
            raise ValueError("there is no address or name")
        # Special-use domains are accepted: the users already exist, and mail to these domains is never delivered.
        return {
            f"{name}_key": parse_email(text, special_use=True)[1] if name == "email" else parse_username(text)[1]
            for name, text in texts.items()
        }
