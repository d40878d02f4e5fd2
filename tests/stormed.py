"""The application of the worker in a mail storm: accounts that require confirmation, a proxy, and a slow sender."""

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from asgi_auth.add_ons.confirmation import Confirmation
from asgi_auth.runtime.lanes import Outbox
from tests.served import application, real_auth

SLOW = "STORM_SECONDS"
"""How long the sender takes for a mail, in seconds."""
DRAIN = "STORM_DRAIN"
"""How long the shutdown waits for mail, in seconds."""


async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:  # pragma: no cover - see app
    """Wait as long as the mail server would, then add a line to the file ``mails``."""
    await asyncio.sleep(float(os.environ[SLOW]))
    with Path("mails").open("a") as box:  # noqa: ASYNC230  # a line
        box.write(f"{opts['address']}\n")


@cache
def _make_app() -> Starlette:  # pragma: no cover - see app
    drain = timedelta(seconds=float(os.environ[DRAIN]))
    options = {"trusted_proxies": ["127.0.0.1"], "outbox": Outbox(drain=drain)}
    return application(real_auth(Path(), add_ons=[Confirmation(sender=send)], **options))


async def app(scope: Scope, receive: Receive, send: Send) -> None:  # pragma: no cover - a signal ends the worker
    """The application that the worker serves; it is created at its first use."""
    await _make_app()(scope, receive, send)
