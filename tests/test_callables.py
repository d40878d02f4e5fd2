"""Functions of the application, plain or async: each is supported or refused by name; no coroutine counts as true."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from functools import partial, wraps
from pathlib import Path
from time import time
from typing import Any

import pytest

from asgi_auth import AuthController, AuthPlug, passwords
from asgi_auth.errors import ConfigurationError, SenderError, UnavailableError, ValidationError
from asgi_auth.hashing import HashingPool
from asgi_auth.hooks import Hook
from asgi_auth.passwords import PasswordPolicy, Passwords
from asgi_auth.phases import Phase
from asgi_auth.runtime.callables import is_async
from asgi_auth.senders import SMTPSender
from asgi_auth.stores import PostgresStore
from asgi_auth.strategies.password import Password
from tests.asgi import ask
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    DigestHasher,
    Events,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

REFUSED = "This password is on a list."


class Ways:
    """One async function in every form in which it can be passed."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    async def function(self, *arguments: Any) -> Any:
        """An ``async def``."""
        return self.answer

    async def __call__(self, *arguments: Any) -> Any:
        return await self.function(*arguments)


ways = Ways()
SAY_SO: dict[str, Callable[..., Any]] = {
    "function": ways.function,
    "object": ways,
    "partial": partial(ways.function),
    "partial of a partial of an object": partial(partial(ways)),
}
"""Forms that are recognisably async."""
HIDDEN: dict[str, Callable[..., Any]] = {"lambda": lambda *arguments: ways.function(*arguments), **SAY_SO}
"""All async forms, recognisable or not."""


def test_async_forms_are_recognised() -> None:
    """``is_async`` recognises every form except a lambda."""
    assert {name: is_async(way) for name, way in HIDDEN.items()} == {name: name != "lambda" for name in HIDDEN}
    assert not is_async(print)


# --- the check of a password policy ---------------------------------------------------------------------------------


class Breaches(Ways):
    """An async service that knows leaked passwords."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    async def function(self, *arguments: Any) -> None:
        """Refuses ``NEW_PASSWORD``."""
        await asyncio.sleep(0)
        self.threads.append(threading.current_thread())
        if arguments == (NEW_PASSWORD,):
            raise ValueError(REFUSED)


CHECKS: dict[str, Callable[[Breaches], Callable[[str], object]]] = {
    "function": lambda breaches: breaches.function,
    "object": lambda breaches: breaches,
    "partial": lambda breaches: partial(breaches.function),
    "lambda": lambda breaches: lambda password: breaches.function(password),
}


@pytest.mark.parametrize("form", CHECKS)
async def test_check_of_a_policy_can_be_async(tmp_path: Path, form: str) -> None:
    """PW-7: every async form is awaited on the event loop before the user is stored; its error reaches the user."""
    breaches = Breaches()
    auth = make_auth(tmp_path, password_policy=PasswordPolicy(check=CHECKS[form](breaches)))
    async with auth.running():
        with pytest.raises(ValidationError) as refused:
            await auth.strategy("password").register(registration(password=NEW_PASSWORD))
        assert refused.value.fields == {"password": REFUSED}
        assert await auth.accounts.find("email", EMAIL) is None
        user, _ = await register(auth)
    assert user.email == EMAIL
    assert set(breaches.threads) == {threading.main_thread()}


async def test_plain_check_stays_off_the_event_loop(tmp_path: Path) -> None:
    """PW-7: a plain check runs in another thread, because it may block."""
    threads: list[threading.Thread] = []
    policy = PasswordPolicy(check=lambda password: threads.append(threading.current_thread()))
    auth = make_auth(tmp_path, password_policy=policy)
    async with auth.running():
        await register(auth)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_async_check_that_hangs_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-2: if the check does not return, the answer is 503 in bounded time and nothing is stored."""
    monkeypatch.setattr(passwords, "CHECK_TIMEOUT", timedelta(milliseconds=10))

    async def check(password: str) -> None:
        await asyncio.Event().wait()

    auth = make_auth(tmp_path, password_policy=PasswordPolicy(check=check))
    async with auth.running():
        with pytest.raises(UnavailableError, match="the check of the password policy took too long"):
            await auth.strategy("password").register(registration())
        answer = await ask(AuthPlug(auth), "POST", "/auth/password/register", data=registration())
        assert (answer.status, answer["retry-after"]) == (503, "1")
        assert await auth.accounts.find("email", EMAIL) is None


def test_check_must_be_a_function() -> None:
    """A check that cannot be called is refused when the policy is created."""
    with pytest.raises(ConfigurationError, match="check must be a function"):
        PasswordPolicy(check="leaked.txt")  # type: ignore[arg-type]


# --- hashers --------------------------------------------------------------------------------------------------------


def _hasher(**methods: Any) -> Any:
    hasher = DigestHasher()
    for name, method in methods.items():
        setattr(hasher, name, method)
    return hasher


@pytest.mark.parametrize("name", ["hash", "verify", "can_verify", "needs_rehash", "cost_of", "level"])
@pytest.mark.parametrize("form", SAY_SO)
def test_async_hasher_is_refused_at_start(tmp_path: Path, name: str, form: str) -> None:
    """PW-1: a hasher runs in a thread and is not awaited."""
    with pytest.raises(ConfigurationError, match=rf"^hasher\.{name}: "):
        make_auth(tmp_path, hasher=_hasher(**{name: SAY_SO[form]}))


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("hash", lambda service, stored: service.set(NEW_PASSWORD, context=(), client=None)),
        ("verify", lambda service, stored: service.verify("wrong", stored, client=None)),
        ("needs_rehash", lambda service, stored: service.verify(NEW_PASSWORD, stored, client=None)),
        ("level", lambda service, stored: service.verify("wrong", stored, client=None)),
    ],
    ids=["hash", "verify", "needs_rehash", "level"],
)
async def test_hasher_that_returns_an_awaitable_fails_closed(
    name: str, act: Callable[[Passwords, str], Awaitable[object]]
) -> None:
    """PW-1: a coroutine is true in a condition; a wrong password is still rejected."""
    stored = DigestHasher().hash(NEW_PASSWORD.encode())
    pool = HashingPool()
    service = Passwords(hasher=_hasher(**{name: HIDDEN["lambda"]}), policy=PasswordPolicy(), app_name="", pool=pool)
    with pytest.raises(TypeError, match=rf"^hasher\.{name} returned coroutine, not "):
        await act(service, stored)
    pool.close()


def test_coroutine_from_can_verify_is_rejected() -> None:
    """PW-10: a coroutine from ``can_verify`` does not mean that the hash can be verified."""
    hasher = _hasher(can_verify=HIDDEN["lambda"])
    service = Passwords(hasher=hasher, policy=PasswordPolicy(), app_name="", pool=HashingPool())
    with pytest.raises(TypeError, match=r"^hasher\.can_verify returned coroutine, not bool"):
        service.check_hash("sha256$")


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clock",
    [
        *(*HIDDEN.values(), time),
        lambda: datetime(2030, 1, 1),  # noqa: DTZ001  # naive on purpose
        lambda: datetime.now(timezone(timedelta(hours=1))),
    ],
    ids=[*HIDDEN, "seconds", "naive", "elsewhere"],
)
def test_clock_must_return_an_aware_utc_datetime(tmp_path: Path, clock: Any) -> None:
    """The clock is called once at start, so that every async form is refused."""
    with pytest.raises(ConfigurationError, match=r"^clock must be a plain function"):
        make_auth(tmp_path, clock=clock)


# --- senders, stores, strategies ------------------------------------------------------------------------------------

OPTS = {"purpose": "reset", "address": EMAIL, "app_name": "Acme"}


def _smtp(render: Any) -> SMTPSender:
    return SMTPSender(host="127.0.0.1", from_address="no-reply@app.example.org", render=render)


@pytest.mark.parametrize("render", [*SAY_SO.values(), "mail.html"], ids=[*SAY_SO, "text"])
def test_render_must_be_plain(render: Any) -> None:
    """An async ``render`` is refused when the sender is created."""
    with pytest.raises(ConfigurationError, match=r"^render: "):
        _smtp(render)


async def test_render_that_returns_an_awaitable_sends_nothing() -> None:
    """If an async ``render`` is not recognised at creation, the error names it when it is called."""
    with pytest.raises(SenderError, match=r"^render returned coroutine, not a Mail$"):
        await _smtp(HIDDEN["lambda"]).send(None, "token", OPTS)


@pytest.mark.parametrize("form", SAY_SO)
def test_async_pool_function_is_refused(form: str) -> None:
    """``PostgresStore(pool=…)`` does not await the function that returns the pool."""
    with pytest.raises(ConfigurationError, match=r"^PostgresStore: pool: "):
        PostgresStore(pool=SAY_SO[form])


def test_extra_field_needs_a_function() -> None:
    """A field without a function is refused when the strategy is created."""
    with pytest.raises(ConfigurationError, match=r"^register_fields: 'name' must have a function"):
        Password(register_fields={"name": "text"})  # type: ignore[dict-item]


@pytest.mark.parametrize("form", HIDDEN)
async def test_async_function_can_read_an_extra_field(tmp_path: Path, form: str) -> None:
    """An async function of every form reads the field."""
    auth = make_auth(tmp_path, strategies=[Password(register_fields={"name": HIDDEN[form]})])
    async with auth.running():
        user, _ = await register(auth)
    assert user.data == {"name": None}


# --- hooks, phases, callbacks ---------------------------------------------------------------------------------------


def _plain(*arguments: Any, **options: Any) -> Any:
    """A plain function where an async one is awaited."""


@pytest.mark.parametrize("name", ["prepare", "taken", "is_contested", "admit", "within", "prune"])
def test_plain_method_of_a_hook_is_refused_at_start(tmp_path: Path, name: str) -> None:
    """Without the refusal, every sign-in or every registration would fail."""
    hook = type("Forgetful", (Hook,), {"name": "forgetful", name: _plain})()
    with pytest.raises(ConfigurationError, match=r"^strategies, add_ons: _plain must be 'async def'$"):
        make_auth(tmp_path, add_ons=[hook])


async def test_method_of_a_hook_can_be_wrapped(tmp_path: Path) -> None:
    """A decorator or a lambda that returns a coroutine is awaited like an async function."""
    seen: list[str] = []

    def noting(function: Any) -> Any:
        @wraps(function)
        def note(*arguments: Any) -> Any:
            seen.append(function.__name__)
            return function(*arguments)

        return note

    class Wrapped(Hook):
        name = "wrapped"
        admit = noting(Hook.admit)
        within = lambda self, event, work: Hook.within(self, event, work)  # noqa: E731

    auth = make_auth(tmp_path, add_ons=[Wrapped()])
    async with auth.running():
        await register(auth)
    assert seen == ["admit"]


def test_plain_phase_is_refused_at_start(tmp_path: Path) -> None:
    """The handler of an add-on's phase must be async, because it is awaited."""
    hook = Events()
    hook.phases = [Phase(name="look", methods=frozenset({"GET"}), handle=_plain)]
    with pytest.raises(ConfigurationError, match=r"^strategies, add_ons: _plain must be 'async def'$"):
        make_auth(tmp_path, add_ons=[hook])


CALLBACKS = [
    "handle_success",
    "handle_failure",
    "handle_accepted",
    "handle_challenge",
    "handle_view",
    "handle_sign_out",
]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((AuthPlug, name) for name in (*CALLBACKS, "clear_session", "revoke_session_tokens", "revoke_bearer_tokens")),
        *((AuthController, name) for name in ("success", "failure", "sign_out", "handle_view")),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_plain_callback_is_refused_when_the_plug_is_created(tmp_path: Path, kind: Any, name: str) -> None:
    """A plain callback is refused when the plug is created; the message names the function."""
    forgetful = type("Forgetful", (kind,), {name: _plain})
    with pytest.raises(ConfigurationError, match=r"^AuthPlug: _plain must be 'async def'$"):
        forgetful(make_auth(tmp_path))
