"""``python -m asgi_auth``: every command, every way in which it says no, and never a traceback."""

import asyncio
import getpass
import io
import sqlite3
import subprocess
import sys
import tomllib
import warnings
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from asgi_auth import demo
from asgi_auth.__main__ import _advice, main
from asgi_auth.authentication import utc_now
from asgi_auth.protocol.keys import check_secret
from asgi_auth.stores import PostgresStore, SQLiteStore
from tests.support import EMAIL, PASSWORD, make_auth, register

APP = """
from pathlib import Path
from tests.support import make_auth
from asgi_auth.authentication import utc_now

auth = make_auth(Path(__file__).parent, clock=utc_now)

class nested:
    auth = auth
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with an ``app.py``, which the next test does not see."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "app.py").write_text(APP, "utf-8")
    return tmp_path


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Make *data* the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def created_user(folder: Path, field: str, value: str) -> Any:
    """The user that a command made, read anew."""

    async def find() -> Any:
        auth = make_auth(folder, clock=utc_now)
        found = await auth.accounts.find(field, value)
        assert found is not None
        token = await auth.strategy("password").sign_in({"email": found.user.email, "password": PASSWORD})
        await auth.close()
        assert token
        return found

    return asyncio.run(find())


# --- the command line ------------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends with 0 and says what there is, and what module:auth means."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    told = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("demo", "secret", "create-user", "migrate", "prune", "doctor", "app.py", "Exit status"):
        assert word in told


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["doctor"], "the following arguments are required: module:auth"),
        (["doctor", "app"], "'app' is not like app:auth"),
        (["doctor", "app.py:auth()"], "is not like app:auth"),
        (["demo", "--port", "70000"], "'70000' is not a port, 0 to 65535"),
        (["demo", "--port", "many"], "'many' is not a port, 0 to 65535"),
        (["create-user", "app:auth", "--password", "x"], "--password"),
    ],
)
def test_wrong_command_line_ends_with_2(capsys: pytest.CaptureFixture[str], argv: list[str], told: str) -> None:
    """One line, and where to read more."""
    with pytest.raises(SystemExit) as ended:
        main(argv)

    answer = capsys.readouterr()
    assert (ended.value.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert told in answer.err
    assert answer.err.count("\n") == 1


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the name and the version, and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert (ended.value.code, capsys.readouterr().out) == (0, f"asgi_auth {project['version']}\n")


def test_copy_that_is_not_installed_has_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the version is unknown there."""

    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert main(["secret"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out.splitlines()[-1]) == (0, "asgi_auth (not installed)")


def test_command_as_a_process() -> None:
    """``python -m asgi_auth`` passes on the exit status."""
    ended = subprocess.run([sys.executable, "-m", "asgi_auth", "secret"], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_secret_is_one_that_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh one each time, fit to sign with."""
    assert [main(["secret"]), main(["secret"])] == [0, 0]

    first, second = capsys.readouterr().out.split()
    assert first != second
    assert check_secret(first) == (first.encode(),)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["migrate", "nowhere:auth"],
            "nowhere:auth cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
        (["migrate", "app:other"], "app:other cannot be imported: AttributeError"),
        (["migrate", "broken:auth"], "broken:auth cannot be imported: KeyError: 'AUTH_SECRET'"),
        (["migrate", "short:auth"], "short:auth cannot be imported: secret is shorter than 32 bytes"),
        (["migrate", "app:make_auth"], "app:make_auth is a function; name the Authentication, for example app:auth"),
    ],
)
def test_what_is_no_authentication_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    """Whatever goes wrong while an application is imported is one line."""
    (folder / "broken.py").write_text("secret = {}['AUTH_SECRET']", "utf-8")
    (folder / "short.py").write_text("from asgi_auth.protocol.keys import check_secret\ncheck_secret('abc')", "utf-8")

    assert main(argv) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(f"error: {told}")
    assert answer.err.count("\n") == 1


# --- demo ------------------------------------------------------------------------------------------------------------


def test_demo_is_for_this_machine_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, with what to do; nothing was made."""
    assert main(["demo", "--host", "0.0.0.0", "--directory", str(tmp_path / "demo")]) == 1  # noqa: S104  # refused

    answer = capsys.readouterr()
    assert answer.err.startswith("error: the demo is for this machine only, not for 0.0.0.0: use 127.0.0.1")
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_demo_with_a_broken_database_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no database; the address of a demo that does not come up is not printed."""
    (tmp_path / "demo.db").write_bytes(b"no database" * 100)

    assert main(["demo", "--port", "0", "--directory", str(tmp_path)]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(
        f"error: the database does not answer (sqlite: SQLITE_NOTADB: {tmp_path}/demo.db: the file is not a SQLite "
        "database); check where it is"
    )


def test_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C at whatever moment is no traceback."""

    def interrupted(**options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)

    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "")


# --- create-user -----------------------------------------------------------------------------------------------------


def test_create_user_reads_the_password_from_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, without what ends it; it is printed nowhere."""
    type_in(monkeypatch, f"{PASSWORD}\r\nanother line\n".encode())

    assert main(["create-user", "app:auth", "--email", EMAIL, "--confirmed", "--password-stdin"]) == 0
    answer = capsys.readouterr()
    found = created_user(folder, "email", EMAIL)
    assert answer == (f"created user {found.user.id}\n", "")
    assert found.account.confirmed_at is not None


def test_create_user_asks_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a terminal; a user may have a name as well, and is not confirmed unless a user says so."""
    monkeypatch.setattr("asgi_auth.__main__.getpass", lambda prompt: PASSWORD)

    assert main(["create-user", "app:nested.auth", "--email", EMAIL, "--username", "alice"]) == 0
    assert capsys.readouterr().err == ""
    assert created_user(folder, "username", "alice").account.confirmed_at is None


@pytest.mark.usefixtures("folder")
def test_create_user_refuses_two_passwords(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the finger creates nobody."""
    answers = iter([PASSWORD, f"{PASSWORD}x"])
    monkeypatch.setattr("asgi_auth.__main__.getpass", lambda prompt: next(answers))

    assert main(["create-user", "app:auth", "--email", EMAIL]) == 1
    assert capsys.readouterr().err == "error: the two passwords are not the same; nothing was created, try again\n"


@pytest.mark.usefixtures("folder")
def test_create_user_without_a_terminal_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked where what is typed would be shown."""

    def shown(prompt: str) -> str:
        return str(warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2))

    monkeypatch.setattr("asgi_auth.__main__.getpass", shown)

    assert main(["create-user", "app:auth", "--email", EMAIL]) == 1
    assert capsys.readouterr().err.endswith("use --password-stdin\n")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "password", "told"),
    [
        (["--email", EMAIL], b"password\n", "password: This password is easy to guess."),
        (["--email", EMAIL], b"", "password: Enter a password."),
        (
            ["--email", EMAIL],
            b"quartz \xff lantern\n",
            "password: The password contains a character that cannot be used.",
        ),
        (["--email", "alice"], PASSWORD.encode(), "email: This is not a mail address."),
        ([], PASSWORD.encode(), "email: This field is required."),
    ],
)
def test_create_user_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    password: bytes,
    told: str,
) -> None:
    """The policy holds here, too."""
    type_in(monkeypatch, password)

    assert main(["create-user", "app:auth", "--password-stdin", *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {told}")


# --- migrate, prune --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_migrate_says_from_where_to_where(capsys: pytest.CaptureFixture[str]) -> None:
    """0 is no schema at all; a second time nothing is left to do."""
    assert [main(["migrate", "app:auth"]), main(["migrate", "app:auth"])] == [0, 0]

    answer = capsys.readouterr()
    first, second = answer.out.splitlines()
    newest = first.removeprefix("schema 0 -> ")
    assert second == f"schema {newest} -> {newest}"
    assert answer.err == ""


def make_older(path: Path) -> None:
    """What the release before the newest schema has left."""
    main(["migrate", "app:auth"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE asgi_auth_accounts DROP COLUMN proven_email")
    set_schema(path, 2)


def test_migrate_says_to_make_a_backup_before_it_changes_anything(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note is there while the schema is still the old one; nothing is asked, so that a deployment goes on."""
    path = folder / "app.db"
    make_older(path)
    capsys.readouterr()
    told: list[str] = []

    async def interrupted(store: SQLiteStore) -> None:
        told.append(capsys.readouterr().err)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "migrate", interrupted)
        assert main(["migrate", "app:auth"]) == 130
    assert told == [
        "note: schema 2 becomes 3; only a backup leads back to the earlier release. Stop the application, and make one "
        f"first: (umask 077; sqlite3 {path} \"VACUUM INTO 'schema-2.db'\")\n"
    ]

    assert [main(["migrate", "app:auth"]), main(["migrate", "app:auth"])] == [0, 0]
    answer = capsys.readouterr()
    assert answer.out == "schema 2 -> 3\nschema 3 -> 3\n"
    assert answer.err == told[0]


def test_migrate_tells_no_address_of_a_database() -> None:
    """The note for a database elsewhere has nothing of its password."""
    told = _advice(PostgresStore("postgresql://app:geheim@db.example.com/app"), 2, 3)
    assert told.endswith("make one first: as you do for this database (PostgreSQL: pg_dump)")


def test_older_database_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever is refused is told of the backup, too, before they run the command."""
    make_older(folder / "app.db")
    capsys.readouterr()
    assert main(["prune", "app:auth"]) == 1
    assert capsys.readouterr().err == (
        "error: store: the database has schema 2, this version needs 3: make a backup, then run python -m asgi_auth "
        "migrate\n"
    )


def test_prune_says_how_many_went(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A session that is over is a row that goes."""

    async def sign_up_long_ago() -> None:
        auth = make_auth(folder, clock=lambda: datetime.now(UTC) - timedelta(days=60))
        await register(auth)
        await auth.close()

    asyncio.run(sign_up_long_ago())

    assert main(["prune", "app:auth"]) == 0
    assert capsys.readouterr().out == "deleted 1 rows\n"


def test_prune_tells_that_a_part_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others were pruned; the exit status says that not all is well."""
    main(["migrate", "app:auth"])
    with closing(sqlite3.connect(folder / "app.db")) as connection, connection:
        connection.execute("ALTER TABLE asgi_auth_tokens RENAME TO gone")

    assert main(["prune", "app:auth"]) == 1
    assert f"error: the database does not answer (sqlite: SQLITE_ERROR: {folder}/app.db)" in capsys.readouterr().err


def test_prune_of_a_wrong_path_makes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is wrong is named; it is not the place of a new database from which nothing could be deleted."""
    before = sorted(path.name for path in folder.iterdir())
    assert main(["prune", "app:auth"]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err == (
        f"error: store: {folder}/app.db does not exist or lacks tables of the library; none was created\n"
    )
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_database_of_tomorrow_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A schema that is not known is one line, for every command that opens it."""
    main(["migrate", "app:auth"])
    set_schema(folder / "app.db", 99)
    capsys.readouterr()

    assert [main([command, "app:auth"]) for command in ("prune", "migrate", "doctor")] == [1, 1, 1]
    answer = capsys.readouterr()
    assert answer.err.count("error: store: the schema of the database (99) is not one of") == 2
    assert "unsafe: store: the schema of the database (99) is not one of" in answer.out


def set_schema(path: Path, version: int) -> None:
    """Pretend that another version of the package made the database."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE asgi_auth_schema SET version = ?", (version,))


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_ends_with_0_if_nothing_is_unsafe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Advice alone is no failure; danger is."""
    (folder / "good.py").write_text("from pathlib import Path\nfrom tests.test_doctor import good_auth\n"
                                    "auth = good_auth(Path(__file__).parent)\n", "utf-8")  # fmt: skip

    assert main(["doctor", "good:auth"]) == 0
    assert capsys.readouterr().out.endswith("nothing unsafe was found\n")
    assert main(["doctor", "app:auth"]) == 1
    assert capsys.readouterr().out.endswith("3 unsafe\n")
