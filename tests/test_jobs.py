"""Jobs after a response: their order, fairness and limits; and the shield of a transaction."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_auth.errors import ConfigurationError, SenderError
from asgi_auth.events import Event, JobDropped
from asgi_auth.runtime.jobs import Collector, Jobs, collect_jobs, finished, shielded
from asgi_auth.runtime.lanes import Note, Notice, Outbox
from asgi_auth.types import Job
from tests.support import PATIENCE, Events, make_auth, until

pytestmark = pytest.mark.anyio


class Gate:
    """Jobs that wait until the gate opens, and the names of running and ended jobs."""

    def __init__(self) -> None:
        self.event, self.running, self.ended = asyncio.Event(), list[str](), list[str]()

    def job(self, name: str = "") -> Job:
        return partial(self._run, name)

    async def _run(self, name: str) -> None:
        self.running.append(name)
        await self.event.wait()
        self.running.remove(name)
        self.ended.append(name)


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def source(name: str) -> Callable[[], str | None]:
    return lambda: name


async def leave(jobs: Jobs, of: str, *left: Job) -> "asyncio.Task[None]":
    """Schedule jobs in a request from the source *of* and return the task that finishes the request."""
    with collect_jobs(source(of)) as collector:
        for job in left:
            await jobs.schedule(job)
    task = asyncio.create_task(jobs.finish(collector))
    await _turn()
    return task


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped jobs are reported in the next cycle of the event loop."""
    monkeypatch.setattr("asgi_auth.runtime.lanes.TELL_EVERY", timedelta(0))


# --- when a job runs -------------------------------------------------------------------------------------------------


async def test_jobs_wait_for_the_collector() -> None:
    """Within a collector, a job waits for the collector; elsewhere it runs at once."""
    ran: list[str] = []

    async def job() -> None:
        ran.append("job")

    jobs = Jobs()
    with collect_jobs() as collector:
        await jobs.schedule(job)
        assert ran == []
        await jobs.finish(collector)
        assert ran == ["job"]
    await jobs.schedule(job)
    assert ran == ["job", "job"]


async def test_job_of_a_task_that_outlives_its_request_runs() -> None:
    """A job that a task schedules after its request has ended is not lost."""
    jobs, over, ran = Jobs(), asyncio.Event(), list[str]()

    async def job() -> None:
        ran.append("late")

    async def outlive() -> None:
        await over.wait()
        await jobs.schedule(job)

    with collect_jobs(source("192.0.2.1")) as collector:
        task = asyncio.create_task(outlive())
        await jobs.finish(collector)
        over.set()
        await task  # the block has not ended yet
    assert ran == ["late"]
    assert collector.jobs == []


async def test_job_outlives_its_caller() -> None:
    """A cancelled caller stops waiting; the accepted job still runs."""
    jobs, gate = Jobs(), Gate()
    direct = asyncio.ensure_future(jobs.schedule(gate.job("direct")))
    after = await leave(jobs, "192.0.2.1", gate.job("after"))
    await _turn()
    for task in (direct, after):
        task.cancel()
    await _turn()
    assert (direct.cancelled(), after.cancelled()) == (True, True)
    gate.event.set()
    await until(lambda: sorted(gate.ended) == ["after", "direct"])


async def test_job_sees_the_context_of_its_caller() -> None:
    """A sender sees the context variables of the request, such as its locale or its trace."""
    locale, seen = ContextVar("locale", default="en"), list[str]()

    async def job() -> None:
        seen.append(locale.get())

    jobs = Jobs()
    locale.set("de")
    with collect_jobs() as collector:
        await jobs.schedule(job)
    await jobs.finish(collector)
    assert seen == ["de"]


async def test_jobs_of_running_jobs_complete_without_deadlock() -> None:
    """If all running jobs schedule further jobs, there is no deadlock: all complete before the callers continue."""
    jobs, log, meet = Jobs(), list[str](), asyncio.Barrier(8)

    async def inner() -> None:
        log.append("inner")

    async def outer() -> None:
        await meet.wait()
        await jobs.schedule(inner)
        log.append("outer")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(jobs.schedule(outer) for _ in range(8)))
    assert sorted(log) == ["inner"] * 8 + ["outer"] * 8
    assert log.index("outer") < log.index("inner")


@pytest.mark.parametrize("local", [True, False], ids=["local", "public"])
async def test_failed_job_is_logged(caplog: pytest.LogCaptureFixture, local: bool) -> None:
    """LG-1: a foreign exception may contain the token of the failed mail; only a local instance logs its text."""

    async def foreign() -> None:
        raise RuntimeError("https://localhost/reset?reset_token=hidden")

    async def own() -> None:
        raise SenderError("the mail server refused")

    jobs = Jobs(local=local)
    await jobs.schedule(foreign)
    await jobs.schedule(own)
    assert caplog.messages == ["a job failed: RuntimeError", "a job failed: the mail server refused"]
    assert ("hidden" in caplog.text) is local


def test_jobs_work_on_consecutive_event_loops(caplog: pytest.LogCaptureFixture) -> None:
    """Jobs of an ended event loop do not block the next loop."""
    jobs, ran = Jobs(), list[str]()

    async def job() -> None:
        ran.append("job")

    async def abandon() -> None:
        gate = Gate()
        for _ in range(20):
            jobs.schedule(gate.job())
        await _turn()

    async def work() -> None:
        await jobs.drain()  # no job
        await jobs.schedule(job)

    asyncio.run(abandon())
    gc.collect()  # which would report tasks that were not cancelled
    asyncio.run(work())
    assert ran == ["job"]
    assert caplog.messages == ["12 jobs were dropped: the event loop ends"]


async def test_job_that_cancels_itself_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """If a sender raises CancelledError, the job has failed; its caller is not cancelled."""

    async def cancel() -> None:
        raise asyncio.CancelledError

    jobs = Jobs()
    await jobs.schedule(cancel)
    assert caplog.messages == ["a job failed: CancelledError"]


async def test_finished_collector_keeps_no_jobs() -> None:
    """The end of the request frees its jobs: a task that outlives the request keeps no mail in memory."""

    class Body:
        pass

    jobs, body = Jobs(), Body()
    alive = weakref.ref(body)

    async def job(_: Body) -> None:
        pass

    collector = Collector(source("192.0.2.1"))
    collector.jobs.append(partial(job, body))
    await jobs.finish(collector)
    del body
    await _turn()
    gc.collect()
    assert alive() is None


# --- limits and fairness ---------------------------------------------------------------------------------------------


async def test_mail_is_fair_by_source(caplog: pytest.LogCaptureFixture) -> None:
    """DO-1: a flooding source waits in its own line, loses only its own mail, and delays no other source."""
    jobs, gate = Jobs(Outbox(share=5)), Gate()
    flood = await leave(jobs, "flood", *(gate.job(f"flood {n}") for n in range(8 + 5 + 3)))
    honest = await leave(jobs, "honest", gate.job("honest"))
    await _turn()
    assert caplog.messages == ["3 mails were dropped: too many wait already"]
    gate.event.set()
    await asyncio.gather(flood, honest)
    assert gate.ended.index("honest") < gate.ended.index("flood 9")
    assert len(gate.ended) == 8 + 5 + 1


async def test_full_queue_drops_from_the_longest_line() -> None:
    """At most ten thousand mails wait; if a few sources fill the queue, other sources still get a place."""
    jobs, gate = Jobs(Outbox(share=5000)), Gate()
    for flood in ("one", "two"):
        await leave(jobs, flood, *(gate.job(flood) for _ in range(5100)))
    honest = await leave(jobs, "honest", gate.job("honest"))
    gate.event.set()
    await honest
    await jobs.drain()
    assert gate.ended.count("honest") == 1
    assert len(gate.ended) == 8 + 10_000


async def test_notices_and_notes_do_not_wait_for_mail() -> None:
    """AU-2: while all mail senders are busy, notices and notes of failures still run."""
    jobs, gate, ran = Jobs(), Gate(), list[str]()

    async def note(name: str) -> None:
        ran.append(name)

    await leave(jobs, "flood", *(gate.job() for _ in range(600)))
    await jobs.schedule(Note(partial(note, "note")))
    await jobs.schedule(Notice(partial(note, "notice"), "alice"))
    assert ran == ["note", "notice"]
    gate.event.set()
    await jobs.drain()


async def test_notices_are_counted_by_recipient() -> None:
    """PW-8: an attacker's many notices in one account cannot use up the notices of another account's owner."""
    jobs, gate = Jobs(), Gate()
    thief = [Notice(gate.job("mallory"), "mallory") for _ in range(30)]
    await leave(jobs, "192.0.2.66", *thief, Notice(gate.job("alice"), "alice"))
    gate.event.set()
    await jobs.drain()
    assert gate.ended.count("alice") == 1
    assert gate.ended.count("mallory") == 4 + 20


async def test_request_waits_only_briefly_for_its_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """DO-4: a request waits only briefly for its mail; a slow mail server does not keep requests in memory."""
    jobs, gate = Jobs(), Gate()
    monkeypatch.setattr(jobs, "patience", timedelta(0))
    requests = [await leave(jobs, "somebody", gate.job()) for _ in range(20)]
    await asyncio.gather(*requests)
    assert gate.ended == []
    gate.event.set()
    await jobs.drain()
    assert len(gate.ended) == 20


async def test_drops_are_reported_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DO-4: a thousand drops are one log line and one transaction; a job of a hook does not cause further reports."""
    events, begun = Events(), list[int]()
    auth = make_auth(tmp_path, add_ons=[events], outbox=Outbox(share=1))
    jobs, gate = auth.services.commit.jobs, Gate()
    transaction = type(auth.services.store).transaction

    def counted(store: Any) -> Any:
        begun.append(1)
        return transaction(store)

    async def leave_more(event: Event, work: Any) -> None:
        await Events.within(events, event, work)
        work.after_commit(gate.job("more"))

    monkeypatch.setattr(type(auth.services.store), "transaction", counted)
    monkeypatch.setattr(events, "within", leave_more)
    await leave(jobs, "flood", *(gate.job() for _ in range(9 + 1000)))
    await until(lambda: bool(events.seen))
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["1000 mails were dropped: too many wait already"]
    assert begun == [1]
    assert [(type(event), getattr(event, "count", None)) for event in events.seen] == [(JobDropped, 1000)]
    gate.event.set()
    await auth.close()
    assert gate.ended == [""] * 9


async def test_drop_without_hooks_opens_no_transaction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a hook for events, a drop is only logged: no transaction begins and the store is not opened."""
    auth = make_auth(tmp_path, outbox=Outbox(share=1))
    jobs, gate = auth.services.commit.jobs, Gate()
    await leave(jobs, "flood", *(gate.job() for _ in range(10)))
    await until(lambda: "1 mails were dropped" in caplog.text)
    gate.event.set()
    await jobs.drain()
    assert not (tmp_path / "app.db").exists()


async def test_drops_are_reported_repeatedly(caplog: pytest.LogCaptureFixture) -> None:
    """Each report counts the drops since the last report."""
    jobs, gate = Jobs(Outbox(share=1)), Gate()
    await leave(jobs, "flood", *(gate.job() for _ in range(9)))
    for count in (2, 3):
        await leave(jobs, "flood", *(gate.job() for _ in range(count)))
        await _turn()
    assert caplog.messages == [f"{count} mails were dropped: too many wait already" for count in (2, 3)]
    gate.event.set()
    await jobs.drain()


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_end_waits_for_accepted_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """Running and waiting jobs, and the jobs that they schedule, complete before the application ends."""
    jobs, gate = Jobs(), Gate()

    async def more() -> None:
        await jobs.schedule(gate.job("more"))

    await leave(jobs, "somebody", *(gate.job() for _ in range(20)), more)
    ending = asyncio.create_task(jobs.drain())
    await _turn()
    assert not ending.done()
    gate.event.set()
    await ending
    assert (len(gate.ended), gate.ended.count("more")) == (21, 1)
    assert caplog.messages == []


async def test_end_reports_remaining_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """After the time limit, remaining jobs are dropped and counted, and no new job starts."""
    jobs, gate, cancelled = Jobs(Outbox(drain=timedelta(0), share=40)), Gate(), list[str]()
    told: list[int] = []

    async def clean_up() -> None:
        try:
            await gate.event.wait()
        finally:
            cancelled.append("cancelled")
            jobs.schedule(gate.job("afterwards"))
            await late

    async def come_late() -> None:
        await until(lambda: bool(cancelled))
        await jobs.schedule(gate.job("late"))

    async def tell(count: int) -> None:
        told.append(count)

    jobs.on_drop = tell
    requests = [await leave(jobs, "somebody", *([clean_up] * 8), *(gate.job() for _ in range(50)))]
    requests += [await leave(jobs, "somebody", Notice(gate.job(), "alice"), Note(gate.job()))]
    late = asyncio.create_task(come_late())
    await jobs.drain()
    await asyncio.gather(*requests)
    assert cancelled == ["cancelled"] * 8
    assert caplog.messages == [
        "10 mails were dropped: too many wait already",
        "49 mails were dropped: the application ends",
        "1 notices were dropped: the application ends",
        "1 notes of failures were dropped: the application ends",
    ]
    assert told == [10, 51]
    gate.event.set()
    await jobs.schedule(gate.job("later"))  # an Authentication can be opened again
    assert gate.ended == ["later"]


async def test_end_reports_recent_drops(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end reports recent drops at once and does not wait for the next report."""
    monkeypatch.setattr("asgi_auth.runtime.lanes.TELL_EVERY", timedelta(hours=1))
    jobs, gate = Jobs(Outbox(share=1)), Gate()
    await leave(jobs, "flood", *(gate.job() for _ in range(10)))
    gate.event.set()
    await jobs.drain()
    assert caplog.messages == ["1 mails were dropped: too many wait already"]


async def test_end_does_not_wait_for_a_job_that_ignores_cancellation(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-3: a sender that ignores its cancellation does not block the shutdown."""
    monkeypatch.setattr("asgi_auth.runtime.lanes.LAST_MOMENT", timedelta(0))
    jobs, gate = Jobs(Outbox(drain=timedelta(0))), Gate()

    async def refuse() -> None:
        await finished(asyncio.ensure_future(gate.job()()))

    request = await leave(jobs, "somebody", refuse)
    await jobs.drain()
    assert caplog.messages == ["1 mails were dropped: the application ends"]
    gate.event.set()
    await request
    assert gate.ended == [""]


async def test_job_cancelled_before_its_start_gives_its_turn_back() -> None:
    """With a time limit of zero, a job that has just got its turn gives it back when it is cancelled."""
    jobs, gate = Jobs(Outbox(drain=timedelta(0))), Gate()
    gate.event.set()
    waiting = [asyncio.ensure_future(jobs.schedule(gate.job("early"))) for _ in range(8)]
    jobs_desk = asyncio.create_task(jobs.drain())
    await asyncio.gather(*waiting, jobs_desk)
    await jobs.schedule(gate.job("later"))
    assert gate.ended[-1] == "later"


@pytest.mark.parametrize(("options", "problem"), [({"share": 0}, "share"), ({"drain": timedelta(-1)}, "drain")])
def test_outbox_is_checked(options: dict[str, Any], problem: str) -> None:
    """An Outbox with a share of zero or a negative drain is refused; the message names the option."""
    with pytest.raises(ConfigurationError, match=f"outbox: {problem}"):
        Outbox(**options)


# --- the shield ------------------------------------------------------------------------------------------------------


async def test_shielded_returns_and_raises_like_the_shielded_call() -> None:
    """Without a cancellation, a shielded call returns and raises like the call itself."""

    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise SenderError("refused")

    for shield in (shielded, Jobs().shielded):
        assert await shield(answer()) == 42
        with pytest.raises(SenderError):
            await shield(fail())


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_shielded_work_ends_before_the_cancellation_is_raised(
    caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    """FT-3: the caller gets the cancellation, not the result or the error; the error is not reported as lost."""
    gate, ended = asyncio.Event(), list[str]()

    async def work() -> None:
        await gate.wait()
        ended.append("ended")
        if fails:
            raise SenderError("refused")

    task = asyncio.ensure_future(shielded(work()))
    await _turn()
    for _ in range(3):
        task.cancel()
        await _turn()
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended"]
    assert caplog.get_records("call") == []


async def test_shielded_work_can_be_cancelled_itself() -> None:
    """At the end of an event loop every task is cancelled, the shielded task, too."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await shielded(cancelled())
    gate = asyncio.Event()

    async def cancelled_later() -> None:
        await gate.wait()
        raise asyncio.CancelledError

    task = asyncio.ensure_future(shielded(cancelled_later()))
    await _turn()
    task.cancel()
    await _turn()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A list with one entry for each wait of a shield."""
    counted, wait = list[str](), asyncio.wait

    def count(*args: Any, **options: Any) -> Awaitable[Any]:
        counted.append("wait")
        return wait(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "wait", count)
        yield counted


async def test_shield_does_not_spin_in_a_cancelled_scope(waits: list[str]) -> None:
    """FT-3: a cancelled anyio scope cancels every wait again and again; the shield waits only twice."""
    gate, done = asyncio.Event(), list[str]()

    async def work() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        done.append("done")
        await gate.wait()

    asyncio.get_running_loop().call_later(0.05, gate.set)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await shielded(work())
    assert scope.cancelled_caught
    assert (done, waits) == (["done"], ["wait", "wait"])


async def test_mail_is_outside_the_shield() -> None:
    """A caller that is cancelled while the mail is sent ends at once; the mail is still sent."""
    jobs, gate, committed = Jobs(), Gate(), list[str]()

    async def act() -> None:
        committed.append("committed")
        jobs.schedule(gate.job("mail"))

    task = asyncio.ensure_future(jobs.shielded(act()))
    await until(lambda: gate.running == ["mail"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert committed == ["committed"]
    gate.event.set()
    await until(lambda: gate.ended == ["mail"])


async def test_mail_is_sent_even_if_the_caller_is_cancelled() -> None:
    """If the caller is cancelled within the transaction, the mail is still sent, with and without a collector."""
    jobs, gate, commit = Jobs(), Gate(), asyncio.Event()
    gate.event.set()

    async def act() -> None:
        await commit.wait()
        jobs.schedule(gate.job("mail"))

    with collect_jobs() as collector:
        inside = asyncio.ensure_future(jobs.shielded(act()))
        await _turn()
    outside = asyncio.ensure_future(jobs.shielded(act()))
    await _turn()
    for task in (inside, outside):
        task.cancel()
    await _turn()
    commit.set()
    await asyncio.wait({inside, outside})
    assert inside.cancelled()
    assert outside.cancelled()
    await until(lambda: gate.ended == ["mail", "mail"])
    assert collector.jobs == []


async def test_finished_accepts_a_future_that_is_done() -> None:
    """``finished`` returns the result of a future that is already done."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(42)
    assert await finished(future) == 42
    assert logging.getLogger("asgi_auth").handlers == []
