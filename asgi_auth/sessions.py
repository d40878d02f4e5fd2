"""The only writer of sessions: admit (rejects disabled users), mint, load, touch, list and revoke.

This module also stores sign-ins that wait for their next factor.

A session cookie is a 256-bit secret. It is signed, so that garbage is rejected without a query. The store keeps the
hash of the secret. A session is live while the account has the stamp that was read when the proof began.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast
from uuid import uuid4

from itsdangerous import BadSignature, Signer

from asgi_auth.acts import Attempt, Proof, Spend
from asgi_auth.checks import check_duration
from asgi_auth.commit import Commit
from asgi_auth.errors import AuthenticationFailedError, ConfigurationError, FactorRequiredError, InvalidTokenError
from asgi_auth.events import SessionsRevoked, SignInPending, SignInSucceeded
from asgi_auth.hooks import Hook
from asgi_auth.phases import SignedIn
from asgi_auth.protocol.keys import derive_key
from asgi_auth.store import Loaded, ScopedStore, Work, id_of
from asgi_auth.tokens import BASE64_OF_32_BYTES, Tokens, hash_token, new_stamp
from asgi_auth.types import EMPTY, AccessToken, Account, Client, Clock, Session
from asgi_auth.verified import VerifiedCredentials

U = TypeVar("U")

PENDING_FACTOR = "pending_factor"
"""The purpose of the token of a sign-in between two factors."""

_COOKIE_VALUE = re.compile(rf"{BASE64_OF_32_BYTES}\.{BASE64_OF_32_BYTES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How long users stay signed in.

    Args:
        idle_lifetime: A session ends if it is not used for this time.
        lifetime: A session ends this time after the sign-in, even if it is in use.
        remembered_lifetime: Both lifetimes, for a session that outlives the browser (``remember_me``).
        touch_interval: The shortest time between two writes of ``last_seen_at``.
        pending_lifetime: How long a sign-in waits for its second factor.

    Raises:
        ConfigurationError: a lifetime is not positive, or two of them contradict each other.
    """

    idle_lifetime: timedelta = timedelta(hours=12)
    lifetime: timedelta = timedelta(days=7)
    remembered_lifetime: timedelta = timedelta(days=30)
    touch_interval: timedelta = timedelta(minutes=1)
    pending_lifetime: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_duration(f"session: {name}", getattr(self, name))
        if self.idle_lifetime > self.lifetime:
            raise ConfigurationError("session: idle_lifetime must not be over lifetime")
        if self.touch_interval >= self.idle_lifetime:
            raise ConfigurationError("session: touch_interval must be under idle_lifetime")


@dataclass(frozen=True, slots=True)
class PendingSignIn(Generic[U]):
    """A sign-in that waits for its next factor."""

    user: U
    proof: Proof
    """The factors that are proven so far."""
    factors: tuple[str, ...]
    """The names of the factors that were possible when the sign-in began to wait."""
    _: KW_ONLY
    remember: bool
    registered: bool
    """True for the sign-in at the end of a registration."""
    replaces: str | None
    """The id of the session that the new session replaces. It stays live until then."""
    spend: Spend = field(repr=False)

    def complete(self, factor: str, at: datetime) -> SignedIn:
        """The outcome of a step that proved *factor* at *at*. Of two concurrent steps, one gets a session."""
        return SignedIn(
            self.user,
            self.proof.then(factor, at),
            remember=self.remember,
            registered=self.registered,
            replaces=self.replaces,
            spend=self.spend,
        )


class Sessions(Generic[U]):
    """The sessions of one ``Authentication``."""

    def __init__(
        self,
        store: ScopedStore[U],
        *,
        keys: tuple[bytes, ...],
        subject_name: str,
        options: SessionOptions,
        clock: Clock,
        tokens: Tokens[U],
        commit: Commit[U],
        hooks: Sequence[Hook],
    ) -> None:
        """Args: keys: The application's secrets, newest first."""
        self._store, self._clock, self._options = store, clock, options
        self._tokens, self._commit, self._hooks = tokens, commit, hooks
        derived = [derive_key(key, "session_cookie", subject_name) for key in keys]
        self._signer = Signer(
            derived[::-1],  # itsdangerous signs with the last
            salt="asgi_auth.session_cookie",
            digest_method="sha256",
            key_derivation="hmac",
        )
        self._verified = VerifiedCredentials[bytes]()

    # --- minting

    async def admit(self, outcome: SignedIn, client: Client) -> tuple[str, ...]:
        """Pass a sign-in to the ``admit`` of every hook.

        Returns:
            The names of the factors that a hook still requires; empty: the user may sign in.

        Raises:
            AuthenticationFailedError: the account is disabled, or a hook refuses the sign-in.
        """
        if outcome.proof.account.disabled_at is not None:
            account = outcome.proof.account
            raise AuthenticationFailedError("the account is disabled", cause="disabled", user_id=account.user_id)
        attempt = Attempt(
            user=outcome.user,
            proof=outcome.proof,
            client=client,
            remember=outcome.remember,
            registered=outcome.registered,
        )
        required = [await hook.admit(attempt) for hook in self._hooks]
        return tuple(dict.fromkeys(name for each in required if each is not None for name in each.factors))

    async def mint(self, outcome: SignedIn, client: Client) -> AccessToken:
        """The one function that creates sessions, for every strategy.

        It calls every ``admit``. Then one transaction consumes the token of the client, ends the session and the
        pending sign-in of this browser, and writes the new session.

        Raises:
            AuthenticationFailedError: a hook refuses the sign-in, or the account is disabled.
            FactorRequiredError: another factor is required. The error has a token for ``pending``; no session exists.
            InvalidTokenError: the token was consumed before, or the session to replace has ended.
            StoreUnavailableError: the database does not answer. Nothing was changed.
        """
        required = await self.admit(outcome, client)
        if required:
            raise FactorRequiredError(required, await self._pend(outcome, required, client))
        session, secret = self._new_session(outcome, client), secrets.token_urlsafe(32)

        async def act(work: Work[U]) -> None:
            if outcome.spend is not None:
                await outcome.spend(work)
            if outcome.replaces is not None:
                await self._replace(work, outcome.replaces, session.user_id)
            await self._end_shown(work, client.session_hashes)
            await self._end_pending(work, client)
            await work.sessions.insert(session, hash_token(secret))
            work.emit(
                SignInSucceeded(
                    at=session.created_at,
                    user_id=session.user_id,
                    session=session,
                    factor=outcome.proof.factor,
                )
            )

        await self._commit(act, verb="sign_in", client=client)
        token, expires_at = self._tokens.issue_access(session)
        return AccessToken(token, cookie=self._sign(secret), session=session, expires_at=expires_at)

    def _new_session(self, outcome: SignedIn, client: Client) -> Session:
        now, options = self._clock(), self._options
        lifetime = options.remembered_lifetime if outcome.remember else options.lifetime
        return Session(
            id=str(uuid4()),
            user_id=outcome.proof.account.user_id,
            stamp=outcome.proof.account.stamp,
            created_at=now,
            last_seen_at=now,
            idle_expires_at=now + self._idle_lifetime(remembered=outcome.remember),
            expires_at=now + lifetime,
            label=client.label,
            factors=outcome.proof.factors,
            remembered=outcome.remember,
        )

    async def _end_shown(self, work: Work[U], secret_hashes: Sequence[bytes]) -> bool:
        """End the sessions whose cookies the client sent. Returns True if one was live."""
        now = self._clock()
        ended = await work.sessions.revoke_by_secrets(secret_hashes, now=now) if secret_hashes else ()
        for session in ended:
            work.emit(SessionsRevoked(at=now, user_id=session.user_id, session_id=session.id))
        return bool(ended)

    async def _end_pending(self, work: Work[U], client: Client) -> None:
        """End the pending sign-ins of this browser, so that its next user cannot continue them."""
        for token_hash in client.pending_hashes:
            await work.tokens.consume(PENDING_FACTOR, token_hash, now=self._clock())

    async def _replace(self, work: Work[U], session_id: str, user_id: str) -> None:
        """End the session that a new one replaces. This also ends all of its tokens."""
        now = self._clock()
        if not await work.sessions.revoke(session_id, user_id=user_id, now=now):
            raise _ended()
        work.emit(SessionsRevoked(at=now, user_id=user_id, session_id=session_id))

    # --- signing in by several factors

    async def _pend(self, outcome: SignedIn, required: tuple[str, ...], client: Client) -> str:
        """Store the proofs so far, and return the token with which the next step finds them."""
        proof = outcome.proof
        issued = self._tokens.make(
            PENDING_FACTOR,
            account=proof.account,
            lifetime=self._options.pending_lifetime,
            extra_data={
                "required": list(required),
                "proven": [[name, at.isoformat()] for name, at in proof.factors.items()],
                "remember": outcome.remember,
                "registered": outcome.registered,
                "replaces": outcome.replaces,
            },
        )

        async def act(work: Work[U]) -> None:
            if outcome.spend is not None:
                await outcome.spend(work)
            await self._end_pending(work, client)
            await work.tokens.insert(issued.record)
            work.emit(
                SignInPending(
                    at=issued.record.created_at,
                    user_id=proof.account.user_id,
                    factors=required,
                )
            )

        await self._commit(act, verb="sign_in", client=client)
        return issued.token

    async def pending(self, token: str | None) -> PendingSignIn[U]:
        """The pending sign-in of *token*; changes nothing.

        Raises:
            InvalidTokenError: the token is not live: it expired or was consumed, or the account has changed.
            StoreUnavailableError: the database does not answer.
        """
        record = await self._tokens.peek(PENDING_FACTOR, token or "")
        found = await self._store.users.get(record.user_id or "")
        if found is None or record.stamp is None:
            raise InvalidTokenError("the user of the pending sign-in is gone", cause="unknown_user")
        proof: Proof | None = None
        for name, at in record.extra_data["proven"]:
            # The stamp of the token, not the current one: a change since then must end the sign-in.
            proof = _begin(replace(found.account, stamp=record.stamp), proof, name, datetime.fromisoformat(at))

        async def spend(work: Work[Any]) -> None:
            await self._tokens.consume(work, PENDING_FACTOR, token or "")

        return PendingSignIn(
            found.user,
            cast("Proof", proof),
            tuple(record.extra_data["required"]),
            remember=record.extra_data["remember"],
            registered=record.extra_data["registered"],
            replaces=record.extra_data["replaces"],
            spend=spend,
        )

    # --- the cookie

    def _sign(self, secret: str) -> str:
        return self._signer.sign(secret).decode()

    def cookie_hash(self, cookie: str) -> bytes:
        """The look-up hash of a cookie that we signed. Raises InvalidTokenError for any other, without a query.

        A valid cookie is cached by its full SHA-256, so that the next request need not verify the signature again. The
        session is read from the store at every request.
        """
        secret_hash = self._verified.get(cookie)
        if secret_hash is None:
            secret_hash = self._check_signature(cookie)
            self._verified.keep(cookie, secret_hash)
        return secret_hash

    def _check_signature(self, cookie: str) -> bytes:
        if not _COOKIE_VALUE.fullmatch(cookie):
            raise InvalidTokenError("the session cookie is malformed")
        try:
            return hash_token(self._signer.unsign(cookie).decode())
        except BadSignature as exc:
            self._tokens.tell_foreign("a session cookie")
            raise InvalidTokenError("the session cookie has a bad signature") from exc

    # --- reading

    async def load(self, cookie: str, *, now: datetime | None = None) -> Loaded[U]:
        """The session that a cookie opens, with its user: one query.

        Args:
            cookie: The value of the cookie, as the client sent it.
            now: The instant at which the session must be live; None: the clock's.

        Raises:
            InvalidTokenError: the cookie is forged, the session ended or expired, or the account has changed since.
            StoreUnavailableError: the database does not answer.
        """
        loaded = await self._store.sessions.load(self.cookie_hash(cookie), now=now or self._clock())
        if loaded is None:
            raise InvalidTokenError("the session is over")
        return loaded

    async def load_bearer(self, token: str, *, now: datetime | None = None) -> Loaded[U]:
        """The session that an access token names, with its user: one query. *now* and errors as ``load``."""
        now = now or self._clock()
        claims = self._tokens.verify_access(token, now=now)
        loaded = await self._store.sessions.load_by_id(claims.session_id, now=now)
        if loaded is None or loaded.session.user_id != claims.user_id:
            raise InvalidTokenError("the session of the access token is over")
        return loaded

    async def list(self, user: U | str) -> Sequence[Session]:
        """The live sessions of a user, who is given as an object or as an id; last seen first."""
        return await self._store.sessions.list(id_of(self._store.users, user), now=self._clock())

    def is_fresh(self, session: Session, within: timedelta, factor: str | None = None) -> bool:
        """True if the user proved a factor in *session* at most *within* ago. A remembered session is never fresh.

        Args:
            session: The session whose ``factors`` are read. There is no query.
            within: The maximum age, inclusive.
            factor: The required factor, by the name of its strategy; None: any.
        """
        newest = max(session.factors.values(), default=None) if factor is None else session.factors.get(factor)
        return not session.remembered and newest is not None and self._clock() - newest <= within

    # --- writing

    def touch_due(self, session: Session, now: datetime) -> bool:
        """True if ``last_seen_at`` is old enough at *now* to be written again."""
        return now - session.last_seen_at >= self._options.touch_interval

    async def touch(self, session: Session) -> None:
        """Write that the session was used. Its idle time starts again."""
        now = self._clock()
        idle_expires_at = now + self._idle_lifetime(remembered=session.remembered)
        await self._store.sessions.touch(session.id, last_seen_at=now, idle_expires_at=idle_expires_at)

    def _idle_lifetime(self, *, remembered: bool) -> timedelta:
        return self._options.remembered_lifetime if remembered else self._options.idle_lifetime

    async def revoke(self, session_id: str, *, user_id: str | None = None, client: Client | None = None) -> bool:
        """End one session; with *user_id* only a session of this user. Returns True if it was live."""
        now = self._clock()

        async def act(work: Work[U]) -> bool:
            ended = await work.sessions.revoke(session_id, user_id=user_id, now=now)
            if ended:
                work.emit(SessionsRevoked(at=now, user_id=user_id, session_id=session_id))
            return ended

        return await self._commit(act, verb="revoke", client=client)

    async def revoke_cookie(self, cookie: str, *, client: Client | None = None) -> bool:
        """End the session of *cookie*. Returns True if it was live; False also for a cookie that we did not sign."""
        try:
            secret_hash = self.cookie_hash(cookie)
        except InvalidTokenError:
            return False
        return await self._commit(lambda work: self._end_shown(work, [secret_hash]), verb="revoke", client=client)

    async def revoke_shown(self, client: Client) -> bool:
        """End every session and pending sign-in whose cookie *client* sent. Returns True if a session was live.

        Without such a cookie nothing is written.

        Raises:
            StoreUnavailableError: the database does not answer. Nothing was changed.
        """

        async def act(work: Work[U]) -> bool:
            await self._end_pending(work, client)
            return await self._end_shown(work, client.session_hashes)

        if not (client.session_hashes or client.pending_hashes):
            return False
        return await self._commit(act, verb="sign_out", client=client)

    async def revoke_all(self, user: U | str, *, except_: Session | None = None, actor: U | str | None = None) -> None:
        """Sign the user out everywhere. This ends every session except *except_*, mail token and unfinished sign-in.

        Args:
            user: The user, as an object or as an id.
            except_: The session that stays live; None: every session ends.
            actor: The user who does this, for the events; None: the application itself.

        Raises:
            InvalidTokenError: *except_* has ended in the meantime. Nothing was changed.
        """
        user_id = id_of(self._store.users, user)

        async def act(work: Work[U]) -> None:
            await self.renew_stamp(work, user_id, acting=except_)

        await self._commit(act, verb="revoke_all", actor=None if actor is None else id_of(self._store.users, actor))

    async def renew_stamp(
        self,
        work: Work[Any],
        user_id: str,
        *,
        acting: Session | None = None,
        changes: Mapping[str, Any] = EMPTY,
        expected: Mapping[str, Any] = EMPTY,
    ) -> Account | None:
        """Write a new stamp together with *changes* of the account. Returns None if *expected* does not match any more.

        The commit ends everything that has the old stamp: sessions, mail tokens, and sign-ins whose proof began before.
        Only the *acting* session gets the new stamp, and only if it is still live: a request may have been delayed
        since its session was loaded.

        Raises:
            InvalidTokenError: the *acting* session has ended. The caller must roll the transaction back.
        """
        now, stamp = self._clock(), new_stamp()
        kept = await self.acting(work, acting, user_id)
        if kept is not None:
            if expected.get("stamp", kept.stamp) != kept.stamp:
                return None
            expected = {**expected, "stamp": kept.stamp}
        account = await work.accounts.update(user_id, {**changes, "stamp": stamp}, expected=expected)
        if account is None:
            return None
        if kept is not None and not await work.sessions.restamp(kept.id, stamp):
            raise _ended()
        await work.sessions.revoke_all(user_id, except_id=None if kept is None else kept.id, now=now)
        work.emit(SessionsRevoked(at=now, user_id=user_id))
        return account

    async def acting(self, work: Work[Any], session: Session | None, user_id: str) -> Session | None:
        """Reload the session in which a user acts on their own account.

        Returns:
            The session. None if there is no session, or if it belongs to another user and proves nothing about this
            account.

        Raises:
            InvalidTokenError: the session has ended since it was loaded.
        """
        if session is None or session.user_id != user_id:
            return None
        loaded = await work.sessions.load_by_id(session.id, now=self._clock())
        if loaded is None:
            raise _ended()
        return loaded.session


def _begin(account: Account, proof: Proof | None, factor: str, at: datetime) -> Proof:
    return Proof(account=account, factor=factor, at=at) if proof is None else proof.then(factor, at)


def _ended() -> InvalidTokenError:
    return InvalidTokenError("the acting session has ended in the meantime", cause="session_ended")
