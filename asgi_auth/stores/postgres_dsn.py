"""The address of a PostgreSQL server. Each parameter is passed on, translated, or refused by name. No value is quoted.

asyncpg handles the parameters that it knows (libpq's documentation, "Parameter Key Words", has the meanings). It sends
others to the server as settings of the session, and the server would refuse every connection. Therefore this module
handles parameters of other clients. Any other name may be a setting of the server; the first connection shows it.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from asgi_auth.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address that asyncpg can read, and the parameters that asyncpg does not support.

    Attributes:
        option: The parameter of the store that has this address.
        dsn: The address without parameters that asyncpg does not know.
        connect_seconds: How long a connection may take, if that is limited.
        behind_pooler: Whether there is a pooler without prepared statements.
        system_roots: Whether the server's certificate is checked by the system's certificates and the name of the host.
        needs_roots: Whether the server's certificate is checked by a file that *dsn* does not name.
        socket_options: Options of TCP connections, as ``setsockopt`` takes them.
        settings: The names that are sent to the server as settings of the session.
        files: The files that are read for a connection, by their parameters.
    """

    option: str
    dsn: str = field(repr=False)
    connect_seconds: float | None = None
    behind_pooler: bool = False
    system_roots: bool = False
    needs_roots: bool = False
    socket_options: tuple[tuple[int, int, int], ...] = ()
    settings: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    def refused_setting(self, text: str) -> str | None:
        """The setting of this address that a server's error names."""
        words = re.findall(r"[\w.]+", text)
        return next((name for name in sorted(self.settings) if name in words), None)


def read_dsn(option: str, dsn: str) -> Address:
    """Read the address in the parameter *option*.

    Raises:
        ConfigurationError: the address is invalid, or a parameter is not supported; the message names it.
    """
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(f"PostgresStore: {option} must begin with postgresql://")
    try:
        parts = urlsplit(dsn)
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:  # its text may quote the address
        raise ConfigurationError(f"PostgresStore: {option} cannot be read") from None
    for name, value in given.items():
        if (reason := _reason_against(name, value)) is not None:
            raise ConfigurationError(f"PostgresStore: {option}: {name} {reason}")
    system_roots = given.get("sslrootcert") == "system"
    if system_roots:
        _check_system_roots(option, given)
    handled = _HANDLED | _TLS if system_roots else _HANDLED
    kept = {name: value for name, value in given.items() if name not in handled}
    if "fallback_application_name" in given:
        kept.setdefault("application_name", given["fallback_application_name"])
    timeout = int(given.get("connect_timeout", 0))
    return Address(
        option=option,
        dsn=parts._replace(query=urlencode(kept)).geturl(),
        connect_seconds=timeout if timeout > 0 else None,  # libpq: 0 or less means no limit
        behind_pooler=given.get("pgbouncer") == "true",
        system_roots=system_roots,
        needs_roots=kept.get("sslmode", "").startswith("verify-") and "sslrootcert" not in kept,
        socket_options=_socket_options(given),
        settings=frozenset(kept).difference(_OF_ASYNCPG).union(_named_in(kept.get("options", ""))),
        files={name: kept[name] for name in _FILES if name in kept},
    )


# --- what is known of each -------------------------------------------------------------------------------------------

_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
_TLS = frozenset({"sslmode", "sslrootcert"})
_CONTEXT = frozenset(
    {"sslcert", "sslkey", "sslcrl", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"}
)
_OF_ASYNCPG = frozenset({"service", "host", "port", "dbname", "database", "user", "password", "passfile", "sslmode",
                         "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version",
                         "target_session_attrs", "krbsrvname", "gsslib", *_FILES})  # fmt: skip

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
    "sslnegotiation": ("postgres", "direct"),
    "pgbouncer": ("true", "false"),
    "keepalives": ("0", "1"),
}

_SOCKET_OPTIONS: Mapping[str, str] = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
_NUMBERS = frozenset({"connect_timeout", *_SOCKET_OPTIONS})

_DONE_ANYWAY: Mapping[str, tuple[frozenset[str], str]] = {
    # The values that asyncpg supports, and the remedy for any other value.
    "channel_binding": (
        frozenset({"disable", "prefer"}),
        "asks for what asyncpg does not support: leave it out, and give sslmode=verify-full with sslrootcert, which "
        "keeps impostors out as well",
    ),
    "gssencmode": (
        frozenset({"disable", "prefer"}),
        "asks for what asyncpg does not support: leave it out, and encrypt by TLS with sslmode",
    ),
    "client_encoding": (frozenset({"utf8", "utf-8", "UTF8", "UTF-8"}), "must be UTF8"),
    "load_balance_hosts": (frozenset({"disable"}), "is not supported by asyncpg: hosts are tried in their order"),
    "sslsni": (frozenset({"1"}), "is not supported by asyncpg, which always names the host"),
    "sslcompression": (frozenset({"0"}), "is not supported by asyncpg: leave it out"),
    "sslcertmode": (frozenset({"allow"}), "is not supported by asyncpg: leave it out; sslcert names a certificate"),
    "gssdelegation": (frozenset({"0"}), "is not supported by asyncpg: leave it out"),
    "min_protocol_version": (frozenset({"3.0"}), "is not supported by asyncpg, which speaks 3.0"),
    "max_protocol_version": (frozenset({"3.0", "latest"}), "is not supported by asyncpg, which speaks 3.0"),
}

_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("require_auth", "requirepeer", "sslcrldir", "sslkeylogfile", "scram_client_key", "scram_server_key"),
        "is not supported by asyncpg: leave it out",
    ),
    "replication": "makes no connection for statements: leave it out",
    "hostaddr": "is not supported by asyncpg: give the address as host",
    "requiressl": "is not supported by asyncpg: use sslmode=require",
    # Parameters of other clients. Providers also give out addresses for those.
    **dict.fromkeys(("ssl", "sslaccept", "sslidentity"), "is a parameter of another client: use sslmode"),
    **dict.fromkeys(("schema", "currentSchema"), "is a parameter of another client: use search_path"),
    **dict.fromkeys(
        ("connection_limit", "pool_size", "pool", "max_connections"),
        "is not part of an address: use max_connections of PostgresStore",
    ),
    **dict.fromkeys(
        ("pool_timeout", "socket_timeout", "command_timeout", "timeout"),
        "is not part of an address: use timeout of PostgresStore",
    ),
    **dict.fromkeys(
        ("statement_cache_size", "prepared_statement_cache_size", "prepared_statements"),
        "is not part of an address: use statement_cache_size of PostgresStore",
    ),
}

_HANDLED = frozenset({"pgbouncer", "keepalives", "fallback_application_name", *_NUMBERS, *_DONE_ANYWAY})


def _reason_against(name: str, value: str) -> str | None:
    if name in _REFUSED:
        return _REFUSED[name]
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"must be one of {', '.join(_CHOICES[name])}"
    if name in _NUMBERS and re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII) is None:
        return "must be a whole number"
    if name in _SOCKET_OPTIONS and not hasattr(socket, _SOCKET_OPTIONS[name]):
        return "is not supported by this system: leave it out"
    if name in _DONE_ANYWAY and value not in _DONE_ANYWAY[name][0]:
        return _DONE_ANYWAY[name][1]
    return None


def _check_system_roots(option: str, given: Mapping[str, str]) -> None:
    if given.get("sslmode") != "verify-full":  # as in libpq: anybody can get a certificate for some name
        raise ConfigurationError(f"PostgresStore: {option}: sslrootcert=system needs sslmode=verify-full")
    others = sorted(_CONTEXT.intersection(given))
    if others:  # asyncpg reads them only if it makes the TLS context
        raise ConfigurationError(f"PostgresStore: {option}: {others[0]} cannot be combined with sslrootcert=system")


def _socket_options(given: Mapping[str, str]) -> tuple[tuple[int, int, int], ...]:
    """As in libpq: keepalives=0 switches the others off, and 0 or less means the system's default."""
    alive = [name for name in given if name.startswith("keepalives")]
    if given.get("keepalives") == "0":
        given = {name: value for name, value in given.items() if name not in alive}
    numbers = ((constant, int(given.get(name, 0))) for name, constant in _SOCKET_OPTIONS.items())
    chosen = [(socket.IPPROTO_TCP, getattr(socket, constant), number) for constant, number in numbers if number > 0]
    if any(name in given for name in alive):
        chosen.insert(0, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
    return tuple(chosen)


def _named_in(options: str) -> list[str]:
    """The names of the settings in ``-c name=value``, also those that providers put there."""
    return re.findall(r"([A-Za-z_][\w.]*)=", options)
