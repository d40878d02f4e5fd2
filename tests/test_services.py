"""asgi_auth.services: the services that strategies and add-ons get."""

from pathlib import Path

import pytest

from tests.support import EMAIL, make_auth

pytestmark = pytest.mark.anyio


def test_url_of_a_phase_comes_from_the_configuration(tmp_path: Path) -> None:
    """HT-1: a URL consists of base_url, mount_path and names; values in its query are quoted."""
    services = make_auth(tmp_path, mount_path="/account/auth").services
    assert services.url("password", "reset") == "http://localhost:8000/account/auth/password/reset"
    assert (
        services.url("password", "reset", reset_token="a&b=c/é", x="1")
        == "http://localhost:8000/account/auth/password/reset?reset_token=a%26b%3Dc%2F%C3%A9&x=1"
    )


async def test_values_are_the_fields_of_a_user(tmp_path: Path) -> None:
    """values returns the fields of a user by logical name."""
    auth = make_auth(tmp_path)
    user = await auth.accounts.create({"email": EMAIL, "plan": "gold"})
    assert auth.services.values(user) == {"email": EMAIL, "username": None, "plan": "gold"}
    await auth.close()
