"""The options of confirmation."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from asgi_auth.add_ons.confirmation.actions import ConfirmationActions
from asgi_auth.add_ons.confirmation.verbs import ConfirmationVerbs
from asgi_auth.checks import check_duration, check_mail_url
from asgi_auth.errors import ConfigurationError
from asgi_auth.limits import Limit, check_limit
from asgi_auth.sender import Sender, SenderFunction
from asgi_auth.services import Services
from asgi_auth.strategy import TypedActions


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation(TypedActions[ConfirmationVerbs]):
    """A new or changed address is accepted after the owner of the mailbox has confirmed it.

    Args:
        sender: Delivers the links and notices.
        monitor_fields: The fields to confirm: ``email``, or an extra field that the sender can deliver to. If there are
            several add-ons, each has its own fields.
        required: A user with an unproven address cannot sign in by any strategy. A registration does not reveal
            whether an address has an account. Requires ``email`` among the fields.
        confirm_on_create: Ask for a proof when an account is created. ``email`` is written at once, as unproven. Other
            fields are written after their confirmation.
        confirm_on_update: Hold back a changed field until it is confirmed. Off: it is written at once, an address as
            unproven.
        auto_confirm: Names of strategies whose addresses are trusted without a mail.
        lifetime: How long a link lives.
        resend_after: How long an address must wait for the next link.
        undo_lifetime: How long the owner of an earlier address can undo a change.
        change_fresh: The highest age of a sign-in that may change the address.
        mails: How many mails one address may get. Links of changes are counted apart. The notice of a completed change
            is not counted.
        url: The application's own page in place of the library's; ``confirmation_token`` is added to its query.
        undo_url: The same for undoing a change; ``undo_token`` is added.
        sign_in: Sign the user in after a confirmation, if every gate admits them. Off: confirming does not sign in.
        name: The path segment of the phases, and ``auth.add_on(name)``.

    Raises:
        ConfigurationError: an option is invalid; the message names it.
    """

    sender: Sender | SenderFunction
    monitor_fields: Sequence[str] = ("email",)
    required: bool = True
    confirm_on_create: bool = True
    confirm_on_update: bool = True
    auto_confirm: Sequence[str] = ()
    lifetime: timedelta = timedelta(days=3)
    resend_after: timedelta = timedelta(seconds=60)
    undo_lifetime: timedelta = timedelta(days=7)
    change_fresh: timedelta = timedelta(minutes=15)
    mails: Limit = Limit(5, timedelta(hours=1))
    url: str | None = None
    undo_url: str | None = None
    sign_in: bool = False
    name: str = "confirmation"

    needs: ClassVar[frozenset[str]] = frozenset({"counters"})
    """The capabilities that the store must have."""

    def __post_init__(self) -> None:
        self._check_fields()
        for name in ("lifetime", "resend_after", "undo_lifetime", "change_fresh"):
            check_duration(f"confirmation.{name}", getattr(self, name))
        check_limit("confirmation.mails", self.mails)
        for name in ("url", "undo_url"):
            check_mail_url(f"confirmation.{name}", getattr(self, name))

    def _check_fields(self) -> None:
        for name in ("monitor_fields", "auto_confirm"):
            if not _are_names(getattr(self, name)):
                raise ConfigurationError(f"confirmation.{name} must be a sequence of names")
        if not self.monitor_fields:
            raise ConfigurationError("confirmation.monitor_fields: there must be one")
        if len(set(self.monitor_fields)) < len(self.monitor_fields):
            raise ConfigurationError("confirmation.monitor_fields has the same field twice")
        if "username" in self.monitor_fields:
            raise ConfigurationError("confirmation.monitor_fields: no mail can be sent to a user by a user name")
        if self.required and not self.confirms_email:
            raise ConfigurationError(
                "confirmation.required: monitor_fields must have 'email', or there is no proof to require; give"
                " required=False"
            )

    @property
    def confirms_email(self) -> bool:
        """Whether the address is among the fields."""
        return "email" in self.monitor_fields

    def bind(self, services: Services[Any]) -> ConfirmationActions:
        """Called once at start by ``Authentication``."""
        return ConfirmationActions(self, services)


def _are_names(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(type(name) is str for name in value)
