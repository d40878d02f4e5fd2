"""Finds unsafe values in a valid configuration, for ``python -m asgi_auth doctor``.

The constructor of ``Authentication`` rejects values that are never acceptable, such as a short secret.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from asgi_auth.authentication import Authentication
from asgi_auth.errors import ConfigurationError, StoreUnavailableError
from asgi_auth.passwords import PasswordPolicy
from asgi_auth.senders import MemorySender
from asgi_auth.sessions import SessionOptions
from asgi_auth.upkeep import makes_tables

_LIFETIMES = ("idle_lifetime", "lifetime", "remembered_lifetime", "pending_lifetime")
_NARROWEST = {4: 8, 6: 7}
"""Prefix lengths of the largest private networks: 10.0.0.0/8 (RFC 1918) and fc00::/7 (RFC 4193)."""
_CLOCK_SKEW = timedelta(minutes=1)


class Finding(NamedTuple):
    """One finding, with advice."""

    unsafe: bool
    """True if it is dangerous; False if it is only a note."""
    parameter: str
    advice: str

    def __str__(self) -> str:
        return f"{'unsafe' if self.unsafe else 'note'}: {self.parameter}: {self.advice}"


async def examine(auth: Authentication[Any]) -> Sequence[Finding]:
    """Return the findings about *auth* and its database. The database is opened and closed again.

    This creates no database and no table. A database that cannot be opened is a finding.
    """
    findings = [finding for check in _CHECKS for finding in check(auth)]
    return [*findings, *_check_files(auth), *await _check_store(auth)]


def _check_base_url(auth: Authentication[Any]) -> Iterator[Finding]:
    if not auth.secure:
        yield Finding(True, "base_url", "http is for this machine only; give the public address, with https")


def _check_hasher(auth: Authentication[Any]) -> Iterator[Finding]:
    if auth.hasher.weak:
        yield Finding(True, "hasher", f"cost {auth.hasher.cost} is for tests only; leave it out for the default")


def _check_policy(auth: Authentication[Any]) -> Iterator[Finding]:
    usual = PasswordPolicy().minimum_strength
    if auth.password_policy.minimum_strength < usual:
        yield Finding(
            True, "password_policy", f"easily guessed passwords may be set; minimum_strength should be {usual}"
        )


def _check_sessions(auth: Authentication[Any]) -> Iterator[Finding]:
    usual = SessionOptions()
    for name in _LIFETIMES:
        if getattr(auth.session_options, name) > getattr(usual, name):
            yield Finding(True, "session", f"{name} is over the default of {getattr(usual, name)}; shorten it")


def _check_origins(auth: Authentication[Any]) -> Iterator[Finding]:
    for origin in sorted(auth.site.origins - {auth.base_url}):
        if origin.startswith("http://"):
            yield Finding(True, "allowed_origins", f"an attacker on the network can impersonate {origin}; use https")


def _check_proxies(auth: Authentication[Any]) -> Iterator[Finding]:
    proxies = auth.trusted_proxies
    if auth.secure and not (proxies.networks or proxies.unix):
        yield Finding(
            False,
            "trusted_proxies",
            "behind a proxy all clients count as one, for limits and for their turns; list it, or 'unix' if it uses a "
            "UNIX socket. Without a proxy there is nothing to do",
        )
    for network in proxies.networks:
        if network.prefixlen < _NARROWEST[network.version]:
            yield Finding(
                True, "trusted_proxies", f"{network} lets clients choose their address; list your own proxies"
            )


def _check_registration(auth: Authentication[Any]) -> Iterator[Finding]:
    phases = {phase for _, phase in auth.routes}
    confirmed = any(hook.proves_addresses for hook in auth.services.hooks)
    if auth.registration == "open" and "register" in phases and not confirmed:
        yield Finding(
            False, "registration", "users can register an address that they do not own; add a Confirmation or close it"
        )


def _check_reset(auth: Authentication[Any]) -> Iterator[Finding]:
    for (name, phase), route in auth.routes.items():
        if phase == "sign_in" and "password" in route.secrets and (name, "reset") not in auth.routes:
            yield Finding(False, f"{name}.resettable", "a forgotten password cannot be replaced; give a Resettable")


def _check_senders(auth: Authentication[Any]) -> Iterator[Finding]:
    for parameter, sender in auth.services.mailing.senders:
        name = type(sender).__name__
        if getattr(sender, "local_only", False):
            yield Finding(True, parameter, f"{name} shows links to all readers of the log; use SMTPSender or your own")
        elif isinstance(sender, MemorySender):
            yield Finding(True, parameter, f"{name} delivers nothing; use SMTPSender or your own")


def _check_clock(auth: Authentication[Any]) -> Iterator[Finding]:
    if abs(auth.clock() - datetime.now(UTC)) > _CLOCK_SKEW:
        yield Finding(True, "clock", "it differs from the clock of this machine; leave it out")


_CHECKS = (
    _check_base_url,
    _check_hasher,
    _check_policy,
    _check_sessions,
    _check_origins,
    _check_proxies,
    _check_registration,
    _check_reset,
    _check_senders,
    _check_clock,
)


# --- the database ----------------------------------------------------------------------------------------------------


def _path(auth: Authentication[Any]) -> Path | None:
    """The database file; None if the database is not a file."""
    path = getattr(auth.store, "path", None)
    return None if path is None else Path(path)


def _check_files(auth: Authentication[Any]) -> Iterator[Finding]:
    path = _path(auth)
    if path is None or os.name != "posix":  # on other systems the mode has no meaning
        return
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        if file.exists() and (mode := stat.S_IMODE(file.stat().st_mode)) & 0o077:
            yield Finding(True, "store", f"others on this machine can open {file} (mode {mode:04o}); chmod 600 it")


async def _check_store(auth: Authentication[Any]) -> Sequence[Finding]:
    path = _path(auth)
    try:
        if await makes_tables(auth.store):
            return [Finding(False, "store", _not_made_yet(path))]
        await auth.open()
    except ConfigurationError as exc:  # its text has the remedy
        return [Finding(True, "store", exc.reason.removeprefix("store: "))]
    except StoreUnavailableError as exc:
        return [Finding(True, "store", f"it cannot be opened ({exc.reason}); check where it is, and its rights")]
    finally:
        await auth.close()
    return []


def _not_made_yet(path: Path | None) -> str:
    if path is not None and not path.exists():
        return f"there is no {path} yet; the first start makes it"
    return f"{path or 'the database'} lacks tables of the library; the first start makes them"
