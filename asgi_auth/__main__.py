"""``python -m asgi_auth``: demo, secret, create-user, migrate, prune, doctor.

The exit status is 0 for success, 1 if there is a problem or an error, 2 if the command line is invalid.
"""

import argparse
import asyncio
import re
import shlex
import sys
import warnings
from collections.abc import Awaitable, Callable, Sequence
from getpass import GetPassWarning, getpass
from importlib import import_module, metadata
from operator import attrgetter
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn, TypeVar

from asgi_auth import demo, doctor
from asgi_auth.authentication import Authentication
from asgi_auth.errors import AuthError, ConfigurationError, UnavailableError
from asgi_auth.store import Store

T = TypeVar("T")

OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    Args:
        argv: The arguments after the program name; None: the arguments of the process.

    Raises:
        SystemExit: after ``--help`` and ``--version``, and if the command line is invalid.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except AuthError as exc:
        print(f"error: {_told(exc)}", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED


def _told(exc: Exception) -> str:
    """One line about an error, for the person who runs the command."""
    if not isinstance(exc, AuthError):
        text = f"{type(exc).__name__}: {exc}"
    elif exc.fields:
        text = "; ".join(f"{field}: {problem}" for field, problem in exc.fields.items())
    elif isinstance(exc, UnavailableError):
        text = f"the database does not answer ({exc.reason}); check where it is, its rights, and who else uses it"
    else:
        text = exc.reason
    return " ".join(text.split())


# --- commands --------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> int:
    def ready(url: str) -> None:
        print(f"The demo is at {url}")
        print(
            f"Its mails appear here. Accounts and secret are kept in {arguments.directory}. Ctrl-C ends it.", flush=True
        )

    demo.run(host=arguments.host, port=arguments.port, directory=arguments.directory, ready=ready)
    return OK


def _secret(_: argparse.Namespace) -> int:
    print(token_hex(32))  # base64 may by chance spell a word that `check_secret` takes for a placeholder
    return OK


def _create_user(arguments: argparse.Namespace) -> int:
    auth = _load(arguments.auth)
    fields = {name: getattr(arguments, name) for name in ("email", "username") if getattr(arguments, name) is not None}
    password = _read_password() if arguments.password_stdin else _ask_password()

    async def create() -> Any:
        return await auth.accounts.create(fields, password=password, confirmed=arguments.confirmed)

    print(f"created user {auth.accounts.user_id(_opened(auth, create))}")
    return OK


def _read_password() -> str:
    # The password policy rejects the result for bytes that are not UTF-8, with its own message.
    return sys.stdin.buffer.readline().rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _ask_password() -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", GetPassWarning)  # getpass would otherwise echo the password
            password = getpass("Password: ")
            again = getpass("Password, again: ")
    except (GetPassWarning, EOFError) as exc:
        raise ConfigurationError("there is no terminal to ask for the password on; use --password-stdin") from exc
    if password != again:
        raise ConfigurationError("the two passwords are not the same; nothing was created, try again")
    return password


def _migrate(arguments: argparse.Namespace) -> int:
    store = _load(arguments.auth).store

    async def migrate() -> tuple[int, int]:
        found, newest = await store.versions()
        if 0 < found < newest:  # no question: a deployment has no person to answer it
            print(_advice(store, found, newest), file=sys.stderr, flush=True)
        return await store.migrate()

    before, after = asyncio.run(migrate())
    print(f"schema {before} -> {after}")
    return OK


def _advice(store: Store[Any], found: int, newest: int) -> str:
    """The advice to print before the schema changes."""
    path = getattr(store, "path", None)
    command = "as you do for this database (PostgreSQL: pg_dump)"
    if path is not None:  # as in docs/stores.md: for the owner only, and never over another file
        command = f"""(umask 077; sqlite3 {shlex.quote(path)} "VACUUM INTO 'schema-{found}.db'")"""
    return (
        f"note: schema {found} becomes {newest}; only a backup leads back to the earlier release. "
        f"Stop the application, and make one first: {command}"
    )


def _prune(arguments: argparse.Namespace) -> int:
    auth = _load(arguments.auth)
    print(f"deleted {_closed_after(auth, auth.prune)} rows")
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    findings = asyncio.run(doctor.examine(_load(arguments.auth)))
    for finding in findings:
        print(finding)
    unsafe = sum(finding.unsafe for finding in findings)
    print(f"{unsafe} unsafe" if unsafe else "nothing unsafe was found")
    return PROBLEM if unsafe else OK


# --- the application -------------------------------------------------------------------------------------------------


def _load(spec: str) -> Authentication[Any]:
    """Import the ``Authentication`` that *spec* names. The current directory comes first.

    Raises:
        ConfigurationError: it cannot be imported, or it is another kind of object.
    """
    module, _, path = spec.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = attrgetter(path)(import_module(module))
    except Exception as exc:  # an application may raise anything while it is imported
        hint = f'python -c "import {module}" shows where'
        raise ConfigurationError(f"{spec} cannot be imported: {_told(exc)}; {hint}") from exc
    if not isinstance(found, Authentication):
        raise ConfigurationError(
            f"{spec} is a {type(found).__name__}; name the Authentication, for example {module}:auth"
        )
    return found


def _opened(auth: Authentication[Any], work: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        await auth.open()
        return await work()

    return _closed_after(auth, run)


def _closed_after(auth: Authentication[Any], work: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        try:
            return await work()
        finally:
            await auth.close()

    return asyncio.run(run())


# --- the command line ------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Prints the error of an invalid command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m asgi_auth",
        allow_abbrev=False,
        description="Authentication for ASGI applications: a demo, and what an operator needs.",
        epilog="module:auth names the Authentication of your application as uvicorn names the application itself: "
        "app:auth is the variable auth in app.py of the current directory. "
        "Exit status: 0 all is well, 1 a problem was found or something was refused, 2 the command line is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"asgi_auth {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add(commands, "secret", _secret, "print a fresh secret for Authentication(secret=...)")
    _add_create_user(commands)
    for name, run, text in (
        ("migrate", _migrate, "upgrade the database to the newest schema"),
        ("prune", _prune, "delete sessions and tokens that have expired"),
        ("doctor", _doctor, "list unsafe values of a configuration; the exit status is 1 if there are any"),
    ):
        _add_auth(_add(commands, name, run, text))
    return parser


def _version() -> str:
    try:
        return metadata.version("asgi-auth")
    except metadata.PackageNotFoundError:  # run from a copy of the repository
        return "(not installed)"


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    about = f"{text[0].upper()}{text[1:]}."
    # No abbreviations: --password is not --password-stdin, and no password belongs on a command line.
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=about, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_demo(commands: Any) -> None:
    command = _add(commands, "demo", _demo, "serve a small application with accounts, on this machine only")
    command.add_argument("--port", type=_port, default=8000, help="0 takes any that is free (default: 8000)")
    command.add_argument(
        "--host", default="127.0.0.1", help="a loopback address, localhost or a name below it (default: 127.0.0.1)"
    )
    command.add_argument(
        "--directory",
        type=Path,
        default=Path("asgi_auth_demo"),
        help="where the accounts and the secret are kept (default: ./asgi_auth_demo)",
    )


def _add_create_user(commands: Any) -> None:
    command = _add(commands, "create-user", _create_user, "create a user; asks for the password")
    _add_auth(command)
    command.add_argument("--email", help="the address of the user")
    command.add_argument("--username", help="the user name, where people sign in with one")
    command.add_argument("--confirmed", action="store_true", help="you vouch that the address is the user's")
    command.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input, one line"
    )


def _add_auth(command: argparse.ArgumentParser) -> None:
    command.add_argument("auth", metavar="module:auth", type=_spec, help="the Authentication, for example app:auth")


def _spec(text: str) -> str:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like app:auth")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
