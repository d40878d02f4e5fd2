"""Cancel a task at each point where it waits."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any


@coroutine
def cancelled_at(step: int, act: Coroutine[Any, Any, None]) -> Generator[Any, Any, bool]:
    """Run *act* and cancel its task at its *step*-th wait. Return whether *act* waited that often."""
    waits: int = 0
    error: BaseException | None = None
    while True:
        try:
            future = act.send(None) if error is None else act.throw(error)
        except StopIteration:
            return waits >= step
        waits += 1
        if waits == step:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        error = None
        try:
            yield future
        except BaseException as exc:
            error = exc


async def cancel_everywhere(act: Callable[[], Coroutine[Any, Any, None]], check: Callable[[], Awaitable[None]]) -> int:
    """Cancel *act* at its first, second, … wait until it ends by itself. Return the number of waits."""

    async def run(step: int) -> bool:
        return await cancelled_at(step, act())

    step, reached = 0, True
    while reached:
        step += 1
        with suppress(asyncio.CancelledError):
            reached = await asyncio.create_task(run(step))
        await check()
    return step - 1
