"""What an add-on may do around an act, and how an act is committed: its change, its hooks, its events, its jobs."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from asgi_auth.acts import Act, Attempt, Draft, FactorRequired, Way
from asgi_auth.events import Event, JobDropped
from asgi_auth.phases import Phase
from asgi_auth.runtime.jobs import Jobs
from asgi_auth.runtime.lanes import Note
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.types import Account, Activity, Client, Clock

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
        """Told that somebody registers with an address that another account has.

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

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Tidy up to *limit* rows of its own that are over; how many. Called again until it says 0."""
        return 0


@dataclass(slots=True)
class Acting:
    """An act that is under way."""

    act: Act
    told: int = 0
    """How many events of it hooks were told."""


_acting: ContextVar[Acting | None] = ContextVar("asgi_auth_act", default=None)


class Commit(Generic[U]):
    """Commits acts: ``await commit(act)``.

    One transaction, shielded from cancellation: the act's guarded statements, then every hook for every event in
    order, then the commit. Then the jobs, outside of the shield: after the response under the plug, awaited without
    HTTP.
    """

    def __init__(self, store: ScopedStore[U], hooks: Sequence[Hook], clock: Clock, jobs: Jobs) -> None:
        self._store, self._hooks, self._clock = store, hooks, clock
        self.jobs = jobs
        self.jobs.on_drop = self._note_dropped

    @contextmanager
    def acting(self, activity: Activity, *, client: Client | None = None, actor: str | None = None) -> Iterator[Acting]:
        """Within this block whatever happens belongs to one act, and so do its jobs. Inside of an act: to that one.

        Args:
            activity: What is done.
            client: Who asks; None: the application.
            actor: The id of the user who does it; None: nobody who is signed in, or the application.
        """
        known = _acting.get()
        if known is not None:
            yield known
            return
        token = _acting.set(Acting(Act(activity=activity, client=client or Client(), actor=actor)))
        try:
            yield cast("Acting", _acting.get())
        finally:
            _acting.reset(token)

    async def __call__(
        self,
        act: Callable[[Work[U]], Awaitable[T]],
        *,
        verb: str | None = None,
        client: Client | None = None,
        actor: str | None = None,
    ) -> T:
        """Run *act* in a transaction and commit it; whatever it or a hook raises rolls everything back.

        Args:
            act: What is done.
            verb: What the application does by itself, where this is not part of an act; with *client* and *actor* as in
                ``acting``.
            client: Who asks.
            actor: Who does it.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was changed.
        """
        with self.acting(Activity(None, verb), client=client, actor=actor) as acting:
            return await self.jobs.shielded(self._transact(act, acting))

    async def _transact(self, act: Callable[[Work[U]], Awaitable[T]], acting: Acting) -> T:
        async with self._store.transaction() as work:
            result = await act(work)
            for event in work.events:  # grows while it is walked: a hook may emit too
                acting.told += 1
                told = _told(event, acting.act)
                for hook in self._hooks:
                    await hook.within(told, work)
        for job in work.jobs:
            self.jobs.schedule(job)
        return result

    async def note(self, event: Event) -> None:
        """Tell the hooks of a failure, in a short transaction of its own, after the response; never raises."""
        if (acting := _acting.get()) is not None:
            acting.told += 1
        if self._is_heard():
            await self.jobs.schedule(Note(partial(self._note, event)))

    def _is_heard(self) -> bool:
        return any(type(hook).within is not Hook.within for hook in self._hooks)

    async def _note(self, event: Event) -> None:
        async def act(work: Work[U]) -> None:
            work.emit(event)

        await self(act)

    async def _note_dropped(self, count: int) -> None:
        if self._is_heard():
            await self._note(JobDropped(at=self._clock(), count=count))


def _told(event: Event, act: Act) -> Event:
    actor = event.actor or act.actor
    return replace(event, act_id=act.id, activity=act.activity, actor=actor, client=act.client)
