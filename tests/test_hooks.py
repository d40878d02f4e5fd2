"""asgi_auth.hooks: a change is committed with its hooks or not at all, and its jobs run afterwards."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import ForbiddenError, SenderError, ValidationError
from asgi_auth.hooks import Hook, Jobs, collect_jobs, shielded
from asgi_auth.store import Work
from asgi_auth.types import Attempt, Client, Draft, Event, JobDropped, Proof, SignInFailed, User, UserCreated
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, PATIENCE, LocalAuthentication, make_auth, register

pytestmark = pytest.mark.anyio


class Recorder(Hook):
    """Notes in a list what it is told, and does what a test wants it to."""

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


async def test_hook_does_nothing_by_itself(tmp_path: Path) -> None:
    """A hook that overrides nothing changes, refuses and notes nothing."""
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


async def test_commit_tells_every_hook_of_every_event_in_order(tmp_path: Path) -> None:
    """Events are told in the order in which they happened, each to all hooks in their order; jobs run after both."""
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


async def test_commit_tells_hooks_of_what_a_hook_emits(tmp_path: Path) -> None:
    """A hook may emit an event itself, and every hook is told of it before the commit."""
    auth, hook = recording(tmp_path)

    async def emit_once(event: Event, work: Work[Any]) -> None:
        if isinstance(event, UserCreated):
            work.emit(SignInFailed(at=event.at, reason="made up"))

    hook.then = emit_once
    await auth.accounts.create({"email": EMAIL})
    assert hook.log == ["recorder:user.created", "recorder:sign_in.failed"]
    await auth.close()


async def test_commit_rolls_back_when_a_hook_raises(tmp_path: Path) -> None:
    """What a hook refuses has not happened: no user, no job, and the error reaches the caller."""
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


async def test_commit_drops_jobs_of_an_act_that_fails(tmp_path: Path) -> None:
    """An act that raises leaves nothing behind, its jobs included; one that ends returns what it decided."""
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


async def test_commit_runs_jobs_once_everything_is_committed(tmp_path: Path) -> None:
    """A job sees what the act wrote, on another connection."""
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
async def test_commit_finishes_what_was_begun_when_cancelled(tmp_path: Path, point: str, times: int) -> None:
    """A cancellation inside the transaction waits for its end: everything is there, the job included."""
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
        work.emit(SignInFailed(at=auth.clock(), reason="made up"))
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
    """Awaits a coroutine and cancels the task that does at its *n*-th suspension."""

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
    """Whether *coroutine* came to its end although it was cancelled at step *n* (False: it was cut short)."""

    async def run() -> None:
        await _CancelledAt(coroutine, n)

    try:
        await asyncio.ensure_future(run())
    except asyncio.CancelledError:
        return False
    return True


async def test_act_cancelled_at_any_await_is_whole_or_absent(tmp_path: Path) -> None:
    """Wherever a caller is cancelled, user and hook's row are both there or both not, and nothing stays locked."""
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


async def test_note_tells_hooks_and_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is noted in a transaction of its own; if that fails, only the log says so."""
    auth, hook = recording(tmp_path)
    event = SignInFailed(at=auth.clock(), reason="wrong password")
    await auth.services.commit.note(event)
    assert hook.log == ["recorder:sign_in.failed"]

    async def fail(event: Event, work: Work[Any]) -> None:
        raise RuntimeError("hidden")

    hook.then = fail
    await auth.services.commit.note(event)
    assert "a job failed: RuntimeError" in caplog.text
    assert "hidden" not in caplog.text
    await auth.close()


async def test_note_opens_no_transaction_for_nobody(tmp_path: Path) -> None:
    """Where no hook listens, a failure costs no transaction."""
    auth = make_auth(tmp_path, add_ons=[_Silent()])
    with collect_jobs() as jobs:
        await auth.services.commit.note(SignInFailed(at=auth.clock(), reason="wrong password"))
    assert jobs == []
    await auth.close()


class _Silent(Hook):
    name = "silent"


# --- Jobs ------------------------------------------------------------------------------------------------------------


async def test_jobs_are_collected_where_a_response_comes_first() -> None:
    """Inside ``collect_jobs`` a job waits for whoever collects; outside it runs at once."""
    ran: list[str] = []

    async def job() -> None:
        ran.append("job")

    jobs = Jobs()
    with collect_jobs() as collected:
        await jobs.schedule(job)
    assert (collected, ran) == ([job], [])
    await jobs.schedule(job)
    assert ran == ["job"]


async def test_job_that_fails_is_contained_and_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """A foreign exception may hold the token that it failed to send: only its type is logged."""

    async def foreign() -> None:
        raise RuntimeError("https://localhost/reset?reset_token=hidden")

    async def own() -> None:
        raise SenderError("the mail server refused")

    jobs = Jobs()
    await jobs.run(foreign)
    await jobs.run(own)
    assert [record.getMessage() for record in caplog.records] == [
        "a job failed: RuntimeError",
        "a job failed: the mail server refused",
    ]
    assert all(record.exc_info is None for record in caplog.records)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class _Gate:
    """Jobs that all wait for one event."""

    def __init__(self) -> None:
        self.event, self.running, self.most, self.ended = asyncio.Event(), 0, 0, 0

    async def job(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.event.wait()
        self.running -= 1
        self.ended += 1


async def test_jobs_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Eight run, a hundred wait, and each one beyond is dropped with a word."""
    jobs, gate, dropped = Jobs(), _Gate(), []

    async def drop() -> None:
        dropped.append("dropped")

    jobs.on_drop = drop
    tasks = [asyncio.ensure_future(jobs.run(gate.job)) for _ in range(111)]
    await _settle()
    assert gate.running == 8
    assert dropped == ["dropped"] * 3
    gate.event.set()
    await asyncio.gather(*tasks)
    assert (gate.most, gate.ended) == (8, 108)
    assert caplog.messages == ["a job was dropped: 100 are waiting already"] * 3


async def test_jobs_beyond_the_bound_are_dropped_without_a_listener() -> None:
    """Nobody has to listen to what is dropped."""
    jobs, gate = Jobs(running=1, waiting=0), _Gate()
    first = asyncio.ensure_future(jobs.run(gate.job))
    await _settle()
    await jobs.run(gate.job)
    gate.event.set()
    await first
    assert gate.ended == 1


async def test_dropped_job_becomes_an_event(tmp_path: Path) -> None:
    """Hooks are told of a job that was dropped; what they leave to do then is dropped, too, and does not go round."""
    auth, hook = recording(tmp_path)
    gate = _Gate()

    async def leave_more(event: Event, work: Work[Any]) -> None:
        assert isinstance(event, JobDropped)
        work.after_commit(gate.job)

    hook.then = leave_more
    jobs = auth.services.commit.jobs
    tasks = [asyncio.ensure_future(jobs.run(gate.job)) for _ in range(108)]
    await _settle()
    await jobs.run(gate.job)
    assert hook.log == ["recorder:job.dropped"]
    gate.event.set()
    await asyncio.gather(*tasks)
    assert gate.ended == 108
    await auth.close()


async def test_dropped_job_opens_no_transaction_for_nobody(tmp_path: Path) -> None:
    """Where no hook listens, an overflow costs no transaction: the store is not even opened."""
    auth = make_auth(tmp_path)
    assert auth.services.commit.jobs.on_drop is not None
    await auth.services.commit.jobs.on_drop()
    assert not (tmp_path / "app.db").exists()


async def test_job_runs_what_it_leaves_in_its_own_turn() -> None:
    """Jobs that leave jobs do not wait for each other's turns."""
    jobs, log, meet = Jobs(running=2), list[str](), asyncio.Barrier(2)

    async def inner() -> None:
        log.append("inner")

    async def outer() -> None:
        await meet.wait()
        await jobs.schedule(inner)
        log.append("outer")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(jobs.run(outer), jobs.run(outer))
    assert sorted(log) == ["inner", "inner", "outer", "outer"]
    assert log.index("outer") < log.index("inner")


async def test_job_that_waits_can_be_cancelled() -> None:
    """A cancelled job gives its place in the queue back and never runs."""
    jobs, gate = Jobs(running=1, waiting=1), _Gate()
    first, second = (asyncio.ensure_future(jobs.run(gate.job)) for _ in range(2))
    await _settle()
    second.cancel()
    await _settle()
    third = asyncio.ensure_future(jobs.run(gate.job))
    await _settle()
    gate.event.set()
    await asyncio.gather(first, third)
    assert second.cancelled()
    assert gate.ended == 2


async def test_turn_of_a_cancelled_job_goes_to_the_next() -> None:
    """Cancelled in the moment in which its turn comes, before or after, a job passes the turn on."""
    for cancel_first in (True, False):
        jobs, gate = Jobs(running=1, waiting=2), _Gate()
        tasks = [asyncio.ensure_future(jobs.run(gate.job)) for _ in range(3)]
        await _settle()
        turns = next(iter(jobs._turns.values()))
        if cancel_first:
            tasks[1].cancel()
        turns.leave()  # the first one's turn is handed on in the same step of the loop
        turns._free = 0
        if not cancel_first:
            tasks[1].cancel()
        await _settle()
        assert tasks[1].cancelled()
        assert gate.running == 2
        gate.event.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert gate.ended == 2


def test_jobs_belong_to_no_event_loop() -> None:
    """What a loop that has ended left waiting does not stand in the way of the next."""
    jobs, ran = Jobs(running=1), list[str]()

    async def job() -> None:
        ran.append("job")

    async def abandon() -> None:
        gate = _Gate()
        tasks = [asyncio.ensure_future(jobs.run(gate.job)) for _ in range(2)]
        await _settle()
        assert len(tasks) == 2

    asyncio.run(abandon())
    asyncio.run(jobs.run(job))
    assert ran == ["job"]


# --- shielded --------------------------------------------------------------------------------------------------------


async def test_shielded_returns_and_raises_like_what_it_shields() -> None:
    """Without a cancellation nothing is different."""

    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise SenderError("refused")

    assert await shielded(answer()) == 42
    with pytest.raises(SenderError):
        await shielded(fail())


async def test_shielded_work_ends_before_the_cancellation_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The cancellation wins over the result, and over an error, which is not reported as lost."""
    for fails in (False, True):
        gate = asyncio.Event()
        ended: list[str] = []

        async def work(gate: asyncio.Event = gate, ended: list[str] = ended, fails: bool = fails) -> None:
            await gate.wait()
            ended.append("ended")
            if fails:
                raise SenderError("refused")

        task = asyncio.ensure_future(shielded(work()))
        await _settle()
        task.cancel()
        await _settle()
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["ended"]
    assert caplog.get_records("call") == []


async def test_shielded_work_may_be_cancelled_itself() -> None:
    """At the end of a loop every task is cancelled, the shielded one too."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await shielded(cancelled())
    gate = asyncio.Event()

    async def cancelled_later() -> None:
        await gate.wait()
        raise asyncio.CancelledError

    task = asyncio.ensure_future(shielded(cancelled_later()))
    await _settle()
    task.cancel()
    await _settle()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_concurrent_acts_do_not_mix(tmp_path: Path) -> None:
    """Events of one act are not told as those of another."""
    auth, hook = recording(tmp_path)
    await asyncio.gather(*(auth.accounts.create({"email": email}) for email in (EMAIL, OTHER_EMAIL)))
    assert hook.log == ["recorder:user.created", "recorder:user.created"]
    assert logging.getLogger("asgi_auth").handlers == []
    await auth.close()
