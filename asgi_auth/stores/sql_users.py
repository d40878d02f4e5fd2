"""``UserStore`` in SQL for every database, with the users in the store's own table."""
# ruff: noqa: S608  # the statements are put together from constants of this package; values are always parameters

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from asgi_auth.errors import IdentityTakenError, ValidationError
from asgi_auth.messages import ADDRESS_TAKEN, NAME_TAKEN, NOT_STORABLE
from asgi_auth.store import Found
from asgi_auth.stores.columns import ACCOUNT
from asgi_auth.stores.executor import ConflictError
from asgi_auth.stores.rows import FOUND
from asgi_auth.stores.table import Table
from asgi_auth.stores.values import dump, parse, storable
from asgi_auth.types import Account, User

_FOUND = f"""
SELECT {FOUND}
FROM asgi_auth_users u JOIN asgi_auth_accounts a ON a.subject_name = u.subject_name AND a.user_id = u.id
WHERE u.subject_name = $1 AND u."""
FIND_USER = {"email": _FOUND + "email_key = $2", "username": _FOUND + "username_key = $2"}
GET_USER = _FOUND + "id = $2"
INSERT_USER = """
INSERT INTO asgi_auth_users (subject_name, id, email, email_key, username, username_key, data, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8)"""
INSERT_ACCOUNT = f"INSERT INTO asgi_auth_accounts (subject_name, {ACCOUNT.listed}) VALUES ($1, {ACCOUNT.values(2)})"
_KEPT = ("email", "email_key", "username", "username_key", "data")
# Changes nothing and locks the row, also if several clients may write at once.
HOLD_USER = f"""
UPDATE asgi_auth_users SET id = id WHERE subject_name = $1 AND id = $2
RETURNING {", ".join(_KEPT)}::text"""
UPDATE_USER = """
UPDATE asgi_auth_users SET email = $3, email_key = $4, username = $5, username_key = $6, data = $7::text::jsonb
WHERE subject_name = $1 AND id = $2"""
DELETE_USER = "DELETE FROM asgi_auth_users WHERE subject_name = $1 AND id = $2 RETURNING 1"

_TAKEN = {"email": ADDRESS_TAKEN, "username": NAME_TAKEN}


def _check(fields: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    refused = [name for name, value in fields.items() if not (storable(value) and storable(keys.get(name)))]
    if refused:
        raise ValidationError("a value cannot be stored", fields=dict.fromkeys(refused, NOT_STORABLE))


def _columns(fields: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[Any, ...]:
    data = {name: value for name, value in fields.items() if name not in FIND_USER}
    return fields.get("email"), keys.get("email"), fields.get("username"), keys.get("username"), dump(data)


class SQLUsers(Table):
    """``UserStore``."""

    identity_fields = frozenset(FIND_USER)

    def user_id(self, user: User) -> str:
        return user.id

    def values(self, user: User) -> Mapping[str, Any]:
        return {"email": user.email, "username": user.username, **user.data}

    async def find(self, field: str, key: str) -> Found[User] | None:
        rows = await self._find(FIND_USER[field], key)
        return self._rows.found(rows[0]) if rows else None

    async def get(self, user_id: str) -> Found[User] | None:
        rows = await self._find(GET_USER, self._user_id(user_id))
        return self._rows.found(rows[0]) if rows else None

    async def insert(
        self, proposed_id: str, fields: Mapping[str, Any], keys: Mapping[str, str], account: Account, *, now: datetime
    ) -> Found[User]:
        _check(fields, keys)
        user_id, theirs = self._user_id(proposed_id), replace(account, user_id=proposed_id)
        async with self._transaction() as users:
            await users._put(INSERT_USER, user_id, *_columns(fields, keys), self._instant(now))
            await users._put(INSERT_ACCOUNT, *self._rows.of(ACCOUNT).write(theirs))
            return await users._reread(proposed_id)

    async def update(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[User] | None:
        _check(fields, keys)
        async with self._transaction() as users:
            rows = await users._change(HOLD_USER, self._user_id(user_id))
            if not rows:
                return None
            kept = dict(zip(_KEPT, rows[0], strict=True))
            held = {"email": kept["email"], "username": kept["username"], **parse(kept["data"]), **fields}
            held_keys = {"email": kept["email_key"], "username": kept["username_key"], **dict.fromkeys(fields), **keys}
            await users._put(UPDATE_USER, self._user_id(user_id), *_columns(held, held_keys))
            return await users._reread(user_id)

    async def replace(self, user_id: str, fields: Mapping[str, Any], keys: Mapping[str, str]) -> Found[User] | None:
        _check(fields, keys)
        async with self._transaction() as users:
            if not await users._change(HOLD_USER, self._user_id(user_id)):
                return None
            await users._put(UPDATE_USER, self._user_id(user_id), *_columns(fields, keys))
            return await users._reread(user_id)

    async def delete(self, user_id: str) -> bool:
        return bool(await self._change(DELETE_USER, self._user_id(user_id)))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator["SQLUsers"]:
        try:
            async with self._executor.transaction() as executor:
                yield SQLUsers(executor, self._subject_name)
        except ConflictError as exc:
            taken = {field: text for field, text in _TAKEN.items() if f"{field}_key" in exc.reason}
            if not taken:
                raise
            raise IdentityTakenError("identity taken", fields=taken) from exc

    async def _reread(self, user_id: str) -> Found[User]:
        return self._rows.found((await self._find(GET_USER, self._user_id(user_id)))[0])
