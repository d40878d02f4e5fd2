"""The doctor: the findings in a configuration, and the cases without a finding."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.authentication import Authentication, utc_now
from asgi_auth.doctor import examine
from asgi_auth.hooks import Hook
from asgi_auth.passwords import Bcrypt, PasswordPolicy
from asgi_auth.senders import ConsoleSender
from asgi_auth.sessions import SessionOptions
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import User
from tests.support import make_auth


class Gate(Hook):
    """A hook that claims to confirm addresses."""

    name = "gate"
    proves_addresses = True


async def deliver(user: Any, token: str) -> None:
    """An application's own sender."""


def good_auth(directory: Path, **options: Any) -> Authentication[User]:
    """A safe Authentication; *options* change it."""
    defaults: dict[str, Any] = {
        "base_url": "https://app.example.org",
        "strategies": [Password(resettable=Resettable(sender=deliver))],
        "hasher": Bcrypt(),
        "clock": utc_now,
        "add_ons": [Gate()],
        "trusted_proxies": ["10.0.0.0/8", "fc00::/7"],
        "allowed_origins": ["https://other.example.org"],
    }
    return make_auth(directory, **{**defaults, **options})


def findings(directory: Path, **options: Any) -> list[str]:
    """The doctor's findings on an existing database."""
    auth = good_auth(directory, **options)
    asyncio.run(auth.store.migrate())
    return [str(finding) for finding in asyncio.run(examine(auth))]


def test_doctor_finds_nothing_in_a_safe_configuration(tmp_path: Path) -> None:
    """A safe configuration has no findings."""
    assert findings(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"base_url": "http://localhost:8000"}, "unsafe: base_url: http is for this machine only"),
        ({"hasher": Bcrypt(cost=4)}, "unsafe: hasher: cost 4 is for tests only"),
        ({"password_policy": PasswordPolicy(minimum_strength=2)}, "unsafe: password_policy: easily guessed"),
        ({"session": SessionOptions(idle_lifetime=timedelta(days=1))}, "unsafe: session: idle_lifetime is over"),
        (
            {"session": SessionOptions(lifetime=timedelta(days=8))},
            "unsafe: session: lifetime is over the default of 7 d",
        ),
        (
            {"session": SessionOptions(remembered_lifetime=timedelta(days=31))},
            "unsafe: session: remembered_lifetime is",
        ),
        ({"session": SessionOptions(pending_lifetime=timedelta(hours=1))}, "unsafe: session: pending_lifetime is over"),
        (
            {"allowed_origins": ["http://a.example.org"]},
            "unsafe: allowed_origins: an attacker on the network can impersonate http:",
        ),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "unsafe: trusted_proxies: 0.0.0.0/0 lets clients choose"),
        ({"trusted_proxies": ["::/0"]}, "unsafe: trusted_proxies: ::/0 lets clients choose"),
        ({"trusted_proxies": []}, "note: trusted_proxies: behind a proxy all clients count as one"),
        ({"add_ons": []}, "note: registration: users can register an address that they do not own"),
        ({"strategies": [Password()]}, "note: password.resettable: a forgotten password cannot be replaced"),
        ({"clock": lambda: datetime.now(UTC) - timedelta(minutes=2)}, "unsafe: clock: it differs from the clock"),
    ],
)
def test_doctor_names_unsafe_options(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    """Each unsafe option has one line with a remedy; a note is not a danger."""
    (finding,) = findings(tmp_path, **options)

    assert finding.startswith(told)


@pytest.mark.parametrize(
    "options", [{"registration": "closed"}, {"strategies": [Password(registration_enabled=False)]}]
)
def test_doctor_has_no_advice_for_a_closed_registration(tmp_path: Path, options: dict[str, Any]) -> None:
    """Without registration, no user can register another user's address."""
    assert not any("registration" in finding for finding in findings(tmp_path, add_ons=[], **options))


def test_doctor_has_no_advice_for_a_proxy_on_a_socket(tmp_path: Path) -> None:
    """``unix`` is a trusted proxy and not a network."""
    assert findings(tmp_path, trusted_proxies=["unix"]) == []


def test_doctor_reports_development_senders(tmp_path: Path) -> None:
    """ConsoleSender prints links and MemorySender stores them; neither delivers mail."""
    printing = Password(resettable=Resettable(sender=ConsoleSender()))
    auth = make_auth(tmp_path, strategies=[printing], clock=utc_now)
    told = [str(finding) for finding in asyncio.run(examine(auth))]
    assert any(line.startswith("unsafe: resettable.sender: ConsoleSender shows links") for line in told)

    told = [str(finding) for finding in asyncio.run(examine(make_auth(tmp_path, clock=utc_now)))]
    assert any(line.startswith("unsafe: resettable.sender: MemorySender delivers nothing") for line in told)


def test_doctor_reports_a_readable_database(tmp_path: Path) -> None:
    """FS-1: the doctor reports a database file that other users can read."""
    auth = good_auth(tmp_path)
    asyncio.run(auth.store.migrate())
    (tmp_path / "app.db").chmod(0o640)

    (finding,) = asyncio.run(examine(auth))
    assert str(finding).startswith("unsafe: store: others on this machine can open")
    assert "app.db (mode 0640); chmod 600 it" in finding.advice


def test_doctor_creates_no_database(tmp_path: Path) -> None:
    """The doctor does not create the database file."""
    (finding,) = asyncio.run(examine(good_auth(tmp_path)))

    assert not finding.unsafe
    assert finding.advice == f"there is no {tmp_path}/app.db yet; the first start makes it"
    assert list(tmp_path.iterdir()) == []


def test_doctor_creates_no_tables(tmp_path: Path) -> None:
    """An empty file that the user created for the database stays empty."""
    (tmp_path / "app.db").touch(mode=0o600)
    (finding,) = asyncio.run(examine(good_auth(tmp_path)))

    assert not finding.unsafe
    assert finding.advice == f"{tmp_path}/app.db lacks tables of the library; the first start makes them"
    assert (tmp_path / "app.db").read_bytes() == b""


def test_doctor_reports_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    """A missing directory and a file that is not a database are findings, not tracebacks."""
    (missing,) = asyncio.run(examine(good_auth(tmp_path / "nowhere")))
    assert str(missing).startswith("unsafe: store: it cannot be opened (sqlite: ")

    (tmp_path / "app.db").write_bytes(b"no database" * 100)
    (tmp_path / "app.db").chmod(0o600)
    (broken,) = asyncio.run(examine(good_auth(tmp_path)))
    assert str(broken).startswith(f"unsafe: store: it cannot be opened (sqlite: SQLITE_NOTADB: {tmp_path}/app.db: the ")


class Elsewhere:
    """A store without a file: it uses the methods of another store."""

    def __init__(self, store: Any) -> None:
        self.open, self.close, self.versions, self.scope = store.open, store.close, store.versions, store.scope


def test_doctor_requires_no_file_of_other_stores(tmp_path: Path) -> None:
    """For a store without a path, the doctor only reports missing tables."""
    auth = good_auth(tmp_path)
    elsewhere = good_auth(tmp_path, store=Elsewhere(auth.store))

    (finding,) = asyncio.run(examine(elsewhere))
    assert finding.advice == "the database lacks tables of the library; the first start makes them"
    asyncio.run(auth.store.migrate())
    assert asyncio.run(examine(elsewhere)) == []
