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
    """A job that says when it has started, and ends when it is let go."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def __call__(self) -> str:
        """The job."""
        self._loop.call_soon_threadsafe(self.started.set)
        assert self._open.wait(PATIENCE)
        return "gate"

    def open(self) -> None:
        """Let it end."""
        self._open.set()


class Crew:
    """A pool of one thread that is busy, and the order in which the jobs behind it run."""

    def __init__(self, waiting: int) -> None:
        self.pool = HashingPool(threads=1, waiting=waiting)
        self.gate = Gate()
        self.order: list[str] = []

    async def occupy(self) -> None:
        """Take the only thread."""
        self.first = asyncio.create_task(self.pool.run("occupier", self.gate))
        await self.gate.started.wait()

    async def enter(self, key: str | None, *names: str) -> list["asyncio.Task[None]"]:
        """Queue a job a name; they have entered, or were refused, when this returns."""
        jobs = [asyncio.create_task(self.pool.run(key, partial(self.order.append, name))) for name in names]
        await asyncio.sleep(0)
        return jobs

    async def release(self, *jobs: "asyncio.Task[None]") -> list[str]:
        """Let go, wait for everything; the order in which the jobs ran."""
        self.gate.open()
        await asyncio.gather(self.first, *jobs)
        self.pool.close()
        return self.order


class ManualExecutor:
    """Stands in for the threads: a job ends when the test says so."""

    def __init__(self, *args: object) -> None:
        self.running: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        """Take a job."""
        self.running.append((Future(), function))
        return self.running[-1][0]

    def finish(self) -> None:
        """Do the oldest job."""
        future, function = self.running.pop(0)
        future.set_result(function())


@pytest.fixture
def pool() -> Iterator[HashingPool]:
    """A pool of two threads."""
    pool = HashingPool(threads=2)
    yield pool
    pool.close()


@pytest.mark.anyio
async def test_run_returns_what_the_function_returns(pool: HashingPool) -> None:
    """DO-1: the function runs in another thread, and its value comes back."""
    assert await pool.run("a", threading.get_ident) != threading.get_ident()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
async def test_run_raises_what_the_function_raises(pool: HashingPool, error: BaseException) -> None:
    """The caller gets the very exception, and the pool goes on."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await pool.run("a", fail)

    assert caught.value is error
    assert await pool.run("a", lambda: 1) == 1


@pytest.mark.anyio
async def test_run_survives_a_function_that_raises_stop_iteration(pool: HashingPool) -> None:
    """StopIteration, which no asyncio future can carry, does not leave the caller waiting."""
    with pytest.raises(RuntimeError):
        await pool.run("a", partial(next, iter(())))


@pytest.mark.anyio
async def test_run_passes_context_variables_on(pool: HashingPool) -> None:
    """The function sees the context of its caller."""
    REQUEST.set("r1")

    assert await pool.run("a", REQUEST.get) == "r1"


@pytest.mark.anyio
async def test_run_refuses_at_once_when_the_queue_is_full() -> None:
    """DO-2: what does not fit is refused with Retry-After, and the others are served."""
    crew = Crew(waiting=2)
    await crew.occupy()
    jobs = await crew.enter("a", "1", "2")

    (refused,) = await crew.enter("a", "3")

    with pytest.raises(OverloadedError) as caught:
        await refused
    assert caught.value.headers == {"Retry-After": "1"}
    assert await crew.release(*jobs) == ["1", "2"]


@pytest.mark.anyio
async def test_run_refuses_what_cannot_run_now_when_nothing_may_wait() -> None:
    """DO-2: with no place to wait, only a free thread serves."""
    crew = Crew(waiting=0)
    await crew.occupy()

    (refused,) = await crew.enter("b", "1")

    with pytest.raises(OverloadedError):
        await refused
    assert await crew.release() == []


@pytest.mark.anyio
async def test_run_never_uses_more_threads_than_it_may() -> None:
    """DO-2: the third job starts only when one of two threads is free."""
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
    """DO-6: keys take turns, and each key's jobs keep their order."""
    crew = Crew(waiting=8)
    await crew.occupy()

    jobs = await crew.enter("a", "a1", "a2", "a3") + await crew.enter("b", "b1", "b2") + await crew.enter("c", "c1")

    assert await crew.release(*jobs) == ["a1", "b1", "c1", "a2", "b2", "a3"]


@pytest.mark.anyio
async def test_run_lets_no_address_starve_another() -> None:
    """DO-6: sixteen clients of one address fill the queue; another address is served second."""
    crew = Crew(waiting=16)
    await crew.occupy()
    flood = await crew.enter("flood", *(str(number) for number in range(16)))

    jobs = [*flood[:15], *await crew.enter("other", "other")]

    with pytest.raises(OverloadedError):
        await flood[15]
    assert (await crew.release(*jobs))[:3] == ["0", "other", "1"]


@pytest.mark.anyio
async def test_run_takes_the_place_from_the_last_of_the_longest_lines() -> None:
    """DO-6: of two equally long lines, the one that is served later loses its newest job."""
    crew = Crew(waiting=4)
    await crew.occupy()
    a = await crew.enter("a", "a1", "a2")
    b = await crew.enter("b", "b1", "b2")

    c = await crew.enter("c", "c1")

    with pytest.raises(OverloadedError):
        await b[1]
    assert await crew.release(*a, b[0], *c) == ["a1", "b1", "c1", "a2"]


@pytest.mark.anyio
async def test_run_takes_no_place_from_an_equal() -> None:
    """DO-2, DO-6: a crowd of which each has one job waiting keeps its places; who comes later is refused at once."""
    crew = Crew(waiting=2)
    await crew.occupy()
    jobs = await crew.enter("a", "a1") + await crew.enter("b", "b1")

    (refused,) = await crew.enter("c", "c1")

    assert refused.done()
    with pytest.raises(OverloadedError):
        await refused
    assert await crew.release(*jobs) == ["a1", "b1"]


@pytest.mark.anyio
async def test_run_treats_all_without_key_as_one() -> None:
    """DO-6: jobs without a key share one line."""
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
    """DO-2: places count as jobs that wait, whether it is known yet what will run in them or not."""
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
    """Within the block a second job waits like any other."""
    crew = Crew(waiting=1)
    await crew.occupy()
    with crew.pool.place("a"):
        first, second = await crew.enter("a", "1", "2")
        with pytest.raises(OverloadedError):
            await second

    assert await crew.release(first) == ["1"]


@pytest.mark.anyio
async def test_free_thread_does_not_wait_for_a_place() -> None:
    """DO-1: what holds a place looks something up; whoever is ready goes first, and free threads count as room."""
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
async def test_place_is_lost_to_a_key_with_fewer() -> None:
    """DO-6: who holds most places gives the newest; its owner is told when it is used, or never."""
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
    """What was refused before anything was hashed leaves room, and a task that outlives the block has no place."""
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
async def test_run_forgets_a_cancelled_job_that_waits() -> None:
    """DO-2: the client has gone: the job never runs and its place is free."""
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
async def test_run_keeps_the_thread_of_a_cancelled_job_until_it_is_done() -> None:
    """DO-2: a running job cannot be stopped, so the next one starts only after it."""
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
async def test_run_takes_the_place_of_a_job_cancelled_in_the_same_moment() -> None:
    """A waiting job that was cancelled, and has not run yet to say so, keeps no place."""
    crew = Crew(waiting=1)
    await crew.occupy()
    (cancelled,) = await crew.enter("a", "a1")
    newcomer = asyncio.create_task(crew.pool.run("b", partial(crew.order.append, "b1")))
    cancelled.cancel()

    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await crew.release(newcomer) == ["b1"]


@pytest.mark.anyio
async def test_run_skips_a_job_cancelled_in_the_moment_of_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread falls to the next job if the one whose turn it is was cancelled just now."""
    executor = ManualExecutor()
    monkeypatch.setattr(hashing, "ThreadPoolExecutor", lambda *args: executor)
    pool = HashingPool(threads=1)
    order: list[str] = []
    first, cancelled, last = (asyncio.create_task(pool.run(None, partial(order.append, name))) for name in "abc")
    await asyncio.sleep(0)

    executor.finish()  # its report is now in the loop's queue, before what cancel() puts there
    cancelled.cancel()
    await first
    executor.finish()
    await last

    assert cancelled.cancelled()
    assert order == ["a", "c"]


def test_run_works_on_several_loops_one_after_another() -> None:
    """A pool serves a new loop after the old one died, even while a job of the old one still runs."""
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
    """No thread outlives the interpreter: a script that never closes the pool ends."""
    script = "import asyncio; from asgi_auth.hashing import HashingPool as H; print(asyncio.run(H().run(None, int)))"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, check=True)

    assert ended.stdout.strip() == b"0"


@pytest.mark.anyio
async def test_close_ends_the_threads_and_may_be_repeated() -> None:
    """Closing twice is closing once; a closed pool that is used opens again."""
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
async def test_close_serves_what_waits() -> None:
    """Closing loses nothing: what runs ends, what waits is served."""
    crew = Crew(waiting=1)
    await crew.occupy()
    jobs = await crew.enter("a", "1")

    crew.pool.close()

    assert await crew.release(*jobs) == ["1"]


@pytest.mark.anyio
async def test_pool_uses_the_cores_that_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number there are as many threads as usable cores, and at least one."""
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
def test_pool_refuses_impossible_bounds(options: dict[str, int], name: str) -> None:
    """A pool without threads, or with less than no places, is a ConfigurationError that names the parameter."""
    with pytest.raises(ConfigurationError, match=name):
        HashingPool(**options)
