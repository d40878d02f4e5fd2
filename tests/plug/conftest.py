"""An Authentication that is open, and its plug."""

import pytest

from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.support import LocalAuthentication


@pytest.fixture
def plug(auth: LocalAuthentication) -> AuthPlug[User]:
    """As it comes."""
    return AuthPlug(auth)
