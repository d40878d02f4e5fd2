"""The verbs of confirmation, finished: what ``auth.actions(confirmation)`` has."""

from collections.abc import Mapping
from typing import Any, Protocol

from asgi_auth.phases import Finished
from asgi_auth.types import Client, Session


class ConfirmationVerbs(Protocol):
    """As ``ConfirmationActions`` says, and with its errors."""

    async def confirm(
        self, params: Mapping[str, Any], *, session: Session | None = ..., client: Client = ...
    ) -> Finished:
        """Let what a mailed link is about take effect."""
        ...

    async def undo(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Take a change of the address back."""
        ...

    async def resend(self, params: Mapping[str, Any], *, user: Any = ..., client: Client = ...) -> Finished:
        """Mail the link once more."""
        ...

    async def pending(self, user: Any) -> dict[str, Any] | None:
        """The fields of a user that wait for their proof."""
        ...

    async def cancel(self, user: Any, *, client: Client = ...) -> Finished:
        """Drop what waits for a proof."""
        ...

    async def change_email(
        self, user: Any, params: Mapping[str, Any], *, session: Session | None, client: Client = ...
    ) -> Finished:
        """Ask for another address."""
        ...
