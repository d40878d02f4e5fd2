"""The fixture for the plug."""

import pytest

from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.support import LocalAuthentication


@pytest.fixture
def plug(auth: LocalAuthentication) -> AuthPlug[User]:
    """A plug without changes."""
    return AuthPlug(auth)
