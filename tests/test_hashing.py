"""The hashing pool: bounds, turns, cancellation, loops and threads."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import pytest

from asgi_auth import hashing
from asgi_auth.errors import ConfigurationError, OverloadedError
from asgi_auth.hashing import HashingPool
from tests.support import PATIENCE

REQUEST: ContextVar[str] = ContextVar("REQUEST")


class Gate:
    """A job that signals its start and ends when the test opens the gate."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def __call__(self) -> str:
        """Signal the start and wait for the gate."""
        self._loop.call_soon_threadsafe(self.started.set)
        assert self._open.wait(PATIENCE)
        return "gate"

    def open(self) -> None:
        """Let the job end."""
        self._open.set()


class Crew:
    """A pool with one busy thread, and the order in which the waiting jobs run."""

    def __init__(self, waiting: int) -> None:
        self.pool = HashingPool(threads=1, waiting=waiting)
        self.gate = Gate()
        self.order: list[str] = []

    async def occupy(self) -> None:
        """Take the only thread."""
        self.first = asyncio.create_task(self.pool.run("occupier", self.gate))
        await self.gate.started.wait()

    async def enter(self, key: str | None, *names: str) -> list["asyncio.Task[None]"]:
        """Queue one job for each name; when this returns, each job is queued or refused."""
        jobs = [asyncio.create_task(self.pool.run(key, partial(self.order.append, name))) for name in names]
        await asyncio.sleep(0)
        return jobs

    async def release(self, *jobs: "asyncio.Task[None]") -> list[str]:
        """Release the thread, wait for all jobs, and return their order."""
        self.gate.open()
        await asyncio.gather(self.first, *jobs)
        self.pool.close()
        return self.order


class ManualExecutor:
    """Replaces the threads: a job ends when the test calls ``finish``."""

    def __init__(self, *args: object) -> None:
        self.running: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        """Store a job."""
        self.running.append((Future(), function))
        return self.running[-1][0]

    def finish(self) -> None:
        """Run the oldest job."""
        future, function = self.running.pop(0)
        future.set_result(function())


@pytest.fixture
def pool() -> Iterator[HashingPool]:
    """A pool of two threads."""
    pool = HashingPool(threads=2)
    yield pool
    pool.close()


@pytest.mark.anyio
async def test_run_returns_the_functions_result(pool: HashingPool) -> None:
    """DO-1: the function runs in another thread and the caller gets its result."""
    assert await pool.run("a", threading.get_ident) != threading.get_ident()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
async def test_run_raises_the_functions_exception(pool: HashingPool, error: BaseException) -> None:
    """The caller gets the same exception object, and the pool keeps working."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await pool.run("a", fail)

    assert caught.value is error
    assert await pool.run("a", lambda: 1) == 1


@pytest.mark.anyio
async def test_run_survives_a_function_that_raises_stop_iteration(pool: HashingPool) -> None:
    """StopIteration, which an asyncio future cannot hold, does not block the caller."""
    with pytest.raises(RuntimeError):
        await pool.run("a", partial(next, iter(())))


@pytest.mark.anyio
async def test_run_passes_context_variables_on(pool: HashingPool) -> None:
    """The function sees the context of its caller."""
    REQUEST.set("r1")

    assert await pool.run("a", REQUEST.get) == "r1"


@pytest.mark.anyio
async def test_run_refuses_at_once_when_the_queue_is_full() -> None:
    """DO-2: a job beyond the limit is refused with Retry-After, and the others run."""
    crew = Crew(waiting=2)
    await crew.occupy()
    jobs = await crew.enter("a", "1", "2")

    (refused,) = await crew.enter("a", "3")

    with pytest.raises(OverloadedError) as caught:
        await refused
    assert caught.value.headers == {"Retry-After": "1"}
    assert await crew.release(*jobs) == ["1", "2"]


@pytest.mark.anyio
async def test_run_refuses_a_job_without_a_free_thread_when_none_may_wait() -> None:
    """DO-2: if no job may wait, a job runs only on a free thread."""
    crew = Crew(waiting=0)
    await crew.occupy()

    (refused,) = await crew.enter("b", "1")

    with pytest.raises(OverloadedError):
        await refused
    assert await crew.release() == []


@pytest.mark.anyio
async def test_run_never_uses_more_threads_than_allowed() -> None:
    """DO-2: with two threads, the third job starts only when a thread is free."""
    pool = HashingPool(threads=2)
    gates = [Gate(), Gate(), Gate()]
    jobs = [asyncio.create_task(pool.run(None, gate)) for gate in gates]
    await gates[0].started.wait()
    await gates[1].started.wait()
    assert not gates[2].started.is_set()

    gates[1].open()
    await gates[2].started.wait()

    gates[0].open()
    gates[2].open()
    assert await asyncio.gather(*jobs) == ["gate"] * 3
    pool.close()


@pytest.mark.anyio
async def test_run_gives_each_key_its_turn() -> None:
    """DO-6: the keys take turns, and the jobs of each key keep their order."""
    crew = Crew(waiting=8)
    await crew.occupy()

    jobs = await crew.enter("a", "a1", "a2", "a3") + await crew.enter("b", "b1", "b2") + await crew.enter("c", "c1")

    assert await crew.release(*jobs) == ["a1", "b1", "c1", "a2", "b2", "a3"]


@pytest.mark.anyio
async def test_one_address_does_not_starve_another() -> None:
    """DO-6: if sixteen clients of one address fill the queue, the job of another address runs second."""
    crew = Crew(waiting=16)
    await crew.occupy()
    flood = await crew.enter("flood", *(str(number) for number in range(16)))

    jobs = [*flood[:15], *await crew.enter("other", "other")]

    with pytest.raises(OverloadedError):
        await flood[15]
    assert (await crew.release(*jobs))[:3] == ["0", "other", "1"]


@pytest.mark.anyio
async def test_newcomer_gets_the_place_of_the_last_of_the_longest_lines() -> None:
    """DO-6: of two equally long lines, the line that is served later loses its newest job."""
    crew = Crew(waiting=4)
    await crew.occupy()
    a = await crew.enter("a", "a1", "a2")
    b = await crew.enter("b", "b1", "b2")

    c = await crew.enter("c", "c1")

    with pytest.raises(OverloadedError):
        await b[1]
    assert await crew.release(*a, b[0], *c) == ["a1", "b1", "c1", "a2"]


@pytest.mark.anyio
async def test_newcomer_gets_no_place_of_an_equal_line() -> None:
    """DO-2, DO-6: if every key has one waiting job, all keep their places and a newcomer is refused at once."""
    crew = Crew(waiting=2)
    await crew.occupy()
    jobs = await crew.enter("a", "a1") + await crew.enter("b", "b1")

    (refused,) = await crew.enter("c", "c1")

    assert refused.done()
    with pytest.raises(OverloadedError):
        await refused
    assert await crew.release(*jobs) == ["a1", "b1"]


@pytest.mark.anyio
async def test_jobs_without_a_key_share_one_line() -> None:
    """DO-6: all jobs without a key share one line."""
    crew = Crew(waiting=2)
    await crew.occupy()
    none = await crew.enter(None, "1", "2")

    (refused,) = await crew.enter(None, "3")
    other = await crew.enter("a", "a1")

    for job in (refused, none[1]):
        with pytest.raises(OverloadedError):
            await job
    assert await crew.release(none[0], *other) == ["1", "a1"]


@pytest.mark.anyio
async def test_place_is_refused_at_once_when_the_queue_is_full() -> None:
    """DO-2: a place counts as a waiting job, even if its job is not known yet."""
    crew = Crew(waiting=2)
    await crew.occupy()
    jobs = await crew.enter("a", "a1")

    with crew.pool.place("a"):
        with pytest.raises(OverloadedError):
            crew.pool.place("a").__enter__()
        held = await crew.enter("a", "held")

    assert await crew.release(*jobs, *held) == ["a1", "held"]


@pytest.mark.anyio
async def test_place_is_used_by_the_first_run_only() -> None:
    """Within the block, a second job waits like any other job."""
    crew = Crew(waiting=1)
    await crew.occupy()
    with crew.pool.place("a"):
        first, second = await crew.enter("a", "1", "2")
        with pytest.raises(OverloadedError):
            await second

    assert await crew.release(first) == ["1"]


@pytest.mark.anyio
async def test_free_thread_does_not_wait_for_a_place() -> None:
    """DO-1: a place without a ready job does not block a free thread; the ready job runs first."""
    pool = HashingPool(threads=1, waiting=0)
    with pool.place("a"):
        with pytest.raises(OverloadedError):
            pool.place("b").__enter__()
        assert await pool.run("a", lambda: "a") == "a"
        assert await pool.run("b", lambda: "b") == "b"
    crew = Crew(waiting=2)
    await crew.occupy()
    with crew.pool.place("a"):
        jobs = [asyncio.create_task(crew.pool.run("b", partial(crew.order.append, "b1")), context=Context())]
        await asyncio.sleep(0)
        assert await crew.release(*jobs) == ["b1"]
        await crew.pool.run("a", partial(crew.order.append, "a1"))

    assert crew.order == ["b1", "a1"]
    pool.close()
    crew.pool.close()


@pytest.mark.anyio
async def test_key_with_most_places_loses_its_newest() -> None:
    """DO-6: the key with most places loses its newest one; its owner gets the error when it uses the place."""
    crew = Crew(waiting=2)
    await crew.occupy()
    with crew.pool.place("a"), crew.pool.place("a"):
        others = [asyncio.create_task(crew.pool.run("b", partial(crew.order.append, "b1")), context=Context())]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="gave its place"):
            await crew.pool.run("a", partial(crew.order.append, "a2"))

    assert await crew.release(*others) == ["b1"]


@pytest.mark.anyio
async def test_place_ends_with_its_block() -> None:
    """The end of the block frees an unused place; a task that outlives the block has no place."""
    crew = Crew(waiting=1)
    await crew.occupy()
    over = asyncio.Event()

    async def outlive() -> None:
        await over.wait()
        await crew.pool.run("a", partial(crew.order.append, "later"))

    with crew.pool.place("a"):
        task = asyncio.create_task(outlive())
    jobs = await crew.enter("b", "b1")
    over.set()
    with pytest.raises(OverloadedError):
        await task

    assert await crew.release(*jobs) == ["b1"]


@pytest.mark.anyio
async def test_cancelled_waiting_job_never_runs() -> None:
    """DO-2: if the client has disconnected, the waiting job never runs and its place is free."""
    crew = Crew(waiting=3)
    await crew.occupy()
    a = await crew.enter("a", "a1", "a2")
    b = await crew.enter("b", "b1")

    for job in (a[0], b[0]):
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    more = await crew.enter("a", "a3", "a4")

    assert await crew.release(a[1], *more) == ["a2", "a3", "a4"]


@pytest.mark.anyio
async def test_cancelled_running_job_keeps_its_thread_until_its_end() -> None:
    """DO-2: a running job cannot be stopped, so the next job starts only after its end."""
    crew = Crew(waiting=1)
    await crew.occupy()
    jobs = await crew.enter("a", "1")
    crew.first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await crew.first

    assert crew.order == []
    crew.gate.open()
    await asyncio.gather(*jobs)
    assert crew.order == ["1"]
    crew.pool.close()


@pytest.mark.anyio
async def test_job_cancelled_in_the_same_moment_gives_up_its_place() -> None:
    """A cancelled waiting job gives up its place at once, before its task has noticed the cancellation."""
    crew = Crew(waiting=1)
    await crew.occupy()
    (cancelled,) = await crew.enter("a", "a1")
    newcomer = asyncio.create_task(crew.pool.run("b", partial(crew.order.append, "b1")))
    cancelled.cancel()

    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await crew.release(newcomer) == ["b1"]


@pytest.mark.anyio
async def test_job_cancelled_in_the_moment_of_its_turn_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the next job was just cancelled, the thread runs the job after it."""
    executor = ManualExecutor()
    monkeypatch.setattr(hashing, "ThreadPoolExecutor", lambda *args: executor)
    pool = HashingPool(threads=1)
    order: list[str] = []
    first, cancelled, last = (asyncio.create_task(pool.run(None, partial(order.append, name))) for name in "abc")
    await asyncio.sleep(0)

    executor.finish()  # its result is now in the loop's queue, before the callback of cancel()
    cancelled.cancel()
    await first
    executor.finish()
    await last

    assert cancelled.cancelled()
    assert order == ["a", "c"]


def test_run_works_on_several_loops_one_after_another() -> None:
    """A pool works on a new event loop after the old one has ended, even while a job of the old loop still runs."""
    pool = HashingPool(threads=1)
    gates: list[Gate] = []

    async def abandon() -> None:
        gates.append(Gate())
        job = asyncio.create_task(pool.run("a", gates[0]))
        await gates[0].started.wait()
        job.cancel()

    asyncio.run(abandon())
    gates[0].open()

    assert [asyncio.run(pool.run("a", lambda: 1)), asyncio.run(pool.run("a", lambda: 2))] == [1, 2]
    pool.close()


def test_script_ends_without_closing() -> None:
    """A script that never closes the pool ends: no thread outlives the interpreter."""
    script = "import asyncio; from asgi_auth.hashing import HashingPool as H; print(asyncio.run(H().run(None, int)))"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, check=True)

    assert ended.stdout.strip() == b"0"


@pytest.mark.anyio
async def test_close_ends_the_threads_and_can_be_repeated() -> None:
    """A second close does nothing; using a closed pool opens it again."""
    pool = HashingPool(threads=1)
    pool.close()
    thread = await pool.run(None, threading.current_thread)

    pool.close()
    pool.close()

    await asyncio.to_thread(thread.join, PATIENCE)
    assert not thread.is_alive()
    assert await pool.run(None, lambda: 1) == 1
    pool.close()


@pytest.mark.anyio
async def test_close_completes_waiting_jobs() -> None:
    """After a close, running and waiting jobs still complete."""
    crew = Crew(waiting=1)
    await crew.occupy()
    jobs = await crew.enter("a", "1")

    crew.pool.close()

    assert await crew.release(*jobs) == ["1"]


@pytest.mark.anyio
async def test_pool_uses_all_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the pool has as many threads as usable cores, and at least one."""
    asked: list[int] = []

    def executor(threads: int, name: str) -> ManualExecutor:
        asked.append(threads)
        return ManualExecutor()

    async def ask() -> int:
        job = asyncio.create_task(HashingPool().run(None, int))
        await asyncio.sleep(0)
        job.cancel()
        return asked[-1]

    monkeypatch.setattr(hashing, "ThreadPoolExecutor", executor)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert await ask() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert await ask() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert await ask() == 1


@pytest.mark.parametrize(("options", "name"), [({"threads": 0}, "threads"), ({"waiting": -1}, "waiting")])
def test_pool_refuses_invalid_bounds(options: dict[str, int], name: str) -> None:
    """Zero threads or a negative number of places is a ConfigurationError that names the parameter."""
    with pytest.raises(ConfigurationError, match=name):
        HashingPool(**options)
