"""Hook: what an add-on, or a strategy that owns a factor, may do around the acts of others."""

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
    """What an add-on, or a strategy that owns a factor, may do. Every method does nothing: override what is needed."""

    name: str = ""
    """The add-on's name: ``/auth/<name>/<phase>`` and ``auth.add_on(name)``."""
    phases: Sequence[Phase] = ()
    """HTTP steps of its own."""
    needs: frozenset[str] = frozenset()
    """Capabilities that the store must have beyond users, accounts, sessions and tokens."""
    recognisers: Sequence["Recogniser"] = ()
    """What finds out who sends a request, by a credential of its own."""
    opens_registration: bool = False
    """True for a hook that sets ``Draft.invited``; ``registration="invite_only"`` needs one."""
    proves_addresses: bool = False
    """True for a hook that lets nobody sign in whose address is unproven, so that such an account is an empty shell."""

    def bind(self, services: "Services[Any]") -> Self:
        """Called once at start with everything that the library offers; what is returned is used from then on."""
        return self

    async def before(self, activity: Activity, client: Client, params: Mapping[str, Any]) -> None:
        """Asked before an act begins and any secret is checked: for a rule of the application's own, or a CAPTCHA.

        Raise an ``AuthError`` to refuse.

        Args:
            activity: What is about to be done.
            client: Who asks.
            params: What was sent, without the secrets of the phase.
        """

    async def prepare(self, draft: Draft) -> Draft:
        """Look at a user about to be created or changed, before validation and hashing, outside any transaction.

        Return it, altered with ``dataclasses.replace`` if need be; raise an ``AuthError`` to refuse.
        """
        return draft

    async def taken(self, draft: Draft, account: Account) -> bool:
        """Called when a person registers with an address that another account has.

        Args:
            draft: What was asked for, normalised.
            account: What would have been kept of it: the hash of the password that was chosen.

        Returns:
            True to have it look like any other registration; whatever is to be done is left to this hook, in a job.
        """
        return False

    async def is_contested(self, found: Found[Any], work: Work[Any]) -> bool:
        """Asked when the mailbox of an account that nobody has confirmed is proven, in the transaction of that claim.

        Returns:
            True if more than one person may have registered its address: what they chose is nobody's then.
        """
        return False

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        """The gate of every sign-in of every strategy.

        Return None to let it pass or ``FactorRequired`` to ask for more; raise ``AuthenticationFailedError`` to refuse.
        """
        return None

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Told of *event* in the transaction of the act; raising rolls the act back.

        Mail and listeners belong in ``work.after_commit``.
        """

    async def ways_in(self, found: Found[Any], work: Work[Any]) -> Sequence[Way]:
        """The ways in that a user has and this hook owns; asked by ``Accounts.ways_in``.

        The transaction is only for looking: write nothing, and emit nothing.
        """
        return ()

    async def account(self, user: Any) -> View | None:
        """What the page of the account shows of this part, with what the user can do about it; None: nothing.

        Args:
            user: Who is signed in.
        """
        return None

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Tidy up to *limit* rows of its own that are over; how many. Called again until it says 0."""
        return 0
