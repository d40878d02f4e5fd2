"""auth.actions(…): actions with types. ``type: ignore`` marks errors that mypy must report; unused marks fail."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import Confirmation, Invitation
from asgi_auth.add_ons.confirmation.actions import ConfirmationActions
from asgi_auth.add_ons.confirmation.verbs import ConfirmationVerbs
from asgi_auth.add_ons.invitation.actions import InvitationActions
from asgi_auth.add_ons.invitation.verbs import InvitationVerbs
from asgi_auth.errors import ConfigurationError
from asgi_auth.hooks import Hook
from asgi_auth.senders import MemorySender
from asgi_auth.strategies import Password
from asgi_auth.strategies.password.actions import PasswordActions
from asgi_auth.strategies.password.verbs import PasswordVerbs
from tests.support import credentials, is_alive, make_auth, registration

pytestmark = pytest.mark.anyio


async def test_actions_are_typed_and_finished(tmp_path: Path) -> None:
    """actions returns the verbs of an object that the application passed; a type checker knows exactly these."""
    password, sender = Password(), MemorySender()
    confirmation, invitation = Confirmation(sender=sender, required=False), Invitation(sender=sender)
    auth = make_auth(tmp_path, strategies=[password], add_ons=[confirmation, invitation])
    user, _ = await auth.actions(password).register(registration())
    finished = await auth.actions(password).sign_in(credentials())

    assert await is_alive(auth, finished.token)
    assert await auth.actions(confirmation).pending(user) is None
    assert await auth.actions(invitation).list(user) == []
    with pytest.raises(AttributeError):
        await auth.actions(password).sgn_in(credentials())  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        await auth.actions(password).sign_in(credentials(), remember=True)  # type: ignore[call-arg]
    await auth.close()


async def test_actions_of_another_object_are_refused(tmp_path: Path) -> None:
    """ConfigurationError for another object, even an equal one."""
    auth = make_auth(tmp_path, strategies=[Password()])
    with pytest.raises(ConfigurationError, match="pass the same object"):
        auth.actions(Password())
    await auth.close()


@pytest.mark.parametrize(
    ("verbs", "actions"),
    [(PasswordVerbs, PasswordActions), (ConfirmationVerbs, ConfirmationActions), (InvitationVerbs, InvitationActions)],
)
def test_verbs_are_those_of_the_actions(verbs: Any, actions: Any) -> None:
    """The verbs have the same names and parameters as the actions."""
    hooks = set(vars(Hook))
    assert _signatures(verbs) == {name: each for name, each in _signatures(actions).items() if name not in hooks}


def _signatures(owner: Any) -> dict[str, list[tuple[str, Any, bool]]]:
    return {
        name: [(each.name, each.kind, each.default is each.empty) for each in _parameters(member)]
        for name, member in vars(owner).items()
        if not name.startswith("_") and inspect.iscoroutinefunction(member)
    }


def _parameters(member: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(member).parameters.values())
