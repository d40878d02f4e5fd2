"""Hook: the methods by which an add-on, or a strategy that owns a factor, takes part in every act."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from asgi_auth.acts import Attempt, Draft, FactorRequired, Way
from asgi_auth.events import Event
from asgi_auth.phases import Phase, View
from asgi_auth.store import Found, Work
from asgi_auth.types import Account, Activity, Client

if TYPE_CHECKING:
    from asgi_auth.recognition import Recogniser
    from asgi_auth.services import Services

U = TypeVar("U")
T = TypeVar("T")


class Hook:
    """The base of add-ons, and of strategies that own a factor. Every method does nothing by default; override some."""

    name: str = ""
    """The add-on's name: ``/auth/<name>/<phase>`` and ``auth.add_on(name)``."""
    phases: Sequence[Phase] = ()
    """The HTTP steps that this hook adds."""
    needs: frozenset[str] = frozenset()
    """Capabilities that the store must have in addition to users, accounts, sessions and tokens."""
    recognisers: Sequence["Recogniser"] = ()
    """Recognisers that find the user of a request by further kinds of credential."""
    opens_registration: bool = False
    """True for a hook that sets ``Draft.invited``; ``registration="invite_only"`` needs one."""
    proves_addresses: bool = False
    """True if this hook rejects every sign-in of an unproven address, so that such an account has never been used."""

    def bind(self, services: "Services[Any]") -> Self:
        """Return the hook to use. The library calls this once at the start and passes all of its services."""
        return self

    async def before(self, activity: Activity, client: Client, params: Mapping[str, Any]) -> None:
        """Check an act before it begins and before any secret is checked, such as by a CAPTCHA.

        Raise an ``AuthError`` to refuse the act.

        Args:
            activity: The strategy and phase of the act.
            client: The client that asks.
            params: The parameters that the client sent, without the secrets of the phase.
        """

    async def prepare(self, draft: Draft) -> Draft:
        """Check or alter a user who is about to be created or changed.

        The library calls this before validation and hashing, outside any transaction. Return the draft, altered with
        ``dataclasses.replace`` if required. Raise an ``AuthError`` to refuse it.
        """
        return draft

    async def taken(self, draft: Draft, account: Account) -> bool:
        """Handle a registration whose address another account has.

        Args:
            draft: The registration, normalised.
            account: The account that would have been stored, with the hash of the chosen password.

        Returns:
            True if the client must get the same answer as for any other registration. This hook then sends any mail
            from a job.
        """
        return False

    async def is_contested(self, found: Found[Any], work: Work[Any]) -> bool:
        """Tell whether more than one person may have registered the address of an unconfirmed account.

        The library calls this in the transaction in which the mailbox of the account is proven for the first time.

        Returns:
            True if so. The password and the fields of the account are then dropped.
        """
        return False

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        """Check every sign-in of every strategy.

        Return None to allow it, or ``FactorRequired`` to require another factor. Raise ``AuthenticationFailedError`` to
        refuse it.
        """
        return None

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Handle *event* in the transaction of the act. An exception rolls the act back.

        Send mail and call listeners from ``work.after_commit``.
        """

    async def ways_in(self, found: Found[Any], work: Work[Any]) -> Sequence[Way]:
        """Return the ways to sign in that the user has by this hook. ``Accounts.ways_in`` calls this.

        Only read in this transaction: write nothing and emit nothing.
        """
        return ()

    async def account(self, user: Any) -> View | None:
        """Return this hook's section of the account page, with its forms. Return None to show nothing.

        Args:
            user: The user who is signed in.
        """
        return None

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Clean up to *limit* of this hook's expired rows; return how many. The library repeats this until 0."""
        return 0
