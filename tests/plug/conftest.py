"""An Authentication that is open, and its plug."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.support import LocalAuthentication, make_auth


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """Local (http), opened, closed at the end."""
    auth = make_auth(tmp_path)
    async with auth.running():
        yield auth


@pytest.fixture
def plug(auth: LocalAuthentication) -> AuthPlug[User]:
    """As it comes."""
    return AuthPlug(auth)
