"""What an add-on may do around an act, and how an act is committed: its change, its hooks, its events, its jobs."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from weakref import WeakKeyDictionary

from asgi_auth.errors import AuthError
from asgi_auth.store import Found, ScopedStore, Work
from asgi_auth.types import Account, Attempt, Clock, Draft, Event, FactorRequired, Job, JobDropped, Phase

if TYPE_CHECKING:
    from asgi_auth.services import Services

U = TypeVar("U")
T = TypeVar("T")

logger = logging.getLogger("asgi_auth")


class Hook:
    """What an add-on, or a strategy that owns a factor, may do. Every method does nothing: override what is needed."""

    name: str = ""
    """The add-on's name: ``/auth/<name>/<phase>`` and ``auth.add_on(name)``."""
    phases: Sequence[Phase] = ()
    """HTTP steps of its own."""
    needs: frozenset[str] = frozenset()
    """Capabilities that the store must have beyond users, accounts, sessions and tokens."""
    opens_registration: bool = False
    """True for a hook that sets ``Draft.invited``; ``registration="invite_only"`` needs one."""
    proves_addresses: bool = False
    """True for a hook that lets nobody sign in whose address is unproven, so that such an account is an empty shell."""

    def bind(self, services: "Services[Any]") -> Self:
        """Called once at start with everything that the library offers; what is returned is used from then on."""
        return self

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

    async def prune(self, *, now: datetime, limit: int) -> int:
        """Tidy up to *limit* rows of its own that are over; how many. Called again until it says 0."""
        return 0


_collected: ContextVar[list[Job] | None] = ContextVar("asgi_auth_jobs", default=None)


@contextmanager
def collect_jobs() -> Iterator[list[Job]]:
    """Within this block jobs are collected instead of run; whoever opened it runs them, after the response."""
    jobs: list[Job] = []
    token = _collected.set(jobs)
    try:
        yield jobs
    finally:
        _collected.reset(token)


class Jobs:
    """Runs jobs, a bounded number at a time, so that a slow mail server cannot pile them up."""

    def __init__(self, *, running: int = 8, waiting: int = 100) -> None:
        self._running, self._waiting = running, waiting
        # Futures belong to one event loop, so each loop has turns of its own, forgotten with the loop.
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
        self.on_drop: Job | None = None

    async def schedule(self, job: Job) -> None:
        """Run *job* after the response, or now where there is no response to wait for."""
        collected = _collected.get()
        if collected is None:
            await self.run(job)
        else:
            collected.append(job)

    async def run(self, job: Job) -> None:
        """Run *job* and contain its failure: a job never changes an answer that was given."""
        turns = self._turns.setdefault(asyncio.get_running_loop(), _Turns(self._running, self._waiting))
        if await turns.enter():
            try:
                await self._run_all(job)
            finally:
                turns.leave()
        else:
            logger.error("a job was dropped: %d are waiting already", self._waiting)
            if self.on_drop is not None:
                with collect_jobs():  # what this leaves to do is dropped, too
                    await self._contain(self.on_drop)

    async def _run_all(self, job: Job) -> None:
        # What a job leaves to do is done in its own turn: if eight jobs waited for another turn, none would ever end.
        with collect_jobs() as jobs:
            jobs.append(job)
            for each in jobs:
                await self._contain(each)

    async def _contain(self, job: Job) -> None:
        try:
            await job()
        except Exception as exc:  # a job may be anybody's code, and its answer has long been given
            # Only the type: the text of a foreign exception may hold the token that it failed to send.
            logger.error("a job failed: %s", exc.reason if isinstance(exc, AuthError) else type(exc).__name__)


class _Turns:
    """Who may run and who waits, on one event loop."""

    def __init__(self, running: int, waiting: int) -> None:
        self._free, self._limit = running, waiting
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> bool:
        """Wait for a turn; False if too many wait already."""
        if self._free:
            self._free -= 1
            return True
        if len(self._waiting) >= self._limit:
            return False
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came together with the cancellation: pass it on
                self.leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise
        return True

    def leave(self) -> None:
        """Hand the turn to the next that waits, or give it back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # done: cancelled, and its task has not run yet to say so
                turn.set_result(None)
                return
        self._free += 1


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Finish *work* even if the caller is cancelled, and only then let the cancellation through.

    A client that hangs up must not leave half an act behind, nor a task that nobody waits for.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so that nothing is logged about it
        raise cancelled
    return task.result()


class Commit(Generic[U]):
    """Commits acts: ``await commit(act)``.

    One transaction, shielded from cancellation: the act's guarded statements, then every hook for every event in
    order, then the commit; then the jobs, after the response under the plug, awaited without HTTP.
    """

    def __init__(self, store: ScopedStore[U], hooks: Sequence[Hook], clock: Clock, jobs: Jobs) -> None:
        self._store, self._hooks, self._clock = store, hooks, clock
        self.jobs = jobs
        self.jobs.on_drop = self._note_dropped

    async def __call__(self, act: Callable[[Work[U]], Awaitable[T]]) -> T:
        """Run *act* in a transaction and commit it; whatever it or a hook raises rolls everything back.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was changed.
        """
        return await shielded(self._transact(act))

    async def _transact(self, act: Callable[[Work[U]], Awaitable[T]]) -> T:
        async with self._store.transaction() as work:
            result = await act(work)
            for event in work.events:  # grows while it is walked: a hook may emit too
                for hook in self._hooks:
                    await hook.within(event, work)
        for job in work.jobs:
            await self.jobs.schedule(job)
        return result

    async def note(self, event: Event) -> None:
        """Tell the hooks of a failure, in a short transaction of its own, after the response; never raises."""
        if self._is_heard():
            await self.jobs.schedule(lambda: self._note(event))

    def _is_heard(self) -> bool:
        return any(type(hook).within is not Hook.within for hook in self._hooks)

    async def _note(self, event: Event) -> None:
        async def act(work: Work[U]) -> None:
            work.emit(event)

        await self(act)

    async def _note_dropped(self) -> None:
        if self._is_heard():
            await self._note(JobDropped(at=self._clock()))
