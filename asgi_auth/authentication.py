"""Authentication: connects and checks all parts at the start, and carries out the outcomes of the actions."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, TypeVar, cast, get_args

from asgi_auth.accounts import Accounts
from asgi_auth.acts import Proof
from asgi_auth.commit import Commit
from asgi_auth.configuration import (
    check_kinds,
    check_mount_path,
    check_name,
    check_options,
    check_pages,
    check_urls,
    listed,
)
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    FactorRequiredError,
    UnavailableError,
)
from asgi_auth.events import ActAccepted, ActFailed
from asgi_auth.hashing import HashingPool
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limiter, Limits, SourceLimiter
from asgi_auth.localization import ChooseLocale, Localization
from asgi_auth.mailing import Mailing
from asgi_auth.messages import Translate
from asgi_auth.pages import Pages
from asgi_auth.passwords import Bcrypt, HashProvider, PasswordPolicy, Passwords
from asgi_auth.phases import Accepted, Finished, Outcome, Phase, SignedIn, TokenIssued
from asgi_auth.protocol.client import parse_proxies
from asgi_auth.protocol.forwarded import ForwardedHeader
from asgi_auth.protocol.keys import check_secret, keyed_hash
from asgi_auth.recognition import AccessTokenRecogniser, CookieRecogniser, Recognition, Scopes
from asgi_auth.registration import Registration
from asgi_auth.runtime.callables import require_async
from asgi_auth.runtime.jobs import Jobs, logger
from asgi_auth.runtime.lanes import Outbox
from asgi_auth.runtime.loop import running_loop
from asgi_auth.services import Services
from asgi_auth.sessions import SessionOptions, Sessions
from asgi_auth.site import make_site
from asgi_auth.store import ScopedStore, Store
from asgi_auth.strategy import Actions, AddOn, Strategy, TypedActions
from asgi_auth.tokens import Tokens
from asgi_auth.tries import Kind, Tries
from asgi_auth.types import EMPTY, AccessToken, Activity, AuthState, Client, Clock
from asgi_auth.upkeep import Upkeep
from asgi_auth.verbs import Verbs

U = TypeVar("U")
F = TypeVar("F")

Secret = str | bytes | Sequence[str | bytes]

NEEDS = frozenset({"users", "accounts", "sessions", "tokens"})


utc_now: Clock = partial(datetime.now, UTC)
"""The system's clock."""


class Authentication(Generic[U]):
    """Accounts, sessions and tokens of one kind of user.

    Args:
        store: The database of the users, sessions and tokens.
        secret: At least 32 random bytes (``python -m asgi_auth secret``), or several, newest first: the first signs,
            all verify. No stored data depends on it.
        base_url: Scheme, host and port under which the public reaches the application. ``http`` only for
            ``localhost``, names below it (RFC 6761 section 6.3) and loopback addresses.
        strategies: The ways to sign in.
        add_ons: Further functions around accounts.
        app_name: The name of the application in mails and pages. A password must not consist of it. None: the host.
        subject_name: The kind of user, when there are several ``Authentication``s; part of every key and row.
        mount_path: Where the plug is mounted, for links.
        registration: ``open``, ``invite_only`` (needs an add-on that opens it) or ``closed``.
        limits: Limits that apply to every strategy.
        allowed_origins: Further origins whose pages may send requests with our cookies. Also the pages of app shells
            and browser extensions, such as ``capacitor://localhost`` and ``chrome-extension://…``.
        allowed_return_to: Absolute URLs that ``return_to`` may name besides local paths.
        trusted_proxies: Networks of the proxies that may report the client's address. Add ``unix`` for a proxy on a
            UNIX socket if the application listens on nothing else. None by default.
        forwarded_header: The one header that these proxies use: ``x-forwarded-for``, or ``forwarded`` (RFC 7239). The
            proxy must overwrite the header of the client.
        session: Lifetimes of sessions.
        outbox: How much mail may wait, and how long the application waits for it when it ends.
        hasher: How passwords are hashed.
        password_policy: The rules for new passwords.
        scopes: Returns the permissions of a user, for ``require("orders:read")``; plain or async. The library calls it
            at every request of a signed-in user. None: no permissions of the application.
        pages: Draws the pages of the library. Replace it for another look or for parts of your own.
        translate: ``translate(message, locale)`` returns a text in a language; plain. None: the library's own
            languages (``messages.translate``).
        locale: ``locale(connection, user)`` returns the language of a page or a mail; plain. One of the arguments may
            be None. If it returns None, or without a function, the browser's language is used.
        clock: Returns the current aware UTC instant.

    Raises:
        ConfigurationError: a parameter is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        store: Store[U],
        secret: Secret,
        base_url: str,
        strategies: Sequence[Strategy],
        add_ons: Sequence[AddOn] = (),
        app_name: str | None = None,
        subject_name: str = "user",
        mount_path: str = "/auth",
        registration: Registration = "open",
        limits: Limits = Limits(),
        allowed_origins: Iterable[str] = (),
        allowed_return_to: Iterable[str] = (),
        trusted_proxies: Sequence[str] = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        session: SessionOptions = SessionOptions(),
        outbox: Outbox = Outbox(),
        hasher: HashProvider = Bcrypt(),
        password_policy: PasswordPolicy = PasswordPolicy(),
        scopes: Scopes | None = None,
        pages: Pages = Pages(),
        translate: Translate | None = None,
        locale: ChooseLocale | None = None,
        clock: Clock = utc_now,
    ) -> None:
        check_kinds(store, [*listed("strategies", strategies), *listed("add_ons", add_ons)], hasher)
        check_options(session, password_policy, limits, outbox, clock)
        keys = check_secret(secret)
        self.subject_name = check_name("subject_name", subject_name)
        self.mount_path = check_mount_path(mount_path)
        self.site = make_site(base_url=base_url, allowed_origins=allowed_origins, subject_name=self.subject_name)
        self.base_url, self.host, self.secure = self.site.base_url, self.site.host, self.site.secure
        self.app_name = app_name or self.host
        self.allowed_return_to = check_urls("allowed_return_to", allowed_return_to)
        self.trusted_proxies = parse_proxies(trusted_proxies, header=forwarded_header)
        self.session_options, self.password_policy, self.registration = session, password_policy, registration
        self.hasher, self.clock, self.pages = hasher, clock, check_pages(pages)
        self.localization = Localization(translate, locale)
        if scopes is not None and not callable(scopes):
            raise ConfigurationError("scopes must be a function of the user, plain or async")
        if registration not in ("open", "invite_only", "closed"):
            raise ConfigurationError("registration must be 'open', 'invite_only' or 'closed'")

        self.store = store
        self._scoped: ScopedStore[U] = store.scope(subject_name)
        self._check_capabilities([*strategies, *add_ons], limits)
        self._pool = HashingPool()
        self._services = self._make_services(keys, password_policy, registration, limits, outbox)
        self._strategies, self._add_ons = dict[str, Actions](), dict[str, Hook]()
        self._verbs = dict[str, Verbs]()
        self._bind(strategies, add_ons)
        self._parts: tuple[object, ...] = (*strategies, *add_ons)
        if registration == "invite_only" and not any(hook.opens_registration for hook in self._hooks):
            raise ConfigurationError("registration: 'invite_only' needs an add-on that invites")
        self.routes = self._make_routes()
        self.secrets = self._all_secrets()
        self.recognition = self._make_recognition(scopes)
        if hasher.weak:
            logger.warning("hasher: passwords are hashed too cheaply for real accounts")
        self._upkeep = Upkeep(store, self._services, self._pool)

    def __repr__(self) -> str:
        return f"Authentication(subject_name={self.subject_name!r}, base_url={self.base_url!r})"

    # --- putting together

    def _check_capabilities(self, users: Sequence[Any], limits: Limits) -> None:
        needs = [(user.name, NEEDS | getattr(user, "needs", frozenset())) for user in users]
        if self.registration == "open":  # any strategy may register users
            needs.append(("limits.identity_taken", frozenset({"counters"})))
        counted = [f"limits.{kind}" for kind in get_args(Kind) if getattr(limits, kind) is not None]
        needs += [(name, frozenset({"counters"})) for name in counted]
        for name, needed in needs:
            for need in sorted(needed):
                if not hasattr(self._scoped, need):
                    store = type(self.store).__name__
                    raise ConfigurationError(f"store: {store} keeps no {need}: {name} needs them")

    def _make_services(
        self,
        keys: tuple[bytes, ...],
        policy: PasswordPolicy,
        registration: Registration,
        limits: Limits,
        outbox: Outbox,
    ) -> Services[U]:
        store, clock = self._scoped, self.clock
        self._hooks: list[Hook] = []
        commit = Commit(store, self._hooks, clock, Jobs(outbox, local=not self.secure))
        digest = partial(keyed_hash, keys[0], self.subject_name)
        tokens = Tokens(
            store,
            keys=keys,
            base_url=self.base_url,
            subject_name=self.subject_name,
            clock=clock,
            telling=None if self.secure else commit.jobs.telling,
        )
        sessions = Sessions(
            store,
            keys=keys,
            subject_name=self.subject_name,
            options=self.session_options,
            clock=clock,
            tokens=tokens,
            commit=commit,
            hooks=self._hooks,
        )
        limiter = Limiter(store, digest=digest, clock=clock)
        passwords = Passwords(hasher=self.hasher, policy=policy, app_name=self.app_name, pool=self._pool)
        accounts = Accounts(
            store,
            clock=clock,
            commit=commit,
            hooks=self._hooks,
            sessions=sessions,
            passwords=passwords,
            registration=registration,
            identity_taken=SourceLimiter(limiter, "identity_taken", limits.identity_taken),
            special_use=not self.secure,
        )
        mailing = Mailing(
            app_name=self.app_name,
            root=f"{self.base_url}{self.mount_path}",
            local=not self.secure,
            clock=clock,
            commit=commit,
            tokens=tokens,
            accounts=accounts,
            limiter=limiter,
            localization=self.localization,
        )
        return Services(
            app_name=self.app_name,
            base_url=self.base_url,
            mount_path=self.mount_path,
            subject_name=self.subject_name,
            local=not self.secure,
            clock=clock,
            store=store,
            commit=commit,
            tokens=tokens,
            sessions=sessions,
            accounts=accounts,
            passwords=passwords,
            hooks=self._hooks,
            mailing=mailing,
            tries=Tries(limiter, limits),
            limiter=limiter,
            digest=digest,
        )

    def _bind(self, strategies: Sequence[Strategy], add_ons: Sequence[AddOn]) -> None:
        if not strategies:
            raise ConfigurationError("strategies: there must be one")
        names = [part.name for part in (*strategies, *add_ons)]
        for name in names:
            check_name("name of a strategy or add-on", name)
            if names.count(name) > 1 or name == "sign_out":
                raise ConfigurationError(f"strategies, add_ons: the name {name!r} is taken")
        for strategy in strategies:
            actions = strategy.bind(self._services)
            self._strategies[strategy.name] = actions
            if isinstance(actions, Hook):
                self._add_hook(actions)
        for add_on in add_ons:
            hook = add_on.bind(self._services)
            self._add_ons[add_on.name] = hook
            self._add_hook(hook)

    def _add_hook(self, hook: Hook) -> None:
        methods = ("before", "prepare", "taken", "is_contested", "admit", "within", "ways_in", "account", "prune")
        require_async(hook, *methods, parameter="strategies, add_ons")
        self._hooks.append(hook)

    def _make_routes(self) -> Mapping[tuple[str, str], Phase]:
        parts, routes = {**self._strategies, **self._add_ons}, dict[tuple[str, str], Phase]()
        for name, part in parts.items():
            for phase in part.phases:
                require_async(phase, "handle", parameter="strategies, add_ons")
                if routes.setdefault((name, phase.name), phase) is not phase:
                    raise ConfigurationError(f"strategies, add_ons: {name!r} has two phases {phase.name!r}")
        return routes

    def _all_secrets(self) -> frozenset[str]:
        """The secret parameters of every phase, served or not. No hook and no redrawn form sees them."""
        parts = (*self._strategies.values(), *self._add_ons.values())
        phases = (phase.secrets for phase in self.routes.values())
        return frozenset({"pending_token"}).union(*phases, *(getattr(part, "secrets", ()) for part in parts))

    def _make_recognition(self, scopes: Scopes | None) -> Recognition:
        added = [recogniser for hook in self._hooks for recogniser in hook.recognisers]
        for recogniser in added:
            check_name("method of a recogniser", recogniser.method)
            require_async(recogniser, "load", parameter="strategies, add_ons")
        own = (CookieRecogniser(self.site, self.sessions), AccessTokenRecogniser(self.sessions))
        return Recognition(
            [*added, *own],
            subject_name=self.subject_name,
            scopes=scopes,
            clock=self.clock,
            authentication=self,
            telling=self._services.telling,
            local=not self.secure,
        )

    # --- what applications use

    @property
    def accounts(self) -> Accounts[U]:
        """Creates and changes users."""
        return self._services.accounts

    @property
    def sessions(self) -> Sessions[U]:
        """Lists and ends sessions."""
        return self._services.sessions

    @property
    def tokens(self) -> Tokens[U]:
        """Issues and verifies tokens."""
        return self._services.tokens

    @property
    def services(self) -> Services[U]:
        """The services that strategies and add-ons receive in ``bind``."""
        return self._services

    @property
    def upkeep(self) -> Upkeep[U]:
        """Opens, closes and prunes the store; for code that serves requests."""
        return self._upkeep

    def actions(self, part: TypedActions[F]) -> F:
        """The actions of a strategy or an add-on, with their types. Their outcomes are carried out.

        ``user, token = await auth.actions(password).sign_in({…})``, where *password* is the ``Password`` in use.

        Args:
            part: The object that was passed in ``strategies`` or ``add_ons``.

        Raises:
            ConfigurationError: *part* is another object.
        """
        if not any(part is known for known in self._parts):
            raise ConfigurationError("actions: the object is not in strategies or add_ons; pass the same object")
        parts: Mapping[str, Any] = {**self._strategies, **self._add_ons}
        return cast("F", self._finishing(getattr(part, "name"), parts))  # noqa: B009  # a type variable has no name

    def strategy(self, name: str) -> Any:
        """The actions of a strategy, by name and without types: ``auth.strategy("password").sign_in({…})``.

        Raises:
            ConfigurationError: there is no such strategy.
        """
        return self._finishing(name, self._strategies)

    def add_on(self, name: str) -> Any:
        """The actions of an add-on, by name and without types. Raises as ``strategy``."""
        return self._finishing(name, self._add_ons)

    def _finishing(self, name: str, parts: Mapping[str, Any]) -> Any:
        if name not in parts:
            raise ConfigurationError(f"there is no {name!r}; there is: {', '.join(parts)}")
        if name not in self._verbs:
            self._verbs[name] = Verbs(self, name, parts[name])
        return self._verbs[name]

    async def sign_in(
        self, user: U, *, client: Client = Client(), remember: bool = False, factor: str = "application"
    ) -> AccessToken:
        """Sign in a user whom the application has identified by itself. Every hook may still refuse the sign-in.

        Raises:
            AuthenticationFailedError: the user was deleted or disabled, or a hook refuses the sign-in.
            FactorRequiredError: another factor is required; pass ``pending_token`` to the method of its strategy.
            StoreUnavailableError: the database does not answer.
        """

        async def act() -> SignedIn:
            found = await self._scoped.users.get(self._scoped.users.user_id(user))
            if found is None:
                raise AuthenticationFailedError("the user is gone", cause="unknown_user")
            proof = Proof(account=found.account, factor=factor, at=self.clock())
            return SignedIn(found.user, proof, remember=remember)

        finished: Any = await self.perform(Activity(None, "sign_in"), act, client)
        return cast("AccessToken", finished.token)

    def state(self, connection: Any) -> AuthState:
        """The state that a middleware of *this* ``Authentication`` found for a request, websocket or scope.

        If the request has a credential that no middleware checked, ``error`` names the missing middleware.
        """
        scope = connection if isinstance(connection, dict) else connection.scope
        written = scope.get("asgi_auth")
        state = written if isinstance(written, AuthState) else self.recognition.anonymous
        if state.authentication is not self:
            return self.recognition.anonymous
        if state.method is not None or state.error is not None:
            return state
        error = self.recognition.missing(scope)
        return state if error is None else state._replace(error=error)

    def user(self, connection: Any) -> U | None:
        """The user of a request or websocket, with its type. Returns None if no user is signed in."""
        scope = connection if isinstance(connection, dict) else connection.scope
        state = scope.get("asgi_auth")
        if not isinstance(state, AuthState) or state.authentication is not self or state.method is None:
            return None
        return cast("U", state.user)

    # --- acts

    async def perform(
        self,
        activity: Activity,
        act: Callable[[], Awaitable[Any]],
        client: Client,
        *,
        params: Mapping[str, Any] = EMPTY,
        actor: str | None = None,
    ) -> Finished | Outcome | Any:
        """Run an action and carry out its outcome; for the plug and for ``strategy(name)``.

        It calls ``before`` of every hook first. A refusal becomes an event and a log line, and is then raised.

        Args:
            activity: The strategy and phase.
            act: The action.
            client: The client that asks.
            params: The client's parameters, without secrets.
            actor: The id of the user who is signed in; None: no user is signed in, or the user is not known.
        """
        running_loop()
        if not self._upkeep.opened:
            await self.open()
        commit = self._services.commit
        with commit.acting(activity, client=client, actor=actor) as acting:
            try:
                for hook in self._hooks:
                    await hook.before(activity, client, params)
                outcome = await self.finish(await act(), client)
            except (ConfigurationError, FactorRequiredError, UnavailableError):
                raise  # nothing was refused
            except AuthError as exc:
                if isinstance(exc, AuthenticationFailedError):
                    logger.info("%s refused: %s", ".".join(filter(None, activity)), exc.reason)
                if acting.whole is None:  # otherwise the whole act emits the event, if it fails
                    failed = ActFailed(at=self.clock(), code=exc.code, cause=exc.cause, user_id=exc.user_id)
                    await commit.note(failed)
                raise
            if isinstance(outcome, Accepted | TokenIssued) and acting.whole is None and not acting.told:
                user_id = None if outcome.user is None else self.accounts.user_id(outcome.user)
                await commit.note(ActAccepted(at=self.clock(), user_id=user_id))
            return outcome

    async def finish(self, outcome: Any, client: Client) -> Finished | Outcome | Any:
        """Carry out the outcome of an action. Only ``sessions.mint`` turns a sign-in into a session."""
        if isinstance(outcome, SignedIn):
            return await self._finish_sign_in(outcome, client)
        if isinstance(outcome, Accepted) and outcome.then is not None:
            await self._services.commit.schedule(outcome.then)
        return outcome

    async def _finish_sign_in(self, outcome: SignedIn, client: Client) -> Finished | Accepted:
        try:
            token = await self.sessions.mint(outcome, client)
        except (AuthenticationFailedError, UnavailableError):
            if outcome.settled:  # a refusal would suggest that the committed part failed
                return Accepted(user=outcome.user)
            raise
        return Finished(outcome.user, token)

    # --- life

    async def open(self) -> None:
        """Open the store, if no lifespan or middleware does. A second call does nothing.

        Raises:
            ConfigurationError, StoreUnavailableError: as ``Store.open``.
        """
        await self._upkeep.open()

    async def close(self) -> None:
        """Close the store and the hashing threads. Both open again on their own when required."""
        await self._upkeep.close()

    @property
    def closed(self) -> bool:
        """True after ``close()`` until the store is opened again."""
        return self._upkeep.closed

    def running(self) -> AbstractAsyncContextManager[None]:
        """Keep the store open and prune it regularly within this block. Several blocks may be active at once."""
        return self._upkeep.running()

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:
        """For the application's ``lifespan=``."""
        return self._upkeep.running()

    async def prune(self) -> int:
        """Delete expired rows in small batches. Returns the number of deleted rows.

        Raises:
            ConfigurationError: the database has no schema; this does not create one.
            StoreUnavailableError: the database does not answer.
        """
        return await self._upkeep.prune()
