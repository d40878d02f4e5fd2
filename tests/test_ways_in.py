"""The ways to sign in that a user has, from all strategies and add-ons."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Way
from asgi_auth.hooks import Hook
from asgi_auth.store import Found, Work
from asgi_auth.strategies import Password
from tests.support import EMAIL, NEW_PASSWORD, PASSWORD, LocalAuthentication, found_of, make_auth

pytestmark = pytest.mark.anyio

BY_PASSWORD = Way(name="password", factor="password", first=True, label="Password")


SINCE = datetime.fromisoformat("2024-05-01T00:00:00+00:00")


class Silent(Hook):
    """A hook without ways in."""

    name = "silent"


class Keys(Hook):
    """Every user has two keys."""

    name = "keys"

    async def ways_in(self, found: Found[Any], work: Work[Any]) -> Sequence[Way]:
        assert await work.users.get(found.account.user_id) == found
        return [Way(name="keys", factor="key", first=False, label=label, since=SINCE) for label in ("blue", "red")]


async def test_user_with_a_password_has_one_way_in(auth: LocalAuthentication) -> None:
    """The way exists once the password is set, also for a disabled user; ways_in takes the user or the id."""
    user = await auth.accounts.create({"email": EMAIL})
    assert await auth.accounts.ways_in(user) == []
    await auth.accounts.set_password(await found_of(auth), NEW_PASSWORD)
    await auth.accounts.disable(user)
    assert await auth.accounts.ways_in(user) == await auth.accounts.ways_in(user.id) == [BY_PASSWORD]


async def test_password_is_a_way_in_only_with_the_identity_of_its_strategy(tmp_path: Path) -> None:
    """A strategy by user name requires a user name; a strategy without sign-in is no way."""
    strategies = [
        Password(name="by_name", identity_field="username"),
        Password(name="by_mail"),
        Password(name="off", sign_in_enabled=False),
    ]
    auth = make_auth(tmp_path, strategies=strategies)
    mailed = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    named = await auth.accounts.create({"username": "alice"}, password=PASSWORD)
    both = await auth.accounts.create({"username": "bob", "email": "bob@mail.example.org"}, password=PASSWORD)
    ways = [[way.name for way in await auth.accounts.ways_in(user)] for user in (mailed, named, both)]
    assert ways == [["by_mail"], ["by_name"], ["by_name", "by_mail"]]
    await auth.close()


async def test_every_hook_names_its_ways_in_one_transaction(tmp_path: Path) -> None:
    """Strategies come first, then add-ons, in their order; a hook without the method has no ways."""
    auth = make_auth(tmp_path, add_ons=[Silent(), Keys()])
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    ways = await auth.accounts.ways_in(user)
    assert [(way.name, way.factor, way.first, way.label, way.since) for way in ways] == [
        ("password", "password", True, "Password", None),
        ("keys", "key", False, "blue", SINCE),
        ("keys", "key", False, "red", SINCE),
    ]
    await auth.close()


async def test_deleted_user_has_no_way_in(tmp_path: Path) -> None:
    """ways_in returns an empty list for a deleted user."""
    auth = make_auth(tmp_path, add_ons=[Keys()])
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    await auth.accounts.delete(user)
    assert list(await auth.accounts.ways_in(user)) == []
    await auth.close()
