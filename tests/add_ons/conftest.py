"""What tests of invitations share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asgi_auth.add_ons import Confirmation
from asgi_auth.senders import MemorySender
from tests.add_ons.inviting import Roles, make_inviting
from tests.support import LocalAuthentication


@pytest.fixture
def roles() -> Roles:
    """What was granted."""
    return Roles()


@pytest.fixture
async def auth(tmp_path: Path, roles: Roles) -> AsyncIterator[LocalAuthentication]:
    """An Authentication whose admin may invite, and that proves addresses."""
    sender = MemorySender()
    auth = make_inviting(tmp_path, roles=roles, sender=sender, hooks=[Confirmation(sender=sender)])
    yield auth
    await auth.close()
