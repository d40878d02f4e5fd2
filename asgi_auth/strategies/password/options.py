"""The options of the password strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from asgi_auth.checks import check_duration, check_mail_url
from asgi_auth.errors import ConfigurationError
from asgi_auth.limits import Limit, check_limit
from asgi_auth.sender import Sender, SenderFunction
from asgi_auth.services import Services
from asgi_auth.strategies.password.actions import PasswordActions
from asgi_auth.strategies.password.extra_fields import RegisterField, check_function
from asgi_auth.strategies.password.verbs import PasswordVerbs
from asgi_auth.strategy import TypedActions

_RESERVED = frozenset(
    {"id", "data", "email", "username", "password", "password_confirmation", "remember_me", "return_to"}
    | {"confirmed_at", "created_at", "disabled_at", "stamp", "password_hash", "invitation_token"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resettable:
    """Resets of forgotten passwords. A sender delivers a link to set a new password.

    Args:
        sender: Delivers the link, and a notice after the password was changed.
        token_lifetime: How long a link lives; at most a day.
        mails: How many links one address may get. Further links are not sent. The window is at most *token_lifetime*,
            so that the user still has a link that works. None: five within *token_lifetime*. The notice is not counted.
        url: The application's own page in place of the library's; ``reset_token`` is added to its query.
        sign_in: Sign the user in after the reset, if every gate admits them. Off: a reset does not sign in.
    """

    sender: Sender | SenderFunction
    token_lifetime: timedelta = timedelta(hours=1)
    mails: Limit | None = None
    url: str | None = None
    sign_in: bool = False

    def __post_init__(self) -> None:
        check_duration("resettable.token_lifetime", self.token_lifetime, longest=timedelta(days=1))
        if self.mails is not None:
            check_limit("resettable.mails", self.mails)
            if self.mails.window > self.token_lifetime:
                raise ConfigurationError("resettable.mails: its window must not be over token_lifetime")
        check_mail_url("resettable.url", self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Password(TypedActions[PasswordVerbs]):
    """Sign in with a password.

    Args:
        name: The path segment and the factor's name.
        identity_field: The field that identifies a user, ``email`` or ``username``; also the name of the parameter.
        repeat_password: Ask for the new password twice (``password_confirmation``).
        registration_enabled: Off: there is no register phase. The application creates the users.
        sign_in_enabled: Off: no sign_in phase and no sign-in tokens.
        register_fields: Names of extra fields of a registration. Other parameters of a client are not stored. A
            mapping gives each field a function; it turns the text (None: nothing was sent) into the stored value, or
            raises ``ValueError(message)``. ``email`` may be one if users sign in by user name.
        sign_in_token_lifetime: How long the token of ``sign_in(…, token_type="sign_in")`` lives; at most two minutes.
        resettable: How passwords are reset. None: resets are disabled.

    Raises:
        ConfigurationError: an option is invalid; the message names it.
    """

    name: str = "password"
    identity_field: Literal["email", "username"] = "email"
    repeat_password: bool = True
    registration_enabled: bool = True
    sign_in_enabled: bool = True
    register_fields: Sequence[str] | Mapping[str, RegisterField] = field(default=())
    sign_in_token_lifetime: timedelta = timedelta(seconds=60)
    resettable: Resettable | None = None

    def __post_init__(self) -> None:
        if self.identity_field not in ("email", "username"):
            raise ConfigurationError("identity_field must be 'email' or 'username'")
        if not isinstance(self.resettable, Resettable | None):
            raise ConfigurationError("resettable must be a Resettable(sender=…)")
        if isinstance(self.register_fields, str):
            raise ConfigurationError("register_fields must be a sequence of names")
        reserved = _RESERVED - {"email"} if self.identity_field == "username" else _RESERVED
        for name in self.register_fields:
            if name in reserved:
                raise ConfigurationError(f"register_fields: {name!r} is reserved by the library")
            if isinstance(self.register_fields, Mapping):
                check_function(name, self.register_fields[name])
        mailless = self.identity_field == "username" and "email" not in self.register_fields
        if self.resettable is not None and mailless and self.registration_enabled:
            raise ConfigurationError("register_fields must have 'email' for resettable to mail to")
        check_duration("sign_in_token_lifetime", self.sign_in_token_lifetime, longest=timedelta(minutes=2))

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that the store must have."""
        return frozenset() if self.resettable is None else frozenset({"counters"})

    def bind(self, services: Services[Any]) -> PasswordActions:
        """Called once at start by ``Authentication``."""
        return PasswordActions(self, services)
