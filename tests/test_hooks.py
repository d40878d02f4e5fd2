"""asgi_auth.hooks: a change is committed together with its hooks or not at all; its jobs run after the commit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Attempt, Draft, Proof
from asgi_auth.errors import ForbiddenError, ValidationError
from asgi_auth.events import ActFailed, Event, UserCreated
from asgi_auth.hooks import Hook
from asgi_auth.runtime.jobs import collect_jobs
from asgi_auth.store import Work
from asgi_auth.types import Client, User
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, LocalAuthentication, make_auth, register

pytestmark = pytest.mark.anyio


class Recorder(Hook):
    """Records all events in a list and then calls the test's function."""

    def __init__(self, name: str = "recorder", log: list[str] | None = None) -> None:
        self.name = name
        self.log: list[str] = [] if log is None else log
        self.then: Callable[[Event, Work[Any]], Awaitable[None]] | None = None

    async def within(self, event: Event, work: Work[Any]) -> None:
        self.log.append(f"{self.name}:{event.name}")
        if self.then is not None:
            await self.then(event, work)


def recording(directory: Path) -> tuple[LocalAuthentication, Recorder]:
    hook = Recorder()
    return make_auth(directory, add_ons=[hook]), hook


# --- Hook ------------------------------------------------------------------------------------------------------------


async def test_hook_without_overrides_does_nothing(tmp_path: Path) -> None:
    """A hook without overrides changes, refuses and writes nothing."""
    auth = make_auth(tmp_path)
    user, _ = await register(auth)
    hook, draft = Hook(), Draft(act="create", strategy=None)
    found = await auth.accounts.get(user.id)
    assert found is not None
    proof = Proof(account=found.account, factor="password", at=auth.clock())
    assert hook.bind(auth.services) is hook
    assert await hook.prepare(draft) is draft
    assert await hook.admit(Attempt(user=user, proof=proof, client=Client())) is None
    event = UserCreated(at=auth.clock(), user=user, account=found.account, draft=draft)
    async with auth.services.store.transaction() as work:
        await hook.within(event, work)
        assert work.jobs == []
    await auth.close()


# --- Commit ----------------------------------------------------------------------------------------------------------


async def test_commit_passes_every_event_to_every_hook_in_order(tmp_path: Path) -> None:
    """All hooks receive each event in order before the next event; jobs run after all hooks."""
    log: list[str] = []
    first, second = Recorder("first", log), Recorder("second", log)

    async def job() -> None:
        log.append("job")

    async def leave_job(event: Event, work: Work[Any]) -> None:
        work.after_commit(job)

    first.then = leave_job
    auth = make_auth(tmp_path, add_ons=[first, second])
    user = await auth.accounts.create({"email": EMAIL})
    await auth.sign_in(user)
    log.clear()
    assert await auth.accounts.disable(user.id)
    assert log == [
        "first:sessions.revoked",
        "second:sessions.revoked",
        "first:user.disabled",
        "second:user.disabled",
        "job",
        "job",
    ]
    await auth.close()


async def test_commit_passes_events_of_a_hook_to_the_hooks(tmp_path: Path) -> None:
    """If a hook emits an event, every hook receives it before the commit."""
    auth, hook = recording(tmp_path)

    async def emit_once(event: Event, work: Work[Any]) -> None:
        if isinstance(event, UserCreated):
            work.emit(ActFailed(at=event.at, code="made_up", cause="internal"))

    hook.then = emit_once
    await auth.accounts.create({"email": EMAIL})
    assert hook.log == ["recorder:user.created", "recorder:act.failed"]
    await auth.close()


async def test_commit_rolls_back_when_a_hook_raises(tmp_path: Path) -> None:
    """If a hook raises, no user is created, no job runs, and the error reaches the caller."""
    auth, hook = recording(tmp_path)
    ran: list[str] = []

    async def job() -> None:
        ran.append("job")

    async def refuse(event: Event, work: Work[Any]) -> None:
        work.after_commit(job)
        raise ForbiddenError("not today")

    hook.then = refuse
    with pytest.raises(ForbiddenError, match="not today"):
        await auth.accounts.create({"email": EMAIL})
    assert await auth.accounts.find("email", EMAIL) is None
    assert ran == []
    hook.then = None
    await auth.accounts.create({"email": EMAIL})
    assert ran == []
    await job()
    assert ran == ["job"]
    await auth.close()


async def test_commit_discards_jobs_of_a_failed_act(tmp_path: Path) -> None:
    """An act that raises changes nothing and runs no job; an act that succeeds returns its result."""
    auth = make_auth(tmp_path)
    ran: list[str] = []

    async def job() -> None:
        found = await auth.accounts.find("email", EMAIL)
        ran.append("committed" if found is None else "too early")

    async def fail(work: Work[User]) -> None:
        work.after_commit(job)
        raise ValidationError("no")

    async def succeed(work: Work[User]) -> str:
        work.after_commit(job)
        assert ran == []
        return "done"

    with pytest.raises(ValidationError):
        await auth.services.commit(fail)
    assert ran == []
    assert await auth.services.commit(succeed) == "done"
    assert ran == ["committed"]
    await auth.close()


async def test_commit_runs_jobs_after_the_transaction(tmp_path: Path) -> None:
    """A job sees the act's changes on another connection."""
    auth, hook = recording(tmp_path)
    seen: list[bool] = []

    async def look() -> None:
        seen.append(await auth.accounts.find("email", EMAIL) is not None)

    async def leave(event: Event, work: Work[Any]) -> None:
        work.after_commit(look)
        assert await auth.accounts.find("email", EMAIL) is None

    hook.then = leave
    await auth.accounts.create({"email": EMAIL})
    assert seen == [True]
    await auth.close()


@pytest.mark.parametrize("point", ["act", "hook", "job"])
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_commit_finishes_its_transaction(tmp_path: Path, point: str, times: int) -> None:
    """A cancellation inside the transaction waits for its end: the act is committed and its job runs."""
    auth, hook = recording(tmp_path)
    done: list[str] = []

    async def reach(here: str) -> None:
        done.append(here)
        if here == point:
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)

    async def tell(event: Event, work: Work[Any]) -> None:
        await reach("hook")

    async def act(work: Work[User]) -> None:
        await work.connection.execute("CREATE TABLE own (value TEXT)")
        await reach("act")
        work.emit(ActFailed(at=auth.clock(), code="made_up", cause="internal"))
        work.after_commit(lambda: reach("job"))

    hook.then = tell
    task = asyncio.ensure_future(auth.services.commit(act))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["act", "hook", "job"]
    async with auth.services.store.transaction() as work:
        rows = await work.connection.execute_fetchall("SELECT count(*) FROM own")
    assert [tuple(row) for row in rows] == [(0,)]
    await auth.close()


class _CancelledAt:
    """Awaits a coroutine and cancels the current task at its *n*-th suspension."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], n: int) -> None:
        self._coroutine, self._n = coroutine, n

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, count = self._coroutine.__await__(), 0
        error: BaseException | None = None
        while True:
            try:
                step = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            count += 1
            if count == self._n:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield step
                error = None
            except BaseException as exc:
                error = exc


async def _cancel_at(coroutine: Coroutine[Any, Any, Any], n: int) -> bool:
    """Whether *coroutine* completed although its task was cancelled at step *n* (False: it was cancelled)."""

    async def run() -> None:
        await _CancelledAt(coroutine, n)

    try:
        await asyncio.ensure_future(run())
    except asyncio.CancelledError:
        return False
    return True


async def test_act_cancelled_at_any_await_is_complete_or_absent(tmp_path: Path) -> None:
    """After a cancellation at any await, the user and the hook's row both exist or both do not; no lock remains."""
    auth, hook = recording(tmp_path)

    async def write_row(event: Event, work: Work[Any]) -> None:
        await work.connection.execute("INSERT INTO own VALUES (?)", (event.user_id,))

    async with auth.services.store.transaction() as work:
        await work.connection.execute("CREATE TABLE own (user_id TEXT)")
    hook.then = write_row
    outcomes = []
    for step in range(1, 12):
        email = f"user{step}@mail.example.org"
        outcomes.append(await _cancel_at(auth.accounts.create({"email": email}, password=PASSWORD), step))
        found = await auth.accounts.find("email", email)
        async with auth.services.store.transaction() as work:
            rows = [row[0] for row in await work.connection.execute_fetchall("SELECT user_id FROM own")]
            await work.connection.execute("DELETE FROM own")
        assert rows == ([] if found is None else [found.account.user_id])
    assert outcomes[0] is False
    assert outcomes[-1] is True
    await auth.close()


# --- note ------------------------------------------------------------------------------------------------------------


async def test_note_calls_hooks_and_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """LG-1: a failure is recorded in a separate transaction; if that fails, only the log says so."""
    hook = Recorder()
    auth = make_auth(tmp_path, add_ons=[hook], base_url="https://auth.example.org")
    event = ActFailed(at=auth.clock(), code="authentication_failed", cause="wrong_password")
    await auth.services.commit.note(event)
    assert hook.log == ["recorder:act.failed"]

    async def fail(event: Event, work: Work[Any]) -> None:
        raise RuntimeError("hidden")

    hook.then = fail
    await auth.services.commit.note(event)
    assert "a job failed: RuntimeError" in caplog.text
    assert "hidden" not in caplog.text
    await auth.close()


async def test_note_opens_no_transaction_without_hooks(tmp_path: Path) -> None:
    """Without a hook that handles events, a failure opens no transaction."""
    auth = make_auth(tmp_path, add_ons=[_Silent()])
    with collect_jobs() as jobs:
        await auth.services.commit.note(
            ActFailed(at=auth.clock(), code="authentication_failed", cause="wrong_password")
        )
        assert jobs.jobs == []
    await auth.close()


class _Silent(Hook):
    name = "silent"


async def test_concurrent_acts_do_not_mix(tmp_path: Path) -> None:
    """The events of one act are not reported as events of another act."""
    auth, hook = recording(tmp_path)
    await asyncio.gather(*(auth.accounts.create({"email": email}) for email in (EMAIL, OTHER_EMAIL)))
    assert hook.log == ["recorder:user.created", "recorder:user.created"]
    assert logging.getLogger("asgi_auth").handlers == []
    await auth.close()
