"""The repository: equal versions, shipped types, no names of machines in files."""

import os
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest
from coverage import Coverage

from tests.conftest import fail_skipped, keep_coverage

ROOT = Path(__file__).parent.parent
IGNORED = [".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split())]
FOREIGN = re.compile(
    r"(?<![\w.])/(?:home|root|work|Users)/\w"  # a path of one machine
    r"|\b(?:pypi|pythonhosted|npmjs|debian)\.(?:org|com)\b|\bindex[-_]url\b",  # a package registry
)

REWRITING = re.compile(r"<[^<>]*\btype\s*=\s*[\"']?email\b|FormField\([^()]*\btype=[\"']email", re.IGNORECASE)


def kept(name: str) -> bool:
    """Whether .gitignore does not match this name of a file or folder."""
    return not any(fnmatch(name, pattern) for pattern in IGNORED)


def project_files() -> Iterator[Path]:
    """Every file that .gitignore does not exclude, found without git."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = filter(kept, folders)
        yield from (Path(folder, name) for name in filter(kept, names))


def test_version_is_the_newest_of_the_changelog() -> None:
    """The newest version in the changelog is the one in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    headings = re.findall(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert headings[0] == project["version"]


def test_readme_of_the_findings_lists_every_script() -> None:
    """The table lists every script and no other file."""
    listed = re.findall(r"^\| \[`([^`]+)`\]\(\1\)", (ROOT / "findings" / "README.md").read_text("utf-8"), re.MULTILINE)

    assert sorted(listed) == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))


def test_package_ships_its_types() -> None:
    """The imported package has py.typed; `tox -m everywhere` imports the wheel."""
    assert files("asgi_auth").joinpath("py.typed").is_file()


def test_readme_has_the_command_of_ci() -> None:
    """README and tox.ini contain the command in the last line of .ci/run."""
    *_, command = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()

    assert f"\n$ {command}\n" in (ROOT / "README.md").read_text("utf-8")
    assert f"  {command}\n" in (ROOT / "tox.ini").read_text("utf-8")


def test_files_name_no_machine_and_no_registry() -> None:
    """No committed file contains a path of one machine or the host of a package registry."""
    found = [
        (path.relative_to(ROOT).as_posix(), match.group())
        for path in project_files()
        for match in FOREIGN.finditer(path.read_text("utf-8", errors="replace"))
    ]

    assert found == []


def test_no_form_has_the_type_email() -> None:
    """AC-6: pages, demo, documentation and examples have no ``type="email"``: browsers change the domain."""
    folders = {ROOT / name for name in ("docs", "examples", "benchmarks")}
    package = Path(str(files("asgi_auth")))  # in the tests of the wheel it is elsewhere
    written = [path for path in project_files() if path == ROOT / "README.md" or folders & set(path.parents)]
    shown = [*written, *package.rglob("*.py")]
    found = [f"{path.name}: {match.group()}" for path in shown for match in REWRITING.finditer(path.read_text("utf-8"))]

    assert len(shown) > 150
    assert found == []


@pytest.mark.parametrize(
    "text", ['<input type="email">', "<input name=a TYPE = email>", "<input type='email'>", 'FormField(type="email")']
)
def test_rewriting_finds_every_spelling(text: str) -> None:
    """The pattern finds every spelling of the type."""
    assert REWRITING.search(text)


@pytest.mark.parametrize(
    ("joint", "parts"),
    [
        ("/", ("see ", "home", "alice", "notes")),
        ("/", ("", "work", "main")),
        (".", ("https://files", "pythonhosted", "org/packages")),
        ("-", ("", "", "index", "url=x")),
    ],
)
def test_foreign_finds_machines_and_registries(joint: str, parts: tuple[str, ...]) -> None:
    """The pattern finds each example; the examples are split so that this file does not match."""
    assert FOREIGN.search(joint.join(parts))


@pytest.mark.parametrize(
    ("environment", "outcome"), [({}, "skipped"), ({"ASGI_AUTH_REQUIRE_ALL": "1"}, "failed")], ids=["lenient", "strict"]
)
def test_skip_is_a_failure_if_all_tests_are_required(environment: dict[str, str], outcome: str) -> None:
    """A test that skips because there is no browser fails under .ci/run."""
    report = pytest.TestReport("t", ("t", 1, "t"), {}, "skipped", "no browser", "setup")

    fail_skipped(report, environment)

    assert report.outcome == outcome


def test_coverage_is_saved_if_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker saves its measured coverage before it ends."""
    kept: list[Coverage] = []
    monkeypatch.setattr(Coverage, "save", lambda measured: kept.append(measured))
    measured = Coverage()

    keep_coverage(None)
    keep_coverage(measured)

    assert kept == [measured]
