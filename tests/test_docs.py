"""The README and docs/: every code block runs; every option, phase, error code, command and name has an entry.

Conventions: the ``python`` blocks of a page run from top to bottom in one namespace and in an empty directory;
top-level ``await`` is allowed. ``python fragment`` is only compiled. A block whose first line is ``# name.py`` becomes
a file in that directory; pytest runs the files called ``test_….py``.
"""

import argparse
import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import pytest

import asgi_auth
from asgi_auth import (
    Authentication,
    AuthError,
    AuthPlug,
    Bcrypt,
    Hook,
    Limits,
    PasswordPolicy,
    SessionOptions,
    add_ons,
    require,
    senders,
    stores,
    strategies,
    testing,
)
from asgi_auth import __main__ as command_line
from asgi_auth.add_ons import Confirmation, Invitation
from asgi_auth.errors import Cause
from asgi_auth.events import Event
from asgi_auth.phases import Outcome
from asgi_auth.senders import MemorySender, SMTPSender
from asgi_auth.stores import PostgresStore, SQLAlchemyStore, SQLiteStore
from asgi_auth.strategies import Password, Resettable
from tests.servers import uvicorn_process
from tests.support import SECRET, make_auth

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# (\w+\.py)\n")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def is_slow(page: Path) -> bool:
    """Whether the page requires a separate pytest run."""
    return "```python\n# test_" in page.read_text("utf-8")


# --- reading pages ---------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block."""

    info: str
    code: str
    line: int
    """The line where the code begins, counted from 1."""


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a page in this language."""
    text = page.read_text("utf-8")
    found = (Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1) for match in _FENCE.finditer(text))
    return [block for block in found if block.info.split()[:1] == [language]]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def _is_row(line: str) -> bool:
    return line.startswith("|")


def rows(page: str, heading: str, header: str) -> list[list[str]]:
    """The cells of the first table below *heading* with *header* as its first column."""
    text = (DOCS / page).read_text("utf-8").split(f"{heading}\n", 1)[1]
    lines = iter(text.splitlines())
    next(line for line in lines if line.startswith(f"| {header} |"))
    next(lines)
    return [list(map(str.strip, line.strip("|").split(" | "))) for line in takewhile(_is_row, lines)]


def entries(page: str, heading: str, header: str) -> list[str]:
    """The names in backticks in the first column of a table, up to a parenthesis."""
    return [re.findall(r"`(?:await )?([\w.]+)", row[0])[0] for row in rows(page, heading, header)]


def names(page: str, heading: str, header: str) -> list[str]:
    """The first column of a table, without the backticks."""
    return [row[0].strip("`") for row in rows(page, heading, header)]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub builds it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- code ------------------------------------------------------------------------------------------------------------


def compiled(page: Path, block: Block) -> Any:
    """The code object of a block, with the line numbers of the page."""
    tree = ast.parse("\n" * (block.line - 1) + block.code, str(page))
    return compile(tree, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run_blocks(page: Path, directory: Path) -> None:
    """Run the blocks of a page; blocks with a file name are written to *directory*."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        code = compiled(page, block)
        if "fragment" in block.info.split():
            continue
        if file_name := _FILE_NAME.match(block.code):
            (directory / file_name[1]).write_text(block.code, "utf-8")
            continue
        result = eval(code, namespace)  # noqa: S307  # the project's own pages
        if inspect.isawaitable(result):
            await result


async def run_pytest(directory: Path) -> None:
    """Run the tests in a directory, without other configuration."""
    (directory / "pytest.ini").write_text("[pytest]\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        cwd=directory,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=PIPE,
        stderr=STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * is_slow(page)) for page in PAGES]
)
async def test_docs_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of every page runs, including its tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTH_SECRET", SECRET)
    await run_blocks(page, tmp_path)
    if is_slow(page):
        await run_pytest(tmp_path)


@every_page
def test_docs_json_is_json(page: Path) -> None:
    """Every JSON block can be parsed."""
    for block in blocks(page, "json"):
        json.loads(block.code)


# --- the README ------------------------------------------------------------------------------------------------------


def test_readme_quickstart_is_the_example() -> None:
    """The first block is identical to examples/quickstart.py."""
    assert blocks(README, "python")[0].code == (ROOT / "examples" / "quickstart.py").read_text("utf-8")


class Curl(NamedTuple):
    """A curl command of the README."""

    line: int
    url: str
    method: str
    headers: dict[str, str]
    body: str
    keeps_cookies: bool


def read_curl(block: Block) -> Iterator[Curl]:
    """The curl commands of a block; an option that this parser does not know is an error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", action="store_true")
    for flag in ("-b", "-c", "-X"):
        parser.add_argument(flag)
    for flag in ("-d", "-H"):
        parser.add_argument(flag, action="append", default=[])
    parser.add_argument("url")
    lines = block.code.replace("\\\n", " ").splitlines()
    for line in (line for line in lines if line.startswith("$ curl ")):
        given = parser.parse_args(shlex.split(line, comments=True)[2:])
        headers = dict(header.split(": ") for header in given.H)
        if given.d:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        method = given.X or ("POST" if given.d else "GET")
        keeps_cookies = given.b is not None or given.c is not None
        yield Curl(block.line, given.url, method, headers, "&".join(given.d), keeps_cookies)


@pytest.mark.anyio
@pytest.mark.slow
async def test_readme_curl_commands_give_the_documented_answers(tmp_path: Path) -> None:
    """The quickstart, changed for scripts and started as documented, gives the documented answers."""
    quickstart, for_scripts, *_ = (block.code for block in blocks(README, "python"))
    code = re.sub(r"^class AppAuth.*?\n\n", lambda _: f"{for_scripts}\n", quickstart, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "quickstart.py").write_text(code, "utf-8")
    commands = [command for block in blocks(README, "console") for command in read_curl(block)]
    answers: list[httpx.Response] = []
    async with (
        uvicorn_process("quickstart:app", directory=tmp_path) as served,
        served.client() as browser,
        served.client() as script,
    ):
        for command in commands:
            client = browser if command.keeps_cookies else script
            path = command.url.removeprefix("localhost:8000")
            shown = answers[-1].json().get("token", "") if "$TOKEN" in str(command.headers) else ""
            headers = {name: value.replace("$TOKEN", shown) for name, value in command.headers.items()}
            answers.append(await client.request(command.method, path, headers=headers, content=command.body))
        token = await served.printed_after("http://localhost:8000/auth/password/reset?reset_token=")
        after = await browser.get("/me")

    statuses = [(answer.request.url.path, answer.status_code) for answer in answers]
    assert statuses == [
        ("/auth/password/register", 303),
        ("/me", 200),
        ("/auth/password/reset_request", 200),
        ("/auth/sign_out", 200),
        ("/auth/password/sign_in", 200),
        ("/me", 200),
    ]
    assert answers[-1].text == answers[1].text
    assert answers[1].text == '{"email":"ada@mail.example.org"}'
    assert answers[1].text in README.read_text("utf-8")
    assert len(token) == 43
    assert after.status_code == 403  # the answer of Starlette's @requires to an anonymous user


@pytest.mark.anyio
@pytest.mark.slow
async def test_readme_script_runs_beside_the_quickstart(tmp_path: Path) -> None:
    """The script in "Without HTTP" runs unchanged, and runs a second time."""
    quickstart, *others = (block.code for block in blocks(README, "python"))
    (script,) = (code for code in others if code.startswith("# without_http.py\n"))
    (tmp_path / "quickstart.py").write_text(quickstart, "utf-8")
    (tmp_path / "without_http.py").write_text(script, "utf-8")
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "without_http.py"),
            cwd=tmp_path,
            env=os.environ | {"AUTH_SECRET": SECRET, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=PIPE,
            stderr=STDOUT,
        )
        output, _ = await process.communicate()

        assert process.returncode == 0, output.decode()
        assert output.decode().startswith("bob@mail.example.org is signed in since ")


# --- entries ---------------------------------------------------------------------------------------------------------


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters, in order."""
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("page", "heading", "header", "function"),
    [
        pytest.param(page, heading, header, function, id=function.__name__)
        for page, heading, header, function in (
            ("strategies/password.md", "### Password", "option", Password),
            ("strategies/password.md", "### Resettable", "option", Resettable),
            ("strategies/password.md", "## PasswordPolicy", "option", PasswordPolicy),
            ("add_ons/confirmation.md", "## Options", "option", Confirmation),
            ("add_ons/invitation.md", "## Options", "option", Invitation),
            ("strategies/password.md", "## Bcrypt", "option", Bcrypt),
            ("configuration.md", "## Authentication", "parameter", Authentication),
            ("configuration.md", "## SessionOptions", "option", SessionOptions),
            ("configuration.md", "## Limits", "limit", Limits),
            ("stores.md", "## SQLiteStore", "option", SQLiteStore),
            ("postgres.md", "# PostgreSQL", "option", PostgresStore),
            ("own_models.md", "## SQLAlchemyStore", "option", SQLAlchemyStore),
            ("senders.md", "## SMTPSender", "option", SMTPSender),
            ("middleware.md", "## require", "argument", require),
        )
    ],
)
def test_docs_have_every_option(page: str, heading: str, header: str, function: Callable[..., Any]) -> None:
    """The table has one row for each parameter, in the order of the signature, and no other row."""
    assert entries(page, heading, header) == parameters(function)


def test_docs_have_every_phase(tmp_path: Path) -> None:
    """The table of phases has exactly the phases of the strategy."""
    phases = [phase for strategy, phase in make_auth(tmp_path).routes if strategy == "password"]
    assert entries("strategies/password.md", "## Phases", "phase") == phases


@pytest.mark.parametrize("add_on", [Confirmation(sender=MemorySender()), Invitation(sender=MemorySender())])
def test_docs_have_every_phase_of_an_add_on(tmp_path: Path, add_on: Confirmation | Invitation) -> None:
    """The table of phases has exactly the phases of the add-on."""
    phases = [phase for name, phase in make_auth(tmp_path, add_ons=[add_on]).routes if name == add_on.name]
    assert entries(f"add_ons/{add_on.name}.md", "## Phases", "phase") == phases


def errors(root: type[AuthError]) -> Iterator[tuple[str, str, str]]:
    """The code, status and class of an error and all its subclasses."""
    yield f"`{root.code}`", str(root.status), f"`{root.__name__}`"
    for error in root.__subclasses__():
        if error.__module__ == "asgi_auth.errors":
            yield from errors(error)


def test_docs_have_every_error() -> None:
    """The table has the code, the status and the class of every error, and no other row."""
    documented = [tuple(row[:3]) for row in rows("errors.md", "## Codes", "code")]
    assert len(documented) == len(set(documented))
    assert set(documented) == set(errors(AuthError))


def test_docs_have_every_cause() -> None:
    """The table has every cause that an event may have."""
    assert entries("errors.md", "## Causes", "cause") == list(get_args(Cause))


def test_docs_have_every_command_and_its_options() -> None:
    """The page has the same commands and options as ``--help``."""
    actions = command_line._parser()._actions
    commands = next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))
    assert [row[0] for row in rows("command_line.md", "# Command line", "command")] == [
        f"`{name}`" for name in commands
    ]
    for name, parser in commands.items():
        options = [action.option_strings[0] for action in parser._actions[1:] if action.option_strings]  # after --help
        documented = names("command_line.md", f"## {name}", "option") if options else []
        assert documented == options, name


def test_docs_have_every_public_name() -> None:
    """The index has every public name and no other."""
    assert sorted(entries("index.md", "## Public names", "name")) == sorted(asgi_auth.__all__)
    below = "What the packages below it have:"
    parts = (strategies, add_ons, stores, senders, testing)
    below_it = [f"{part.__name__}.{name}" for part in parts for name in part.__all__]
    assert sorted(entries("index.md", below, "name")) == sorted(below_it)


def test_docs_have_every_callback_and_helper_of_the_plug() -> None:
    """Every method that a subclass may override or call has a row."""
    documented = entries("plug.md", "## Callbacks", "callback") + entries("plug.md", "## Helpers", "helper")
    methods = [name for name in vars(AuthPlug) if inspect.isfunction(vars(AuthPlug)[name]) and name[0] != "_"]
    assert sorted(documented) == sorted(methods)


def test_docs_have_every_member_of_a_hook() -> None:
    """Every member that an add-on may override has a row."""
    assert entries("hooks.md", "# Hooks", "member") == [name for name in vars(Hook) if name[0] != "_"]


def test_docs_have_every_event_and_outcome() -> None:
    """The tables have every event of hooks and every outcome of actions."""
    events = [name for row in rows("hooks.md", "## Events", "event") for name in re.findall(r"\w+", row[0])]
    defined = {kind.__name__ for kind in Event.__subclasses__() if kind.__module__ == Event.__module__}
    assert sorted(events) == sorted(defined)
    outcomes = entries("hooks.md", "## A strategy of your own", "outcome")
    assert sorted(outcomes) == sorted(outcome.__name__ for outcome in get_args(Outcome))


def test_docs_have_every_page() -> None:
    """The index links to every other page."""
    linked = {
        (DOCS / target).resolve() for target in re.findall(r"^\| \[[^]]*\]\(([^)#]+)\)", prose(DOCS / "index.md"), re.M)
    }
    assert linked == {page for page in PAGES if page not in (README, DOCS / "index.md")}


@every_page
def test_docs_links_resolve(page: Path) -> None:
    """Every relative link names a file, and every fragment names a heading in it."""
    targets = re.findall(r"\]\(([^)]+)\)", prose(page))
    for target in (target for target in targets if "://" not in target):
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.+)$", prose(linked), re.MULTILINE)
        assert not fragment or fragment in map(slug, headings), target
