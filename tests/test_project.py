"""The repository itself: versions that agree, types that ship, files that name no machine."""

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
    r"(?<![\w.])/(?:home|root|work|Users)/\w"  # a path of somebody's machine
    r"|\b(?:pypi|pythonhosted|npmjs|debian)\.(?:org|com)\b|\bindex[-_]url\b",  # where packages come from
)

REWRITING = re.compile(r"<[^<>]*\btype\s*=\s*[\"']?email\b|FormField\([^()]*\btype=[\"']email", re.IGNORECASE)


def kept(name: str) -> bool:
    """Whether .gitignore lets a file or folder of this name in."""
    return not any(fnmatch(name, pattern) for pattern in IGNORED)


def project_files() -> Iterator[Path]:
    """Every file that git keeps, found without git."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = filter(kept, folders)
        yield from (Path(folder, name) for name in filter(kept, names))


def test_version_is_the_newest_of_the_changelog() -> None:
    """The version lives in pyproject.toml; the changelog begins with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    headings = re.findall(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert headings[0] == project["version"]


def test_readme_of_the_findings_has_each_of_them() -> None:
    """The table has every script, and no other."""
    listed = re.findall(r"^\| \[`([^`]+)`\]\(\1\)", (ROOT / "findings" / "README.md").read_text("utf-8"), re.MULTILINE)

    assert sorted(listed) == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))


def test_package_ships_its_types() -> None:
    """py.typed is in what is imported; `tox -m everywhere` imports the wheel."""
    assert files("asgi_auth").joinpath("py.typed").is_file()


def test_readme_has_the_command_that_is_checked() -> None:
    """The command of the README, and of tox.ini, is the last line of .ci/run."""
    *_, command = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()

    assert f"\n$ {command}\n" in (ROOT / "README.md").read_text("utf-8")
    assert f"  {command}\n" in (ROOT / "tox.ini").read_text("utf-8")


def test_files_name_no_machine_and_no_registry() -> None:
    """Nothing that is committed holds a path of one machine or the host of a package registry."""
    found = [
        (path.relative_to(ROOT).as_posix(), match.group())
        for path in project_files()
        for match in FOREIGN.finditer(path.read_text("utf-8", errors="replace"))
    ]

    assert found == []


def test_nothing_asks_for_an_address_by_the_type_that_rewrites_it() -> None:
    """AC-6: pages, demo, documentation and examples have no form with ``type="email"``; browsers change the domain."""
    folders = {ROOT / name for name in ("docs", "examples", "benchmarks")}
    package = Path(str(files("asgi_auth")))  # which the tests of the wheel have elsewhere
    written = [path for path in project_files() if path == ROOT / "README.md" or folders & set(path.parents)]
    shown = [*written, *package.rglob("*.py")]
    found = [f"{path.name}: {match.group()}" for path in shown for match in REWRITING.finditer(path.read_text("utf-8"))]

    assert len(shown) > 150
    assert found == []


@pytest.mark.parametrize(
    "text", ['<input type="email">', "<input name=a TYPE = email>", "<input type='email'>", 'FormField(type="email")']
)
def test_rewriting_finds_every_spelling(text: str) -> None:
    """The pattern finds what it is for."""
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
    """The pattern finds what it is for; the examples stand here in parts, so that this file does not hold them."""
    assert FOREIGN.search(joint.join(parts))


@pytest.mark.parametrize(
    ("environment", "outcome"), [({}, "skipped"), ({"ASGI_AUTH_REQUIRE_ALL": "1"}, "failed")], ids=["lenient", "strict"]
)
def test_skip_is_a_failure_where_all_must_run(environment: dict[str, str], outcome: str) -> None:
    """A test that skips for want of a browser fails under .ci/run."""
    report = pytest.TestReport("t", ("t", 1, "t"), {}, "skipped", "no browser", "setup")

    fail_skipped(report, environment)

    assert report.outcome == outcome


def test_coverage_is_kept_if_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker has measured is written down before the worker ends."""
    kept: list[Coverage] = []
    monkeypatch.setattr(Coverage, "save", lambda measured: kept.append(measured))
    measured = Coverage()

    keep_coverage(None)
    keep_coverage(measured)

    assert kept == [measured]
