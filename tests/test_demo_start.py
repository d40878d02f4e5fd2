"""The start of the demo, its files, and the demo as a process."""

import re
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_auth.demo import listen, load_secret, make_auth, run
from asgi_auth.errors import ConfigurationError
from tests.demos import Demo, running_demo
from tests.support import BASE_URL, EMAIL, NEW_PASSWORD, credentials, registration


def test_secret_is_created_once_by_the_first_caller(tmp_path: Path) -> None:
    """Concurrent starts agree on one secret, in a file that only its owner can read, and leave no other file."""
    path = tmp_path / "secret"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(load_secret, [path] * 32))

    assert len(found) == 1
    assert re.fullmatch("[0-9a-f]{64}", found.pop())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_directory_is_private_and_stays_out_of_git(tmp_path: Path) -> None:
    """A directory that the demo creates is private to its user; an existing directory is not changed."""
    made, found = tmp_path / "a" / "b", tmp_path / "found"
    found.mkdir(mode=0o755)
    for directory in (made, found):
        make_auth(directory, BASE_URL)

    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert (made / ".gitignore").read_text("utf-8") == "*\n"
    assert [path.name for path in found.iterdir()] == ["secret"]


def test_unusable_directory_is_reported(tmp_path: Path) -> None:
    """If the directory is a file, the error tells the user to choose another directory."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=r"cannot use .*file.*; choose another --directory"):
        make_auth(tmp_path / "file", BASE_URL)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::", ""])  # noqa: S104  # to be refused
def test_other_hosts_are_refused(host: str) -> None:
    """Hosts that are not loopback addresses are refused."""
    with pytest.raises(ConfigurationError, match="for this machine only"):
        listen(host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "Demo.localhost"])
def test_loopback_hosts_are_served(host: str) -> None:
    """Loopback hosts are accepted; port 0 means a free port."""
    with listen(host, 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_taken_port_is_reported() -> None:
    """The error names the port and tells the user to choose another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on port {port}: .*; choose another --port"):
            listen("127.0.0.1", port)


def test_missing_uvicorn_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If uvicorn is not installed, the error shows the command that installs the extra."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told: list[Any] = []

    with pytest.raises(ConfigurationError, match=r"pip install 'asgi-auth\[demo\]'"):
        run(host="127.0.0.1", port=0, directory=tmp_path, ready=told.append)
    assert told == []


def test_demo_runs_as_a_process(tmp_path: Path) -> None:
    """Register, confirm and reset with printed links, list sessions, sign out; a restart keeps users and cookies."""
    directory = tmp_path / "demo"
    with running_demo(directory) as demo, browsing(demo, follow_redirects=True) as browser:
        sign_up(demo, browser)
        browser.post("/auth/sign_out")
        reset_by_mail(demo, browser)
        page = browser.post("/auth/password/sign_in", data=credentials(password=NEW_PASSWORD))
        assert "This session" in page.text
        assert demo.interrupt() == (0, "")
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert files["secret"] == files["demo.db"] == 0o600

    with running_demo(directory) as demo, browsing(demo, cookies=browser.cookies) as later:
        assert "This session" in later.get("/account").text
        assert later.post("/auth/sign_out").status_code == 200
        assert later.get("/account").status_code == 303
        assert later.post("/auth/password/sign_in", data=credentials()).status_code == 401


def browsing(demo: Demo, **options: Any) -> httpx.Client:
    """A client that accepts pages."""
    return httpx.Client(base_url=demo.url, headers={"Accept": "text/html"}, **options)


def sign_up(demo: Demo, browser: httpx.Client) -> None:
    """Register, confirm with the printed link, sign in."""
    assert "Check your mail" in browser.post("/auth/password/register", data=registration()).text
    link = demo.printed(r"http://\S+confirmation_token=\S+")
    token = re.search(r'name="confirmation_token" value="([^"]+)"', browser.get(link).text)
    assert token is not None
    browser.post("/auth/confirmation/confirm", data={"confirmation_token": token[1]})
    assert "Your account" in browser.post("/auth/password/sign_in", data=credentials()).text


def reset_by_mail(demo: Demo, browser: httpx.Client) -> None:
    """Request a link, read it from the output of the demo, and set a new password."""
    browser.post("/auth/password/reset_request", data={"email": EMAIL})
    link = demo.printed(r"http://\S+reset_token=\S+")
    assert link.startswith(f"{demo.url}/auth/password/reset?")
    token = re.search(r'name="reset_token" value="([^"]+)"', browser.get(link).text)
    assert token is not None
    chosen = {"reset_token": token[1], "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    assert "Your new password is set." in browser.post("/auth/password/reset", data=chosen).text
