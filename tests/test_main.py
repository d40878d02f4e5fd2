"""``python -m asgi_auth``: every command and every error that it reports, without a traceback."""

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
    """A current directory with an ``app.py`` that the next test does not see."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "app.py").write_text(APP, "utf-8")
    return tmp_path


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Make *data* the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def created_user(folder: Path, field: str, value: str) -> Any:
    """The user that a command created, read by a new Authentication."""

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
    """--help exits with 0 and lists the commands and what module:auth means."""
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
def test_invalid_command_line_exits_with_2(capsys: pytest.CaptureFixture[str], argv: list[str], told: str) -> None:
    """The error is one line on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(argv)

    answer = capsys.readouterr()
    assert (ended.value.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert told in answer.err
    assert answer.err.count("\n") == 1


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the name and the version, and exits with 0."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert (ended.value.code, capsys.readouterr().out) == (0, f"asgi_auth {project['version']}\n")


def test_copy_that_is_not_installed_runs_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy without package metadata runs the commands; only its version is unknown."""

    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert main(["secret"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out.splitlines()[-1]) == (0, "asgi_auth (not installed)")


def test_command_as_a_process() -> None:
    """``python -m asgi_auth`` exits with the status of the command."""
    ended = subprocess.run([sys.executable, "-m", "asgi_auth", "secret"], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_secret_command_prints_a_valid_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Each call prints a new secret that check_secret accepts."""
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
def test_invalid_module_auth_argument_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    """Every failure of the import of the application is one line."""
    (folder / "broken.py").write_text("secret = {}['AUTH_SECRET']", "utf-8")
    (folder / "short.py").write_text("from asgi_auth.protocol.keys import check_secret\ncheck_secret('abc')", "utf-8")

    assert main(argv) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(f"error: {told}")
    assert answer.err.count("\n") == 1


# --- demo ------------------------------------------------------------------------------------------------------------


def test_demo_is_for_this_machine_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command refuses another host, says what to do, and creates nothing."""
    assert main(["demo", "--host", "0.0.0.0", "--directory", str(tmp_path / "demo")]) == 1  # noqa: S104  # refused

    answer = capsys.readouterr()
    assert answer.err.startswith("error: the demo is for this machine only, not for 0.0.0.0: use 127.0.0.1")
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_demo_reports_a_broken_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the file is not a database, the demo reports it and does not print its address."""
    (tmp_path / "demo.db").write_bytes(b"no database" * 100)

    assert main(["demo", "--port", "0", "--directory", str(tmp_path)]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(
        f"error: the database does not answer (sqlite: SQLITE_NOTADB: {tmp_path}/demo.db: the file is not a SQLite "
        "database); check where it is"
    )


def test_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C exits with 130 and prints no traceback."""

    def interrupted(**options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)

    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "")


# --- create-user -----------------------------------------------------------------------------------------------------


def test_create_user_reads_the_password_from_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The password is the first line without its line end; the command does not print it."""
    type_in(monkeypatch, f"{PASSWORD}\r\nanother line\n".encode())

    assert main(["create-user", "app:auth", "--email", EMAIL, "--confirmed", "--password-stdin"]) == 0
    answer = capsys.readouterr()
    found = created_user(folder, "email", EMAIL)
    assert answer == (f"created user {found.user.id}\n", "")
    assert found.account.confirmed_at is not None


def test_create_user_asks_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a terminal the command asks; a user may have a username too, and is unconfirmed without --confirmed."""
    monkeypatch.setattr("asgi_auth.__main__.getpass", lambda prompt: PASSWORD)

    assert main(["create-user", "app:nested.auth", "--email", EMAIL, "--username", "alice"]) == 0
    assert capsys.readouterr().err == ""
    assert created_user(folder, "username", "alice").account.confirmed_at is None


@pytest.mark.usefixtures("folder")
def test_create_user_refuses_two_different_passwords(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two different passwords create no user."""
    answers = iter([PASSWORD, f"{PASSWORD}x"])
    monkeypatch.setattr("asgi_auth.__main__.getpass", lambda prompt: next(answers))

    assert main(["create-user", "app:auth", "--email", EMAIL]) == 1
    assert capsys.readouterr().err == "error: the two passwords are not the same; nothing was created, try again\n"


@pytest.mark.usefixtures("folder")
def test_create_user_without_a_terminal_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command refuses to ask if the terminal would show the password, and names --password-stdin."""

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
def test_create_user_names_the_invalid_field(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    password: bytes,
    told: str,
) -> None:
    """The command checks the fields and the password policy."""
    type_in(monkeypatch, password)

    assert main(["create-user", "app:auth", "--password-stdin", *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {told}")


# --- migrate, prune --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_migrate_prints_old_and_new_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """Schema 0 means no schema; a second call changes nothing."""
    assert [main(["migrate", "app:auth"]), main(["migrate", "app:auth"])] == [0, 0]

    answer = capsys.readouterr()
    first, second = answer.out.splitlines()
    newest = first.removeprefix("schema 0 -> ")
    assert second == f"schema {newest} -> {newest}"
    assert answer.err == ""


def make_older(path: Path) -> None:
    """Turn the database into one of the release before the newest schema."""
    main(["migrate", "app:auth"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE asgi_auth_accounts DROP COLUMN proven_email")
    set_schema(path, 2)


def test_migrate_advises_a_backup_before_it_changes_anything(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note is printed before the schema changes; the command asks nothing, so that a deployment continues."""
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


def test_migrate_prints_no_database_url() -> None:
    """The note for a PostgreSQL database does not contain its password."""
    told = _advice(PostgresStore("postgresql://app:geheim@db.example.com/app"), 2, 3)
    assert told.endswith("make one first: as you do for this database (PostgreSQL: pg_dump)")


def test_prune_refuses_an_older_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the backup and the migrate command."""
    make_older(folder / "app.db")
    capsys.readouterr()
    assert main(["prune", "app:auth"]) == 1
    assert capsys.readouterr().err == (
        "error: store: the database has schema 2, this version needs 3: make a backup, then run python -m asgi_auth "
        "migrate\n"
    )


def test_prune_prints_the_number_of_deleted_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row of an expired session is deleted and counted."""

    async def sign_up_long_ago() -> None:
        auth = make_auth(folder, clock=lambda: datetime.now(UTC) - timedelta(days=60))
        await register(auth)
        await auth.close()

    asyncio.run(sign_up_long_ago())

    assert main(["prune", "app:auth"]) == 0
    assert capsys.readouterr().out == "deleted 1 rows\n"


def test_prune_reports_that_a_part_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1 and the error names the database."""
    main(["migrate", "app:auth"])
    with closing(sqlite3.connect(folder / "app.db")) as connection, connection:
        connection.execute("ALTER TABLE asgi_auth_tokens RENAME TO gone")

    assert main(["prune", "app:auth"]) == 1
    assert f"error: the database does not answer (sqlite: SQLITE_ERROR: {folder}/app.db)" in capsys.readouterr().err


def test_prune_of_a_wrong_path_creates_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the wrong path; the command creates no database there."""
    before = sorted(path.name for path in folder.iterdir())
    assert main(["prune", "app:auth"]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err == (
        f"error: store: {folder}/app.db does not exist or lacks tables of the library; none was created\n"
    )
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_database_with_an_unknown_schema_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that opens the database reports an unknown schema in one line."""
    main(["migrate", "app:auth"])
    set_schema(folder / "app.db", 99)
    capsys.readouterr()

    assert [main([command, "app:auth"]) for command in ("prune", "migrate", "doctor")] == [1, 1, 1]
    answer = capsys.readouterr()
    assert answer.err.count("error: store: the schema of the database (99) is not one of") == 2
    assert "unsafe: store: the schema of the database (99) is not one of" in answer.out


def set_schema(path: Path, version: int) -> None:
    """Pretend that another version of the package created the database."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE asgi_auth_schema SET version = ?", (version,))


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_exits_with_0_if_nothing_is_unsafe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 0 if there is only advice, and 1 if something is unsafe."""
    (folder / "good.py").write_text("from pathlib import Path\nfrom tests.test_doctor import good_auth\n"
                                    "auth = good_auth(Path(__file__).parent)\n", "utf-8")  # fmt: skip

    assert main(["doctor", "good:auth"]) == 0
    assert capsys.readouterr().out.endswith("nothing unsafe was found\n")
    assert main(["doctor", "app:auth"]) == 1
    assert capsys.readouterr().out.endswith("3 unsafe\n")
