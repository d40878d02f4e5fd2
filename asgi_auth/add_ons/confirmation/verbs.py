"""The methods of ``auth.actions(confirmation)``: each runs an action of confirmation to its end."""

from collections.abc import Mapping
from typing import Any, Protocol

from asgi_auth.phases import Finished
from asgi_auth.types import Client, Session


class ConfirmationVerbs(Protocol):
    """The actions of ``ConfirmationActions``, with its errors."""

    async def confirm(
        self, params: Mapping[str, Any], *, session: Session | None = ..., client: Client = ...
    ) -> Finished:
        """Apply the change of a mailed link."""
        ...

    async def undo(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Undo a change of the address."""
        ...

    async def resend(self, params: Mapping[str, Any], *, user: Any = ..., client: Client = ...) -> Finished:
        """Mail the link again."""
        ...

    async def pending(self, user: Any) -> dict[str, Any] | None:
        """The fields of a user that wait for a proof."""
        ...

    async def cancel(self, user: Any, *, client: Client = ...) -> Finished:
        """Drop the values that wait for a proof."""
        ...

    async def change_email(
        self, user: Any, params: Mapping[str, Any], *, session: Session | None, client: Client = ...
    ) -> Finished:
        """Ask for another address."""
        ...
