"""Commit: writes one change in a transaction, with its hooks, events and jobs, as part of an act."""

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
    """An act in progress, or a part of one with an actor of its own."""

    act: Act
    owner: object
    """The ``Commit`` whose act it is."""
    whole: "Acting | None" = None
    """The act that contains this part; None: this is the whole act."""
    told: int = 0
    """How many events of the act the hooks have received."""
    over: bool = False
    """True once the act has ended. A task that outlives the act starts a new one."""
    _token: "Token[Acting | None] | None" = None

    @property
    def root(self) -> "Acting":
        """The whole act."""
        return self.whole or self

    def __enter__(self) -> Self:
        """Everything inside the block belongs to this act. Enter it only once."""
        self._token = _acting.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End the act."""
        self.over = True
        _acting.reset(cast("Token[Acting | None]", self._token))


_acting: ContextVar[Acting | None] = ContextVar("asgi_auth_act", default=None)


class Commit(Generic[U]):
    """Commits acts: ``await commit(act)``.

    One transaction, shielded from cancellation, runs the statements of the act, then every hook for every event in
    order, and then commits. The jobs run afterwards, outside of the shield. Under the plug they run after the response;
    without HTTP the caller awaits them.
    """

    def __init__(self, store: ScopedStore[U], hooks: Sequence[Hook], clock: Clock, jobs: Jobs) -> None:
        self._store, self._hooks, self._clock = store, hooks, clock
        self.jobs = jobs
        self.jobs.on_drop = self._note_dropped

    def acting(self, activity: Activity, *, client: Client | None = None, actor: str | None = None) -> Acting:
        """Begin an act: everything in its ``with`` block, and every job from there, belongs to one act.

        If an act is already open, the block joins it.

        Args:
            activity: The strategy and phase of the act.
            client: The client that asks; None: the client of the open act, or the application.
            actor: The id of the user who acts. None: the actor of the open act, or the application, or a client that is
                not signed in.
        """
        known = self._current()
        if known is None:
            return Acting(Act(activity=activity, client=client or Client(), actor=actor), self)
        act = known.act
        if client is not None or actor is not None:
            act = replace(act, client=client or act.client, actor=actor or act.actor)
        return Acting(act, self, known.root)

    def _current(self) -> Acting | None:
        """The open act, if it belongs to this ``Authentication``."""
        acting = _acting.get()
        return acting if acting is not None and acting.owner is self and not acting.over else None

    @property
    def locale(self) -> str:
        """The language of the client of the open act; English if no act is open."""
        acting = self._current()
        return Client().locale if acting is None else acting.act.client.locale

    def schedule(self, job: Job) -> Awaitable[None]:
        """Schedule *job*, as ``Jobs.schedule``. Everything that the job does belongs to the open act."""
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
        """Run *act* in a transaction and commit it. An exception of the act or of a hook rolls everything back.

        Args:
            act: Writes the change, with the stores of the transaction.
            verb: The name of the method that the application called. It is used if no act is open.
            client: As in ``acting``.
            actor: As in ``acting``.

        Raises:
            StoreUnavailableError: the database does not answer. Nothing was changed.
        """
        with self.acting(Activity(None, verb), client=client, actor=actor) as acting:
            return await self.jobs.shielded(self._transact(act, acting))

    async def _transact(self, act: Callable[[Work[U]], Awaitable[T]], acting: Acting) -> T:
        async with self._store.transaction() as work:
            result = await act(work)
            for event in work.events:  # the list grows during the loop: a hook may emit events
                acting.root.told += 1
                told = _told(event, acting.act)
                for hook in self._hooks:
                    await hook.within(told, work)
        for job in work.jobs:
            self.schedule(job)
        return result

    async def note(self, event: Event) -> None:
        """Send *event* to the hooks after the response, in a short transaction of its own. Never raises."""
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
