"""The application of the soak's workers: ``tests.served`` on either database, with mail as files in a directory."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from asgi_auth.limits import Limit
from asgi_auth.strategies.password import Password, Resettable
from tests.served import application, real_auth
from tests.workers import store_of_all

APP = (
    *("tests.soaked:make_app", "--factory", "--no-access-log"),
    *("--ws=websockets-sansio", "--timeout-keep-alive=600"),  # a connection ends only with its worker
)


def mailed_to(directory: Path, address: str) -> list[str]:
    """The tokens mailed to a user, in order."""
    box = directory / f"{address}.mail"
    return box.read_text().split() if box.exists() else []


async def deliver(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:  # pragma: no cover - see make_app
    """A sender whose mail the test reads in another process; each line is written as a whole."""
    with Path(f"{opts['address']}.mail").open("a") as box:  # noqa: ASYNC230  # a line
        box.write(f"{token or ''}\n")


async def hello(websocket: WebSocket) -> None:  # pragma: no cover - see make_app
    """The current user, as ``/me`` returns it."""
    await websocket.accept()
    await websocket.send_text(websocket.user.email or "-")
    await websocket.close()


def make_app() -> Starlette:  # pragma: no cover - the workers run it, and a signal ends them
    """The application that every worker serves."""
    # The same few users request resets again and again.
    strategy = Password(resettable=Resettable(sender=deliver, mails=Limit(1_000_000, timedelta(hours=1))))
    app = application(real_auth(Path(), store=store_of_all(), strategies=[strategy]))
    app.router.routes.append(WebSocketRoute("/hello", hello))
    return app
