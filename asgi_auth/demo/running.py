"""The demo as a process of its own: its files, its address, its mails in the terminal."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Any

from asgi_auth import Authentication, ConfigurationError, Sender, User
from asgi_auth.add_ons import Confirmation, Invitation
from asgi_auth.demo.pages import APP_NAME, DemoPages
from asgi_auth.demo.site import make_app
from asgi_auth.protocol.loopback import is_loopback
from asgi_auth.senders import ConsoleSender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable

FRESH = timedelta(minutes=15)
"""How long ago somebody may have proven who they are, to change the address."""


def add_ons(sender: Sender) -> Sequence[Confirmation | Invitation]:
    """What the demo has around accounts: addresses have to be confirmed, and whoever has done so may invite."""
    return [Confirmation(sender=sender, change_fresh=FRESH), Invitation(sender=sender, may_invite=_is_confirmed)]


def _is_confirmed(inviter: User, _address: str, _grant: Mapping[str, Any]) -> bool:
    return inviter.confirmed_at is not None


def make_auth(directory: Path, base_url: str) -> Authentication[User]:
    """An ``Authentication`` with its database and secret in *directory*, which is made if need be.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    try:
        with suppress(FileExistsError):
            directory.mkdir(0o700, parents=True)
            (directory / ".gitignore").write_text("*\n")  # nothing in here is for anybody else
        secret = load_secret(directory / "secret")
    except OSError as exc:
        raise ConfigurationError(f"cannot use {directory}: {exc.strerror}; choose another --directory") from exc
    sender = ConsoleSender()
    return Authentication(
        store=SQLiteStore(directory / "demo.db"),
        secret=secret,
        base_url=base_url,
        app_name=APP_NAME,
        pages=DemoPages(),
        strategies=[Password(resettable=Resettable(sender=sender))],
        add_ons=add_ons(sender),
    )


def load_secret(path: Path) -> str:
    """The secret in *path*, which is made with mode 0600 if need be; of two that make it at once, one wins."""
    if not path.exists():
        # Written under another name and linked: the file is there with the whole secret or not at all.
        with suppress(FileExistsError), NamedTemporaryFile("w", dir=path.parent) as file:  # has mode 0600
            file.write(f"{token_hex(32)}\n")
            file.flush()
            os.link(file.name, path)
    return path.read_text("utf-8").strip()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; whoever asks for port 0 gets a free one.

    Raises:
        ConfigurationError: *host* is not this machine alone, or the port cannot be had.
    """
    if not is_loopback(host):
        raise ConfigurationError(f"the demo is for this machine only, not for {host}: use 127.0.0.1, ::1 or localhost")
    address = "127.0.0.1" if host.lower().endswith("localhost") else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, port), family=family)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so for its own only
        return listening
    except OSError as exc:
        why = os.strerror(exc.errno or 0)
        raise ConfigurationError(f"cannot listen on port {port}: {why}; choose another --port, 0 for any") from exc


def run(*, host: str, port: int, directory: Path, ready: Callable[[str], None]) -> None:
    """Serve the demo until it is interrupted.

    Args:
        host, port: As for ``listen``.
        directory: Where the accounts and the secret are kept.
        ready: Told the address once it can be opened.

    Raises:
        ConfigurationError: uvicorn is missing, the address or the directory cannot be used.
        StoreUnavailableError: the database cannot be opened.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as exc:
        raise ConfigurationError("the demo needs uvicorn: pip install 'asgi-auth[demo]'") from exc
    with listen(host, port) as listening:
        base_url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        auth = make_auth(directory, base_url)
        app = make_app(auth)
        config = uvicorn.Config(app, log_level="warning", access_log=False, proxy_headers=False, server_header=False)

        async def serve() -> None:
            async with auth.running():  # what cannot be opened is told before the address is
                ready(base_url)
                await uvicorn.Server(config).serve(sockets=[listening])

        with suppress(KeyboardInterrupt):
            asyncio.run(serve())
