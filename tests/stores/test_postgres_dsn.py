"""The parameters of a DSN: accepted, translated, or rejected by name. Some tests ask a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.stores import PostgresStore
from asgi_auth.stores.postgres_dsn import Address, read_dsn
from tests.postgres import database
from tests.stores.caching import Relay

HOST = "postgresql://app:hunter2@db.example.com/app"
TCP = socket.IPPROTO_TCP


def read(query: str) -> Address:
    """Read a DSN with these parameters."""
    return read_dsn("dsn", f"{HOST}?{query}")


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require",
        "sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "sslmode=require&sslnegotiation=direct",
        "target_session_attrs=read-write&application_name=app",
        "options=endpoint%3Dep-cool-darkness",
        "options=-c+statement_timeout%3D5s+--cluster%3Done",
        "passfile=/run/pgpass&service=app&krbsrvname=postgres",
    ],
)
def test_dsn_passes_supported_parameters_to_asyncpg(query: str) -> None:
    """Parameters that asyncpg supports, as hosting companies use them, are passed on unchanged."""
    address = read(query)
    assert address.dsn == f"{HOST}?{query.replace('/', '%2F')}"
    assert (address.connect_seconds, address.behind_pooler, address.system_roots) == (None, False, False)
    assert address.socket_options == ()


@pytest.mark.parametrize(
    "query",
    [
        *("channel_binding=prefer", "channel_binding=disable", "gssencmode=prefer", "gssencmode=disable"),
        *("sslcompression=0", "sslsni=1", "sslcertmode=allow", "gssdelegation=0", "load_balance_hosts=disable"),
        *("client_encoding=utf8", "client_encoding=UTF-8", "min_protocol_version=3.0", "max_protocol_version=latest"),
    ],
)
def test_dsn_drops_parameters_without_effect(query: str) -> None:
    """A parameter is dropped if its value asks only for the default behaviour of asyncpg."""
    assert read(f"{query}&sslmode=require").dsn == f"{HOST}?sslmode=require"
    assert read(query).dsn == HOST


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("channel_binding=require", "dsn: channel_binding asks for .* leave it out, and give sslmode=verify-full"),
        ("gssencmode=require", "dsn: gssencmode asks for .* encrypt by TLS with sslmode"),
        ("client_encoding=LATIN1", "dsn: client_encoding must be UTF8"),
        ("load_balance_hosts=random", "dsn: load_balance_hosts is not supported by asyncpg"),
        ("sslsni=0", "dsn: sslsni is not supported"),
        ("sslcompression=1", "dsn: sslcompression is not supported"),
        ("sslcertmode=require", "dsn: sslcertmode is not supported"),
        ("max_protocol_version=3.2", "dsn: max_protocol_version is not supported"),
        ("require_auth=scram-sha-256", "dsn: require_auth is not supported"),
        ("requirepeer=postgres", "dsn: requirepeer is not supported"),
        ("replication=database", "dsn: replication makes no connection for statements"),
        ("hostaddr=192.0.2.1", "dsn: hostaddr is not supported by asyncpg: give the address as host"),
        ("requiressl=1", "dsn: requiressl is not supported by asyncpg: use sslmode=require"),
        ("ssl=true", "dsn: ssl is a parameter of another client: use sslmode"),
        ("schema=public", "dsn: schema is a parameter of another client: use search_path"),
        ("pgbouncer=true&connection_limit=1", "dsn: connection_limit .* use max_connections of PostgresStore"),
        ("pool_timeout=3", "dsn: pool_timeout .* use timeout of PostgresStore"),
        ("prepared_statements=false", "dsn: prepared_statements .* use statement_cache_size of PostgresStore"),
        ("pgbouncer=hunter3", "dsn: pgbouncer must be one of true, false"),
        ("sslmode=hunter3", "dsn: sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("target_session_attrs=hunter3", "dsn: target_session_attrs must be one of any, primary"),
        ("sslnegotiation=hunter3", "dsn: sslnegotiation must be one of postgres, direct"),
        ("keepalives=yes", "dsn: keepalives must be one of 0, 1"),
        ("connect_timeout=hunter3", "dsn: connect_timeout must be a whole number"),
        ("keepalives_idle=%D9%A1", "dsn: keepalives_idle must be a whole number"),
        ("sslrootcert=system", "dsn: sslrootcert=system needs sslmode=verify-full"),
        ("sslrootcert=system&sslmode=require", "dsn: sslrootcert=system needs sslmode=verify-full"),
        ("sslrootcert=system&sslmode=verify-full&sslcert=a", "sslcert cannot be combined with sslrootcert=system"),
        ("hunter3", "dsn cannot be read"),
    ],
)
def test_dsn_rejects_unsupported_parameters_by_name(query: str, message: str) -> None:
    """The constructor raises. The message names the parameter and the remedy, and quotes no value."""
    with pytest.raises(ConfigurationError, match=f"PostgresStore: .*{message}") as error:
        PostgresStore(f"{HOST}?{query}")
    assert "hunter" not in str(error.value)


def test_dsn_error_names_the_option() -> None:
    """``listen_dsn`` is read in the same way, and the message names it."""
    with pytest.raises(ConfigurationError, match="PostgresStore: listen_dsn: channel_binding"):
        PostgresStore(HOST, session_cache=timedelta(seconds=9), listen_dsn=f"{HOST}?channel_binding=require")
    with pytest.raises(ConfigurationError, match="PostgresStore: listen_dsn must begin with"):
        PostgresStore(HOST, session_cache=timedelta(seconds=9), listen_dsn="db.example.com")


@pytest.mark.parametrize(("value", "seconds"), [("10", 10.0), ("1", 1.0), ("0", None), ("-1", None)])
def test_dsn_translates_connect_timeout(value: str, seconds: float | None) -> None:
    """The value is in seconds. 0 or a negative number sets no limit."""
    address = read(f"connect_timeout={value}")
    assert (address.dsn, address.connect_seconds) == (HOST, seconds)


@pytest.mark.parametrize(("query", "size"), [("pgbouncer=true", 0), ("pgbouncer=false", 50), ("sslmode=require", 50)])
def test_dsn_translates_pgbouncer(query: str, size: int) -> None:
    """With ``pgbouncer=true`` no prepared statement is cached, even if ``statement_cache_size`` is given."""
    store = PostgresStore(f"{HOST}?{query}", statement_cache_size=50)
    assert store._database._settings.statement_cache_size == size
    assert "pgbouncer" not in read(query).dsn


@pytest.mark.parametrize(
    ("query", "dsn"),
    [
        ("fallback_application_name=a", f"{HOST}?application_name=a"),
        ("fallback_application_name=a&application_name=b", f"{HOST}?application_name=b"),
    ],
)
def test_dsn_translates_fallback_application_name(query: str, dsn: str) -> None:
    """It becomes ``application_name``, unless that is given too."""
    assert read(query).dsn == dsn


KEEP_ALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has not all of these options")
@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("keepalives=1", (KEEP_ALIVE,)),
        (
            "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5",
            (KEEP_ALIVE, (TCP, socket.TCP_KEEPIDLE, 30), (TCP, socket.TCP_KEEPINTVL, 10), (TCP, socket.TCP_KEEPCNT, 5)),
        ),
        ("keepalives_idle=30", (KEEP_ALIVE, (TCP, socket.TCP_KEEPIDLE, 30))),
        ("keepalives_idle=0", (KEEP_ALIVE,)),
        ("keepalives=0&keepalives_idle=30", ()),
        ("tcp_user_timeout=5000", ((TCP, getattr(socket, "TCP_USER_TIMEOUT", 0), 5000),)),
    ],
)
def test_dsn_translates_keepalives(query: str, options: tuple[Any, ...]) -> None:
    """The parameters become options of the TCP socket. Without them no option is set."""
    address = read(query)
    assert (address.dsn, address.socket_options) == (HOST, options)


def test_dsn_rejects_an_option_that_the_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keepalive option that the system does not support is an error, because it would have no effect."""
    monkeypatch.delattr(socket, "TCP_KEEPCNT")
    with pytest.raises(ConfigurationError, match="keepalives_count is not supported by this system"):
        read("keepalives_count=3")


def test_dsn_is_in_no_repr() -> None:
    """TK-17: the DSN contains a password and may name files, so no repr shows it."""
    assert "hunter2" not in repr(read("sslcert=hunter2&sslmode=require"))


# --- at the start, with a real server ---------------------------------------------------------------------------------


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """The address of an empty database."""
    async with database() as address:
        yield address


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("hunter=hunter2", r"the server refuses hunter \(UndefinedObjectError\)"),
        ("statement_timeout=hunter2", r"the server refuses statement_timeout \(InvalidParameterValueError\)"),
        ("shared_buffers=4MB", r"the server refuses shared_buffers \(CantChangeRuntimeParamError\)"),
        ("options=-c%20hunted%3Dhunter2", r"the server refuses hunted \(UndefinedObjectError\)"),
        ("options=endpoint%3Dhunter2", r"the server refuses endpoint \(PostgresSyntaxError\)"),
        ("role=hunter2", r"the server refuses role \(InvalidParameterValueError\)"),
        ("sslmode=require&sslrootcert=/hunter2&host=127.0.0.1", "the file of sslrootcert cannot be read"),
        ("sslmode=verify-full&host=127.0.0.1", "sslmode=verify-… needs sslrootcert"),
    ],
)
async def test_dsn_setting_that_the_server_rejects_fails_the_start(
    dsn: str, query: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If the server rejects a setting, opening the store raises ConfigurationError, not StoreUnavailableError."""
    monkeypatch.setenv("HOME", str(tmp_path))  # a directory without certificates
    with pytest.raises(ConfigurationError, match=message) as error:
        await PostgresStore(f"{dsn}&{query}").open()
    assert "hunter2" not in str(error.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "setting", ["application_name=a", "statement_timeout=9s", "my.own=x", "options=-c%20jit%3Doff"]
)
async def test_dsn_settings_of_the_server_are_accepted(dsn: str, setting: str) -> None:
    """Settings that the server supports apply to each connection, also beside parameters for other clients."""
    others = "channel_binding=prefer&gssencmode=disable&connect_timeout=10&keepalives=1&pgbouncer=true"
    store = PostgresStore(f"{dsn}&{setting}&{others}")
    async with store.scope("user").transaction() as work:
        name, _, value = setting.removeprefix("options=-c%20").replace("%3D", "=").partition("=")
        assert await work.connection.fetchval("SELECT current_setting($1)", name) == value
    await store.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.ProtocolViolationError("unsupported startup parameter: search_path"), ConfigurationError),
        (asyncpg.ProtocolViolationError("server conn crashed?"), StoreUnavailableError),
        (asyncpg.InsufficientPrivilegeError('permission denied for database "app"'), StoreUnavailableError),
        (asyncpg.InvalidCatalogNameError('database "search_path" does not exist'), StoreUnavailableError),
    ],
    ids=["a pooler", "its server", "no right", "no database"],
)
async def test_dsn_error_without_a_setting_is_unavailable(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that names no setting of the DSN may be temporary: the store raises StoreUnavailableError."""

    async def connect(_: str, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(asyncpg, "connect", connect)
    with pytest.raises(kind):
        await PostgresStore(f"{HOST}?search_path=a").open()


@pytest.mark.anyio
async def test_dsn_keeps_tcp_connections_alive(dsn: str) -> None:
    """The keepalive options are set on the socket."""
    async with Relay(dsn).running() as relay:
        store = PostgresStore(f"{relay.dsn}&keepalives=1&keepalives_idle=77")
        async with store.scope("user").transaction() as work:
            sock = work.connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(TCP, socket.TCP_KEEPIDLE) == 77
        await store.close()


@pytest.mark.anyio
async def test_dsn_connect_timeout_limits_opening_a_connection(dsn: str) -> None:
    """``connect_timeout`` limits opening a connection in addition to ``timeout``, and never raises that limit."""
    async with Relay(dsn).running() as relay:
        relay.swallow()
        store = PostgresStore(f"{relay.dsn}&connect_timeout=1", timeout=timedelta(seconds=30))
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            await store.open()
        assert asyncio.get_running_loop().time() - began < 20


@pytest.mark.anyio
async def test_dsn_with_system_roots_checks_the_host_name(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sslrootcert=system`` is a value of libpq; asyncpg would look for a file of that name."""
    seen: list[dict[str, Any]] = []

    async def connect(address: str, **options: Any) -> Any:
        seen.append({"dsn": address, **options})
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncpg, "connect", connect)
    with pytest.raises(StoreUnavailableError):
        await PostgresStore(f"{HOST}?sslmode=verify-full&sslrootcert=system&search_path=a").open()
    [options] = seen
    assert options["dsn"] == f"{HOST}?search_path=a"
    assert options["ssl"].check_hostname
