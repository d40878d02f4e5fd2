"""Settings of all tests: the event loop, the number of property examples, and no skips where all tests must run."""

import os
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from hypothesis import settings

from asgi_auth.runtime.jobs import Jobs
from tests.postgres import database
from tests.support import PATIENCE, LocalAuthentication, make_auth
from tests.workers import CACHED, DSN, SESSION_CACHE, OnPostgres, OnSQLite

# The same examples in every run: a failure is reproducible. `ci` repeats the properties on other Python versions.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("ci", settings.get_profile("default"), max_examples=20)
settings.load_profile("default")


@pytest.fixture
def anyio_backend() -> str:
    """Asyncio: the database drivers support no other event loop."""
    return "asyncio"


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An ``Authentication`` with the defaults of the tests; its first use opens it, the fixture closes it."""
    auth = make_auth(tmp_path)
    yield auth
    await auth.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def shared(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OnSQLite | OnPostgres]:
    """An empty database; ``store_of_all`` finds it in worker processes that are started in ``tmp_path``."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            yield OnSQLite(tmp_path)
        else:
            dsn = await stack.enter_async_context(database())
            monkeypatch.setenv(DSN, dsn)
            if request.param == "cached":
                monkeypatch.setenv(SESSION_CACHE, "1")
                yield OnPostgres(dsn, CACHED)
            else:
                yield OnPostgres(dsn)


def fail_skipped(
    report: pytest.TestReport | pytest.CollectReport, environment: dict[str, str] | os._Environ[str] = os.environ
) -> None:
    """Turn a skip into a failure if ``ASGI_AUTH_REQUIRE_ALL`` is set: a test's requirements must be installed."""
    if environment.get("ASGI_AUTH_REQUIRE_ALL") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped, but ASGI_AUTH_REQUIRE_ALL is set: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Turn the skip of a test into a failure."""
    report = yield
    fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Turn the skip of a module into a failure."""
    report = yield
    fail_skipped(report)
    return report


def keep_coverage(measured: Coverage | None) -> None:
    """Save the coverage measured so far; None: coverage is not measured."""
    if measured is not None:
        measured.save()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Save coverage early: pytest-xdist kills a worker that takes ten seconds to end."""
    keep_coverage(Coverage.current())


@pytest.fixture(autouse=True, scope="session")
def patient() -> None:
    """A request waits for its mail even if the machine is busy."""
    Jobs.patience = timedelta(seconds=PATIENCE)
