"""The storm's application, which times its own answers; served by uvicorn."""

import time
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.storm_app import app as application

Note = tuple[int, float]
"""A status, and the milliseconds from the call of the application to the start of its answer."""


class Timed:
    """Notes when each answer under ``/auth`` begins; ``/notes`` returns the notes since the last request for them.

    One clock is the CPU time of the event loop's thread. The other is the wall clock, which includes other processes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._notes: list[Note] = []
        self._processor = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http" and scope["path"] == "/notes":
            used, self._processor = time.thread_time() - self._processor, time.thread_time()
            notes, self._notes = self._notes, []
            await JSONResponse({"notes": notes, "processor": used * 1e3})(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/auth"):
            await self._app(scope, receive, self._timing(time.perf_counter, send))
        else:
            await self._app(scope, receive, send)

    def _timing(self, clock: Callable[[], float], send: Send) -> Send:
        began = clock()

        async def timing(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._notes.append((message["status"], (clock() - began) * 1e3))
            await send(message)

        return timing


app: Any = Timed(application)
