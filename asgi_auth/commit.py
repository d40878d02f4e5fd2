"""Commit: one change, with its hooks, its events and its jobs; and the act that all of them belong to."""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Self, TypeVar, cast

from asgi_auth.acts import Act
from asgi_auth.events import Event, JobDropped
from asgi_auth.hooks import Hook
from asgi_auth.runtime.jobs import Jobs
from asgi_auth.runtime.lanes import Note, Notice
from asgi_auth.store import ScopedStore, Work
from asgi_auth.types import Activity, Client, Clock, Job

U = TypeVar("U")
T = TypeVar("T")


@dataclass(slots=True)
class Acting:
    """An act that is under way, or a part of one that has an actor of its own."""

    act: Act
    owner: object
    """The ``Commit`` whose act it is."""
    whole: "Acting | None" = None
    """The act that this is a part of; None: it is the act itself."""
    told: int = 0
    """How many events of the act hooks were told."""
    over: bool = False
    """True once it has ended. A task that outlives it begins acts of its own."""
    _token: "Token[Acting | None] | None" = None

    @property
    def root(self) -> "Acting":
        """The whole act."""
        return self.whole or self

    def __enter__(self) -> Self:
        """What happens within the block belongs to it. Entered once."""
        self._token = _acting.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """It is over."""
        self.over = True
        _acting.reset(cast("Token[Acting | None]", self._token))


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

    def acting(self, activity: Activity, *, client: Client | None = None, actor: str | None = None) -> Acting:
        """Within the ``with`` block of this whatever happens belongs to one act, and so do its jobs.

        If an act is open already, it is that one.

        Args:
            activity: What is done.
            client: Who asks; None: the application, or the client of the act that is open.
            actor: The id of the user who does it; None: nobody who is signed in, or the application, or the actor of
                the act that is open.
        """
        known = self._current()
        if known is None:
            return Acting(Act(activity=activity, client=client or Client(), actor=actor), self)
        act = known.act
        if client is not None or actor is not None:
            act = replace(act, client=client or act.client, actor=actor or act.actor)
        return Acting(act, self, known.root)

    def _current(self) -> Acting | None:
        """The act that is open here, if it is one of this ``Authentication``."""
        acting = _acting.get()
        return acting if acting is not None and acting.owner is self and not acting.over else None

    @property
    def locale(self) -> str:
        """The language of the client whose act is open; English where there is none."""
        acting = self._current()
        return Client().locale if acting is None else acting.act.client.locale

    def schedule(self, job: Job) -> Awaitable[None]:
        """Have *job* done, as ``Jobs.schedule``; what happens in it belongs to the act that is open."""
        acting = self._current()
        if acting is None:
            return self.jobs.schedule(job)
        inner = job.job if isinstance(job, Note | Notice) else job

        async def resumed() -> None:
            with Acting(acting.act, self, acting.root):
                await inner()

        return self.jobs.schedule(replace(job, job=resumed) if isinstance(job, Note | Notice) else resumed)

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
                acting.root.told += 1
                told = _told(event, acting.act)
                for hook in self._hooks:
                    await hook.within(told, work)
        for job in work.jobs:
            self.schedule(job)
        return result

    async def note(self, event: Event) -> None:
        """Tell the hooks of a failure, in a short transaction of its own, after the response; never raises."""
        if (acting := self._current()) is not None:
            acting.root.told += 1
        if self._is_heard():
            await self.schedule(Note(partial(self._note, event)))

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
