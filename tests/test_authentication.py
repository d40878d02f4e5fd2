"""asgi_auth.authentication: checks at start, opening and closing, and the completion of acts."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, timedelta
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_auth import upkeep
from asgi_auth.acts import FactorRequired
from asgi_auth.authentication import Authentication, utc_now
from asgi_auth.errors import AuthenticationFailedError, ConfigurationError, FactorRequiredError, StoreUnavailableError
from asgi_auth.events import ActFailed
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit
from asgi_auth.passwords import Bcrypt
from asgi_auth.phases import Accepted, Challenge, Finished, Phase
from asgi_auth.protocol.client import TrustedProxies
from asgi_auth.senders import ConsoleSender, MemorySender
from asgi_auth.services import Services
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import Activity, AnonymousUser, AuthState, Client, User
from tests.gate import Gatekeeper
from tests.support import (
    EMAIL,
    HASHER,
    OTHER_SECRET,
    PASSWORD,
    PATIENCE,
    SECRET,
    Events,
    LocalAuthentication,
    credentials,
    eventually,
    is_alive,
    mailed_token,
    make_auth,
    register,
    registration,
    until,
)

pytestmark = pytest.mark.anyio


# --- configuration ---------------------------------------------------------------------------------------------------


class Named(Hook):
    """An add-on with any name; it may require capabilities of the store."""

    def __init__(self, name: Any, *needs: str) -> None:
        self.name, self.needs = name, frozenset(needs)

    def __repr__(self) -> str:
        return f"Named({self.name!r})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secret": ""}, "secret"),
        ({"secret": []}, "secret"),
        ({"secret": None}, "secret"),
        ({"secret": "secret"}, "secret"),
        ({"secret": SECRET[:31]}, "secret"),
        ({"secret": "changeme" * 8}, "secret"),
        ({"secret": "a" * 64}, "secret"),
        ({"secret": "abcdefghijklmnopqrstuvwxyz0123456789"}, "secret"),
        ({"secret": [SECRET, "short"]}, "secret"),
        ({"secret": [SECRET, None]}, "secret"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "https://auth.example.org/path"}, "base_url"),
        ({"base_url": "https://user@auth.example.org"}, "base_url"),
        ({"base_url": "https://auth.example.org?x=1"}, "base_url"),
        ({"base_url": "ftp://auth.example.org"}, "base_url"),
        ({"base_url": "http://auth.example.org"}, "base_url must be https"),
        ({"base_url": "http://192.0.2.1"}, "base_url must be https"),
        ({"base_url": "http://localhost.example.org"}, "base_url must be https"),
        ({"base_url": "http://evillocalhost"}, "base_url must be https, .* write 'https://evillocalhost'; only loc"),
        ({"allowed_origins": ["https://a.example/"]}, "allowed_origins: .* slash; write 'https://a.example'"),
        ({"allowed_origins": "https://a.example"}, r"allowed_origins must be a list: write \['https://a.example'\]"),
        ({"mount_path": ""}, "mount_path"),
        ({"mount_path": "/"}, "mount_path"),
        ({"mount_path": "auth"}, "mount_path"),
        ({"mount_path": "/auth/"}, "mount_path"),
        ({"mount_path": "/a b"}, "mount_path"),
        ({"mount_path": "/%61uth"}, "mount_path"),
        ({"subject_name": ""}, "subject_name"),
        ({"subject_name": "User"}, "subject_name"),
        ({"subject_name": "1user"}, "subject_name"),
        ({"subject_name": "us er"}, "subject_name"),
        ({"subject_name": "usér"}, "subject_name"),
        ({"subject_name": "u" * 33}, "subject_name"),
        ({"subject_name": None}, "subject_name"),
        ({"strategies": []}, "strategies"),
        ({"strategies": Password()}, "strategies must be a list"),
        ({"strategies": "password"}, "strategies must be a list"),
        ({"strategies": [Password]}, "strategies, add_ons: .* with parentheses"),
        ({"strategies": ["password"]}, "strategies, add_ons: 'password' is neither"),
        ({"add_ons": None}, "add_ons must be a list"),
        ({"store": "app.db"}, "store must be a store"),
        ({"store": SQLiteStore}, "store must be a store"),
        ({"hasher": Bcrypt}, "hasher must be a hasher"),
        ({"hasher": "bcrypt"}, "hasher must be a hasher"),
        ({"hasher": SimpleNamespace(cost=4)}, "with every method of HashProvider"),
        ({"session": {}}, "session must be a SessionOptions"),
        ({"password_policy": None}, "password_policy must be a PasswordPolicy"),
        ({"limits": Limit(20, timedelta(hours=1))}, "limits must be a Limits"),
        ({"limits": None}, "limits must be a Limits"),
        ({"outbox": 500}, "outbox must be an Outbox"),
        ({"clock": None}, "clock must be a plain function"),
        ({"base_url": None}, "base_url"),
        ({"mount_path": None}, "mount_path"),
        ({"strategies": [Password(), Password()]}, "strategies, add_ons: the name 'password' is taken"),
        ({"add_ons": [Named("password")]}, "strategies, add_ons: the name 'password' is taken"),
        ({"add_ons": [Named("a"), Named("a")]}, "strategies, add_ons: the name 'a' is taken"),
        ({"strategies": [Password(name="sign_out")]}, "the name 'sign_out' is taken"),
        ({"strategies": [Password(name="Pass word")]}, "name of a strategy or add-on"),
        ({"add_ons": [Named("")]}, "name of a strategy or add-on"),
        ({"add_ons": [Named(None)]}, "name of a strategy or add-on"),
        ({"add_ons": [Named("audit", "audit")]}, "store: SQLiteStore keeps no audit: audit needs them"),
        ({"registration": "secret"}, "registration must be 'open', 'invite_only' or 'closed'"),
        ({"registration": "invite_only"}, "registration: 'invite_only' needs an add-on that invites"),
        ({"allowed_origins": ["https://x.example.org/path"]}, "allowed_origins"),
        ({"allowed_origins": "https://x.example.org"}, "allowed_origins"),
        ({"allowed_return_to": "https://x.example.org/"}, "allowed_return_to must be a list of absolute URLs"),
        ({"allowed_return_to": ["/local"]}, "allowed_return_to"),
        ({"trusted_proxies": ["example.org"]}, "trusted_proxies"),
        ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.5"], "forwarded_header": "X-Real-IP"}, "forwarded_header"),
        ({"forwarded_header": "forwarded"}, "forwarded_header"),
        ({"scopes": "admin"}, "scopes must be a function of the user, plain or async"),
        (
            {
                "base_url": "https://auth.example.org",
                "strategies": [Password(resettable=Resettable(sender=ConsoleSender()))],
            },
            r"resettable\.sender: ConsoleSender is for local use, not for https",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else ascii(value)[:80],
)
def test_invalid_configuration_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """TK-16: an invalid parameter is refused at start; the message names the parameter and shows no secret."""
    with pytest.raises(ConfigurationError, match=message) as refused:
        make_auth(tmp_path, **options)
    assert SECRET[:31] not in str(refused.value)
    assert not (tmp_path / "app.db").exists()


@pytest.mark.parametrize("missing", ["users", "accounts", "sessions", "tokens", "counters"])
def test_store_must_have_the_capabilities_of_every_strategy(tmp_path: Path, missing: str) -> None:
    """If a store lacks a capability, the error names the store, the capability and the strategy that requires it."""
    scoped = SQLiteStore(tmp_path / "app.db").scope("user")
    names = ("users", "accounts", "sessions", "tokens", "counters")
    kept = {name: getattr(scoped, name) for name in names if name != missing}

    class Poor(SQLiteStore):
        def scope(self, subject_name: str) -> Any:
            return SimpleNamespace(**kept)

    with pytest.raises(ConfigurationError, match=f"store: Poor keeps no {missing}: password needs them"):
        make_auth(tmp_path, store=Poor(tmp_path / "app.db"))
    if missing == "counters":  # limits.identity_taken applies to registrations of every strategy
        with pytest.raises(ConfigurationError, match=r"keeps no counters: limits\.identity_taken needs them"):
            make_auth(tmp_path, store=Poor(tmp_path / "app.db"), strategies=[Password()])


@pytest.mark.parametrize(
    ("base_url", "secure", "cookie"),
    [
        ("http://localhost:8000", False, "user_session"),
        ("http://localhost", False, "user_session"),
        ("http://app.localhost:8000", False, "user_session"),
        ("http://127.0.0.1:8000", False, "user_session"),
        ("http://127.8.9.10", False, "user_session"),
        ("http://[::1]:8000", False, "user_session"),
        ("https://localhost", True, "__Host-user_session"),
        ("https://auth.example.org", True, "__Host-user_session"),
    ],
)
def test_base_url_decides_the_cookie_name(tmp_path: Path, base_url: str, secure: bool, cookie: str) -> None:
    """SE-3: https uses __Host- cookies; http is only for localhost, its subdomains and loopback addresses."""
    auth = make_auth(tmp_path, base_url=base_url)
    assert (auth.secure, auth.site.session_cookie) == (secure, cookie)
    assert auth.site.cookie("pending") == cookie.replace("session", "pending")
    assert auth.site.origins == {base_url}


def test_defaults_are_safe(tmp_path: Path) -> None:
    """Omitted parameters have their documented defaults."""
    auth = Authentication(
        store=SQLiteStore(tmp_path / "app.db"), secret=SECRET, base_url="http://localhost:8000", strategies=[Password()]
    )
    assert (auth.subject_name, auth.mount_path, auth.app_name) == ("user", "/auth", "localhost")
    assert auth.hasher == Bcrypt(cost=12)
    assert (auth.allowed_return_to, auth.trusted_proxies) == (frozenset(), TrustedProxies())
    now = auth.clock()
    assert now.tzinfo is UTC
    assert utc_now() - now < timedelta(minutes=1)


def test_options_are_stored(tmp_path: Path) -> None:
    """The HTTP layer finds additional origins, return URLs, proxies and the name of the application."""
    auth = make_auth(
        tmp_path,
        app_name="Example",
        mount_path="/account/auth",
        subject_name="admin_2",
        allowed_origins=["https://www.example.org", "capacitor://localhost"],
        allowed_return_to=["https://www.example.org/"],
        trusted_proxies=["10.0.0.0/8"],
        secret=[SECRET.encode(), OTHER_SECRET],
        hasher=Bcrypt(cost=4, pepper=OTHER_SECRET),
    )
    assert (auth.app_name, auth.mount_path, auth.site.session_cookie) == ("Example", "/account/auth", "admin_2_session")
    assert auth.site.origins == {"http://localhost:8000", "https://www.example.org", "capacitor://localhost"}
    assert auth.allowed_return_to == {"https://www.example.org/"}
    assert [str(network) for network in auth.trusted_proxies.networks] == ["10.0.0.0/8"]
    assert auth.hasher == Bcrypt(cost=4, pepper=(OTHER_SECRET.encode(),))


def test_repr_hides_secrets(tmp_path: Path) -> None:
    """The ``repr`` of the Authentication and of its parts shows no secret and no pepper."""
    auth = make_auth(tmp_path, hasher=Bcrypt(cost=4, pepper=OTHER_SECRET))
    things = [auth, auth.services, auth.tokens, auth.sessions, auth.accounts, auth.hasher, auth.strategy("password")]
    for thing in things:
        assert SECRET not in repr(thing)
        assert OTHER_SECRET not in repr(thing)
    assert repr(auth) == "Authentication(subject_name='user', base_url='http://localhost:8000')"
    assert "hidden" not in repr(Finished(None, "hidden"))


def test_cheap_hashes_log_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hash cost that is only suitable for tests logs a warning."""
    make_auth(tmp_path, hasher=Bcrypt(cost=10))
    assert caplog.messages == []
    make_auth(tmp_path, hasher=HASHER)
    assert caplog.messages == ["hasher: passwords are hashed too cheaply for real accounts"]


class Bound(Hook):
    """An add-on whose ``bind`` returns another object, with a phase and an action."""

    name = "bound"
    services: Services[Any]

    def bind(self, services: Services[Any]) -> "Bound":
        bound = Bound()
        bound.services = services
        bound.phases = [Phase(name="act", methods=frozenset({"GET"}), handle=bound.act)]
        return bound

    async def act(self, request: object = None) -> Challenge:
        return Challenge({})


class Doubled(Hook):
    """An add-on with two phases of the same name."""

    name = "doubled"
    phases = (
        Phase(name="act", methods=frozenset({"GET"}), handle=Bound().act),
        Phase(name="act", handle=Bound().act),
    )


def test_phase_names_must_be_unique(tmp_path: Path) -> None:
    """Two phases with the same name are refused, because one would hide the other."""
    with pytest.raises(ConfigurationError, match="'doubled' has two phases 'act'"):
        make_auth(tmp_path, add_ons=[Doubled()])


def test_add_ons_are_bound_and_routed(tmp_path: Path) -> None:
    """The object that ``bind`` returns is used; strategies and add-ons share one table of routes."""
    auth = make_auth(tmp_path, strategies=[Password(registration_enabled=False)], add_ons=[Bound()])
    password = [("password", phase) for phase in ("sign_in", "sign_in_with_token", "reauthenticate")]
    assert list(auth.routes) == [*password, ("bound", "act")]
    hook = auth.services.hooks[-1]
    assert isinstance(hook, Bound)
    assert hook.services is auth.services


# --- actions ---------------------------------------------------------------------------------------------------------


async def test_actions_of_a_strategy_are_completed(auth: LocalAuthentication) -> None:
    """An action signs in or returns no token; its arguments reach the strategy; other attributes do not exist."""
    user, token = await auth.strategy("password").register(registration(), client=Client(label="Browser/1.0"))
    assert token.session.label == "Browser/1.0"
    finished = await auth.strategy("password").sign_in(credentials())
    assert finished.user == user
    assert await is_alive(auth, finished.token)
    assert await auth.strategy("password").reset_request({"email": EMAIL}) == (None, None)
    assert len(mailed_token(auth)) == 43
    with pytest.raises(AttributeError):
        auth.strategy("password").no_such_verb  # noqa: B018  # the look-up is what fails
    with pytest.raises(AttributeError):
        auth.strategy("password")._owner  # noqa: B018


async def test_actions_of_an_add_on_are_completed(tmp_path: Path) -> None:
    """An add-on's actions are completed like a strategy's; other outcomes are returned unchanged."""
    auth = make_auth(tmp_path, add_ons=[Bound()])
    assert await auth.add_on("bound").act() == Challenge({})
    with pytest.raises(ConfigurationError, match="there is no 'magic_link'; there is: password"):
        auth.strategy("magic_link")
    with pytest.raises(ConfigurationError, match="there is no 'password'; there is: bound"):
        auth.add_on("password")
    await auth.close()


async def test_refusal_is_logged_and_becomes_an_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AU-4: the log and the hooks get the reason of a refusal, but not the entered values."""
    hook = Events()
    auth = make_auth(tmp_path, add_ons=[hook])
    caplog.set_level("INFO", "asgi_auth")
    client = Client(address="192.0.2.1")
    with pytest.raises(AuthenticationFailedError):
        await auth.strategy("password").sign_in(credentials("typed@mail.example.org", "typed-password"), client=client)
    [event] = hook.seen
    assert isinstance(event, ActFailed)
    assert (event.activity, event.client, event.user_id) == (("password", "sign_in"), client, None)
    assert (event.code, event.cause) == ("authentication_failed", "unknown_user")
    assert caplog.messages[-1] == "password.sign_in refused: unknown user"
    assert "typed" not in caplog.text + repr(event)
    await auth.close()


async def test_finish_runs_the_job_of_the_outcome(auth: LocalAuthentication) -> None:
    """Without HTTP, the job of an outcome runs before the action returns."""
    ran: list[str] = []

    async def job() -> None:
        ran.append("job")

    assert await auth.finish(Accepted(then=job), Client()) == Accepted(then=job)
    assert await auth.finish(Accepted(), Client()) == Accepted()
    assert ran == ["job"]


async def test_perform_opens_the_store_at_the_first_act(auth: LocalAuthentication, tmp_path: Path) -> None:
    """Without a lifespan, the first act opens the store; an error of the configuration reaches the caller."""
    outcome = Challenge({})

    async def act() -> Challenge:
        return outcome

    assert not (tmp_path / "app.db").exists()
    assert await auth.perform(Activity("x", "y"), act, Client()) is outcome
    assert (tmp_path / "app.db").exists()


# --- sign_in, state, user --------------------------------------------------------------------------------------------


async def test_application_signs_in_a_user(auth: LocalAuthentication) -> None:
    """The application signs in a user whom it has authenticated, remembered or not, with its own factor name."""
    user = await auth.accounts.create({"email": EMAIL})
    token = await auth.sign_in(user)
    assert (set(token.session.factors), token.session.remembered) == ({"application"}, False)
    token = await auth.sign_in(user, remember=True, factor="ldap", client=Client(label="Browser/1.0"))
    assert (set(token.session.factors), token.session.remembered) == ({"ldap"}, True)
    assert token.session.label == "Browser/1.0"
    assert await is_alive(auth, token)


async def test_sign_in_by_the_application_asks_every_gate(tmp_path: Path) -> None:
    """AC-3: a disabled or deleted user is refused, and a user without a required factor, too."""
    gate = Gatekeeper()
    auth = make_auth(tmp_path, add_ons=[gate])
    user = await auth.accounts.create({"email": EMAIL})
    gate.answer = FactorRequired(("code",))
    with pytest.raises(FactorRequiredError) as caught:
        await auth.sign_in(user)
    assert (await auth.sessions.pending(caught.value.pending_token)).user == user
    gate.answer = None
    await auth.accounts.disable(user.id)
    with pytest.raises(AuthenticationFailedError, match="the account is disabled"):
        await auth.sign_in(user)
    await auth.accounts.delete(user.id)
    with pytest.raises(AuthenticationFailedError, match="the user is gone"):
        await auth.sign_in(user)
    await auth.close()


async def test_state_and_user_ignore_other_authentications(auth: LocalAuthentication, tmp_path: Path) -> None:
    """SE-12, TK-23: only the state of this Authentication's middleware is used, from a scope or a request."""
    user, token = await register(auth)
    other = make_auth(tmp_path, subject_name="admin")
    ours = AuthState(user, token.session, "session", (), None, auth)
    anonymous = AuthState(AnonymousUser(), None, None, (), None, auth)
    theirs = AuthState(user, token.session, "session", (), None, other)
    scope: dict[str, Any] = {"type": "http", "asgi_auth": ours}
    assert auth.state(scope) is ours
    assert auth.state(SimpleNamespace(scope=scope)) is ours
    assert auth.user(scope) is user
    for said in (anonymous, theirs, "admin", None):
        assert auth.user({"type": "http", "asgi_auth": said}) is None
    assert auth.user({"type": "http", "user": user}) is None
    assert auth.state({"type": "http", "asgi_auth": theirs}).session is None
    assert auth.state({"type": "http"}).user.is_authenticated is False
    assert auth.state({"type": "http", "asgi_auth": anonymous}) is anonymous


# --- life ------------------------------------------------------------------------------------------------------------


class CountingStore(SQLiteStore):
    """A store that counts how often it is opened and closed."""

    opened = closed = 0

    async def open(self) -> None:
        self.opened += 1
        await super().open()

    async def close(self) -> None:
        self.closed += 1
        await super().close()


async def test_nested_running_opens_and_closes_once(tmp_path: Path) -> None:
    """The application and the middlewares may all run it: the first opens, the last closes, and it can run again."""
    store = CountingStore(tmp_path / "app.db")
    auth = make_auth(tmp_path, store=store)
    for turn in (1, 2):
        async with auth.lifespan(None):
            async with auth.running(), auth.running():
                user = await auth.accounts.create({"email": f"user{turn}@mail.example.org"})
            assert store.closed == turn - 1
            assert await auth.accounts.get(user.id) is not None
        assert (store.opened, store.closed) == (turn, turn)


async def test_running_fails_if_the_store_cannot_be_opened(tmp_path: Path) -> None:
    """If the file cannot be opened, the start fails; the next start tries again."""
    auth = make_auth(tmp_path, store=SQLiteStore(tmp_path / "missing" / "app.db"))
    with pytest.raises(StoreUnavailableError):
        await auth.running().__aenter__()
    with pytest.raises(StoreUnavailableError):
        await auth.strategy("password").sign_in(credentials())
    (tmp_path / "missing").mkdir()
    async with auth.running():
        await auth.accounts.create({"email": EMAIL})


async def test_running_passes_errors_on_and_closes(tmp_path: Path) -> None:
    """An exception of the application is raised, and the store is closed."""
    store = CountingStore(tmp_path / "app.db")
    with pytest.raises(ZeroDivisionError):
        async with make_auth(tmp_path, store=store).running():
            raise ZeroDivisionError
    assert store.closed == 1


async def test_running_prunes_periodically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired rows are deleted in batches while the application runs."""
    monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))
    monkeypatch.setattr(upkeep, "PRUNE_BATCH", 2)
    auth = make_auth(tmp_path)
    user = await auth.accounts.create({"email": EMAIL})
    for _ in range(5):
        await auth.sign_in(user)
        await auth.tokens.issue("invitation", account=None, lifetime=timedelta(minutes=1))
        await auth.services.limiter.take("mail", token_hex(4), Limit(1, timedelta(minutes=1)))
    auth.clock.advance(timedelta(days=8))
    kept = await auth.sign_in(user)

    async def pruned() -> bool:
        async with auth.services.store.transaction() as work:
            [(rows,)] = await work.connection.execute_fetchall(
                "SELECT (SELECT count(*) FROM asgi_auth_sessions) + (SELECT count(*) FROM asgi_auth_tokens)"
                " + (SELECT count(*) FROM asgi_auth_counters)"
            )
        return bool(rows == 1)

    assert not await pruned()
    async with auth.running():
        await eventually(pruned)
        assert await is_alive(auth, kept)


async def test_store_is_closed_after_upkeep_was_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is closed even if the background task was cancelled."""
    store = CountingStore(tmp_path / "app.db")
    auth = make_auth(tmp_path, store=store)
    ended = asyncio.Event()
    monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))

    async def end() -> None:
        ended.set()
        raise asyncio.CancelledError

    async with auth.running():
        monkeypatch.setattr(auth._upkeep, "_note_costs", end)
        await ended.wait()
    assert store.closed == 1


async def test_open_learns_the_cost_of_stored_hashes(tmp_path: Path) -> None:
    """EN-2: from the start, a failed sign-in costs as much as the most expensive stored hash."""
    dear = make_auth(tmp_path, hasher=Bcrypt(cost=6))
    await dear.accounts.create({"email": EMAIL}, password=PASSWORD)
    await dear.close()
    auth = make_auth(tmp_path)
    assert auth.services.passwords.dearest == 4
    await auth.open()
    assert auth.services.passwords.dearest == 6
    await auth.close()


async def test_pruning_learns_the_cost_of_new_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EN-2: pruning also learns the cost of hashes that another worker has stored."""
    monkeypatch.setattr(upkeep, "PRUNE_INTERVAL", timedelta(0))
    auth, other = make_auth(tmp_path), make_auth(tmp_path, hasher=Bcrypt(cost=6))

    async with auth.running():
        assert auth.services.passwords.dearest == 4
        await other.accounts.create({"email": EMAIL}, password=PASSWORD)
        await until(lambda: auth.services.passwords.dearest == 6)
    await other.close()


def test_authentication_works_on_consecutive_event_loops(tmp_path: Path) -> None:
    """An Authentication works on a second event loop, closed in between or not."""
    auth = make_auth(tmp_path)

    async def first() -> str:
        _, token = await register(auth)
        return token.cookie

    async def second(cookie: str) -> User:
        await auth.strategy("password").sign_in(credentials())
        return (await auth.sessions.load(cookie)).user

    cookie = asyncio.run(first())
    assert asyncio.run(second(cookie)).email == EMAIL
    asyncio.run(auth.close())
    assert asyncio.run(second(cookie)).email == EMAIL
    asyncio.run(auth.close())


SCRIPT = """
import asyncio, sys
from pathlib import Path
from tests.support import make_auth, register

auth = make_auth(Path(sys.argv[1]))

async def main():
    user, token = await register(auth)
    print((await auth.sessions.load(token.cookie)).user.email)

asyncio.run(main())
"""


def test_script_that_never_closes_ends(tmp_path: Path) -> None:
    """A script that does not close the Authentication ends without a warning: no thread outlives the interpreter."""
    command: Sequence[str] = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"{EMAIL}\n")
    assert ended.stderr in ("", "hasher: passwords are hashed too cheaply for real accounts\n")


def test_constructor_names_every_parameter_in_its_docstring() -> None:
    """The docstring explains every parameter."""
    documented = inspect.getdoc(Authentication) or ""
    parameters = [name for name in inspect.signature(Authentication.__init__).parameters if name != "self"]
    assert [name for name in parameters if f"{name}: " not in documented] == []
    assert MemorySender().messages == []
