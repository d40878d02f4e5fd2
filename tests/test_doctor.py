"""What the doctor finds in a configuration, and what it leaves alone."""

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
    """Confirms addresses, as far as anybody can see."""

    name = "gate"
    proves_addresses = True


async def deliver(user: Any, token: str) -> None:
    """An application's own sender."""


def good_auth(directory: Path, **options: Any) -> Authentication[User]:
    """Nothing is wrong with this one but what *options* say."""
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
    """What the doctor says about it, on a database that exists."""
    auth = good_auth(directory, **options)
    asyncio.run(auth.store.migrate())
    return [str(finding) for finding in asyncio.run(examine(auth))]


def test_doctor_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    """The defaults are safe."""
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
def test_doctor_names_what_is_unsafe(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    """One line for each thing, with what to do; notes are no danger."""
    (finding,) = findings(tmp_path, **options)

    assert finding.startswith(told)


@pytest.mark.parametrize(
    "options", [{"registration": "closed"}, {"strategies": [Password(registration_enabled=False)]}]
)
def test_doctor_has_no_advice_for_a_closed_registration(tmp_path: Path, options: dict[str, Any]) -> None:
    """Where nobody registers, nobody registers the address of another user."""
    assert not any("registration" in finding for finding in findings(tmp_path, add_ons=[], **options))


def test_doctor_has_no_advice_for_a_proxy_on_a_socket(tmp_path: Path) -> None:
    """It is listed, and is no network."""
    assert findings(tmp_path, trusted_proxies=["unix"]) == []


def test_doctor_knows_the_senders_that_are_for_development(tmp_path: Path) -> None:
    """One prints links, the other keeps them; neither is a way to reach a person."""
    printing = Password(resettable=Resettable(sender=ConsoleSender()))
    auth = make_auth(tmp_path, strategies=[printing], clock=utc_now)
    told = [str(finding) for finding in asyncio.run(examine(auth))]
    assert any(line.startswith("unsafe: resettable.sender: ConsoleSender shows links") for line in told)

    told = [str(finding) for finding in asyncio.run(examine(make_auth(tmp_path, clock=utc_now)))]
    assert any(line.startswith("unsafe: resettable.sender: MemorySender delivers nothing") for line in told)


def test_doctor_sees_who_can_open_the_database(tmp_path: Path) -> None:
    """FS-1: a file that others can read."""
    auth = good_auth(tmp_path)
    asyncio.run(auth.store.migrate())
    (tmp_path / "app.db").chmod(0o640)

    (finding,) = asyncio.run(examine(auth))
    assert str(finding).startswith("unsafe: store: others on this machine can open")
    assert "app.db (mode 0640); chmod 600 it" in finding.advice


def test_doctor_makes_no_database(tmp_path: Path) -> None:
    """Looking changes nothing."""
    (finding,) = asyncio.run(examine(good_auth(tmp_path)))

    assert not finding.unsafe
    assert finding.advice == f"there is no {tmp_path}/app.db yet; the first start makes it"
    assert list(tmp_path.iterdir()) == []


def test_doctor_makes_no_tables(tmp_path: Path) -> None:
    """A file that a user has made for the database stays empty."""
    (tmp_path / "app.db").touch(mode=0o600)
    (finding,) = asyncio.run(examine(good_auth(tmp_path)))

    assert not finding.unsafe
    assert finding.advice == f"{tmp_path}/app.db lacks tables of the library; the first start makes them"
    assert (tmp_path / "app.db").read_bytes() == b""


def test_doctor_reports_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    """Neither a missing directory nor a file that is no database is a traceback."""
    (missing,) = asyncio.run(examine(good_auth(tmp_path / "nowhere")))
    assert str(missing).startswith("unsafe: store: it cannot be opened (sqlite: ")

    (tmp_path / "app.db").write_bytes(b"no database" * 100)
    (tmp_path / "app.db").chmod(0o600)
    (broken,) = asyncio.run(examine(good_auth(tmp_path)))
    assert str(broken).startswith(f"unsafe: store: it cannot be opened (sqlite: SQLITE_NOTADB: {tmp_path}/app.db: the ")


class Elsewhere:
    """A store that is no file: everything is another store's."""

    def __init__(self, store: Any) -> None:
        self.open, self.close, self.versions, self.scope = store.open, store.close, store.versions, store.scope


def test_doctor_asks_for_no_file_where_there_is_none(tmp_path: Path) -> None:
    """A store without a path is only opened, once it has tables."""
    auth = good_auth(tmp_path)
    elsewhere = good_auth(tmp_path, store=Elsewhere(auth.store))

    (finding,) = asyncio.run(examine(elsewhere))
    assert finding.advice == "the database lacks tables of the library; the first start makes them"
    asyncio.run(auth.store.migrate())
    assert asyncio.run(examine(elsewhere)) == []
