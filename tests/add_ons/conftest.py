"""Fixtures for the tests of invitations."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asgi_auth.add_ons import Confirmation
from asgi_auth.senders import MemorySender
from tests.add_ons.inviting import Roles, make_inviting
from tests.support import LocalAuthentication


@pytest.fixture
def roles() -> Roles:
    """A record of what was granted."""
    return Roles()


@pytest.fixture
async def auth(tmp_path: Path, roles: Roles) -> AsyncIterator[LocalAuthentication]:
    """An Authentication whose admin may invite, with ``Confirmation``."""
    sender = MemorySender()
    auth = make_inviting(tmp_path, roles=roles, sender=sender, hooks=[Confirmation(sender=sender)])
    yield auth
    await auth.close()
