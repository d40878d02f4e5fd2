"""The demo: in the process of the test, and as a separate process on a free port, as a user starts it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from asgi_auth.demo import APP_NAME, DemoPages, add_ons, make_app
from asgi_auth.senders import MemorySender
from asgi_auth.strategies import Password, Resettable
from tests import support
from tests.support import BASE_URL, EMAIL, PATIENCE, LocalAuthentication, credentials, mailed_token, registration

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SIGN_IN = "/auth/password/sign_in"


# --- inside the test -------------------------------------------------------------------------------------------------


def make_auth(directory: Path, *, more: Sequence[Any] = ()) -> LocalAuthentication:
    """The demo's ``Authentication`` with cheap hashes and mail that the test reads. *more* add-ons come first."""
    sender = MemorySender()
    strategies = [Password(resettable=Resettable(sender=sender))]
    around = [*more, *add_ons(sender)]
    return support.make_auth(
        directory, sender=sender, strategies=strategies, add_ons=around, pages=DemoPages(), app_name=APP_NAME
    )


def visit(auth: LocalAuthentication, **headers: str) -> httpx.AsyncClient:
    """A new browser on the demo."""
    page = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", "User-Agent": FIREFOX, **headers}
    return httpx.AsyncClient(transport=httpx.ASGITransport(make_app(auth)), base_url=BASE_URL, headers=page)


async def sign_up(browser: httpx.AsyncClient, auth: LocalAuthentication, email: str = EMAIL) -> None:
    """Register, confirm the address and sign in."""
    await browser.post("/auth/password/register", data=registration(email))
    await browser.post("/auth/confirmation/confirm", data=confirming(auth))
    answer = await sign_in(browser, email)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/account")


def confirming(auth: LocalAuthentication) -> dict[str, str]:
    """The parameters of ``confirm``, with the token of the newest mail."""
    return {"confirmation_token": mailed_token(auth, parameter="confirmation_token")}


async def sign_in(browser: httpx.AsyncClient, email: str = EMAIL, **more: str) -> httpx.Response:
    """Sign in as the user that ``sign_up`` registered."""
    return await browser.post("/auth/password/sign_in", data=credentials(email) | more)


async def is_signed_in(browser: httpx.AsyncClient) -> bool:
    """Whether the browser can open the account page."""
    return (await browser.get("/account")).status_code == 200


def where(answer: httpx.Response) -> tuple[int, str | None]:
    """The status and the ``Location`` of *answer*."""
    return answer.status_code, answer.headers.get("Location")


# --- a process -------------------------------------------------------------------------------------------------------


class Demo:
    """A running demo and its output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self.printed(r"http://\S+")

    def printed(self, pattern: str) -> str:
        """Wait for the next output that matches *pattern* and return the match. StopIteration: the demo has ended."""
        assert self._process.stdout is not None
        return next(found[0] for line in self._process.stdout if (found := re.search(pattern, line)))

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C and return the exit status and the output on standard error."""
        self._process.send_signal(signal.SIGINT)
        _, told = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, told


@contextmanager
def running_demo(directory: Path) -> Iterator[Demo]:
    """``python -m asgi_auth demo`` with its files in *directory*."""
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_auth", "demo", "--port", "0", "--directory", str(directory)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Demo(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # not SIGKILL: the process saves its coverage
                process.communicate(timeout=PATIENCE)
