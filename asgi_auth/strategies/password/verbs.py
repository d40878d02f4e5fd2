"""The methods of ``auth.actions(password)``: each runs an action of the password strategy to its end."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from asgi_auth.phases import Finished
from asgi_auth.types import Client, Session


class PasswordVerbs(Protocol):
    """The actions of ``PasswordActions``, with its errors. Raises FactorRequiredError if a factor is missing."""

    async def register(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Create a user; the token is None if no session was created."""
        ...

    async def sign_in(
        self, params: Mapping[str, Any], *, client: Client = ..., token_type: Literal["access", "sign_in"] = ...
    ) -> Finished:
        """Sign in. With ``token_type="sign_in"`` the token is for ``sign_in_with_token``."""
        ...

    async def sign_in_with_token(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Sign in with a sign-in token."""
        ...

    async def reauthenticate(self, params: Mapping[str, Any], *, session: Session, client: Client = ...) -> Finished:
        """Replace *session* with a fresh session."""
        ...

    async def reset_request(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Mail a link; user and token are None."""
        ...

    async def reset(self, params: Mapping[str, Any], *, client: Client = ...) -> Finished:
        """Set a new password; the token is None unless the reset signs in."""
        ...
