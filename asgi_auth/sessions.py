"""The only writer of sessions: admit (who may come in: no disabled user), mint, load, touch, list, revoke.

Sign-ins that wait for their next factor are here, too.

A session cookie is a 256-bit secret, signed so that garbage is refused before the store is asked. The store keeps the
hash of the secret. A session is alive while the account has the stamp that was read when the proof began.
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
"""Purpose of the token that stands between the first factor and the next one."""

_COOKIE_VALUE = re.compile(rf"{BASE64_OF_32_BYTES}\.{BASE64_OF_32_BYTES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How long people stay signed in.

    Args:
        idle_lifetime: A session ends when it was not used for so long.
        lifetime: A session ends so long after the sign-in, however busy it is.
        remembered_lifetime: Both, for a session that was asked to outlive the browser (``remember_me``).
        touch_interval: ``last_seen_at`` is written at most so often.
        pending_lifetime: How long a sign-in waits for its second factor.

    Raises:
        ConfigurationError: a lifetime is not positive, or they contradict each other.
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
    """What was proven so far."""
    factors: tuple[str, ...]
    """The names of those that would do when it began to wait."""
    _: KW_ONLY
    remember: bool
    registered: bool
    """True for the sign-in that ends a registration."""
    replaces: str | None
    """The id of the session that it takes the place of; it lives until then."""
    spend: Spend = field(repr=False)

    def complete(self, factor: str, at: datetime) -> SignedIn:
        """The outcome of a step that has proven *factor* at *at*. Of two such steps at once one is minted."""
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
        """Ask every gate about a sign-in.

        Returns:
            The names of the factors that one of the gates still asks for; empty: the user may come in.

        Raises:
            AuthenticationFailedError: the account is disabled, or a hook refuses, whatever the others ask for.
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
        """The one function that makes sessions, whatever the first factor was.

        Asks every ``admit``; then, in one transaction, spends the token that was shown, ends the session that the
        browser had and its pending sign-in, and writes the new one.

        Raises:
            AuthenticationFailedError: a gate refuses.
            FactorRequiredError: another factor is missing. It bears a token for ``pending``; no session exists.
            InvalidTokenError: the token that was shown is spent, or the session that is replaced has ended.
            StoreUnavailableError: the database does not answer; nothing was changed.
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
        """End the sessions whose cookies were shown; True if one was alive."""
        now = self._clock()
        ended = await work.sessions.revoke_by_secrets(secret_hashes, now=now) if secret_hashes else ()
        for session in ended:
            work.emit(SessionsRevoked(at=now, user_id=session.user_id, session_id=session.id))
        return bool(ended)

    async def _end_pending(self, work: Work[U], client: Client) -> None:
        """End the sign-ins that wait in this browser for their next factor. Its next user must not continue them."""
        for token_hash in client.pending_hashes:
            await work.tokens.consume(PENDING_FACTOR, token_hash, now=self._clock())

    async def _replace(self, work: Work[U], session_id: str, user_id: str) -> None:
        """End the session that a new one takes the place of; then all its tokens are dead."""
        now = self._clock()
        if not await work.sessions.revoke(session_id, user_id=user_id, now=now):
            raise _ended()
        work.emit(SessionsRevoked(at=now, user_id=user_id, session_id=session_id))

    # --- signing in by several factors

    async def _pend(self, outcome: SignedIn, required: tuple[str, ...], client: Client) -> str:
        """Keep what was proven so far, under a token that the next step shows."""
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
        """The sign-in that waits for its next factor under *token*; changes nothing.

        Raises:
            InvalidTokenError: none does: it is over, or the account has changed.
            StoreUnavailableError: the database does not answer.
        """
        record = await self._tokens.peek(PENDING_FACTOR, token or "")
        found = await self._store.users.get(record.user_id or "")
        if found is None or record.stamp is None:
            raise InvalidTokenError("the user of the pending sign-in is gone", cause="unknown_user")
        proof: Proof | None = None
        for name, at in record.extra_data["proven"]:
            # The stamp of the token, not of now: what has changed since then has ended the sign-in.
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
        """The look-up hash of a cookie that we signed. InvalidTokenError for any other, before the store is asked.

        A cookie that passed is remembered by its full SHA-256, so that the next request does not pay for the
        signature again; whether its session is alive is always read.
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
            cookie: Its value, as it was sent.
            now: The instant at which it must be alive; None: the clock's.

        Raises:
            InvalidTokenError: forged, ended, expired, or the account has changed since.
            StoreUnavailableError: could not be checked.
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
        """The live sessions of a user, named by object or by id, last seen first."""
        return await self._store.sessions.list(id_of(self._store.users, user), now=self._clock())

    def is_fresh(self, session: Session, within: timedelta, factor: str | None = None) -> bool:
        """True if a factor was proven in *session* no longer ago than *within*; a remembered one is never fresh.

        Args:
            session: Of which ``factors`` is read. The store is not asked.
            within: The limit is included.
            factor: The one that counts, by name of the strategy; None: any.
        """
        newest = max(session.factors.values(), default=None) if factor is None else session.factors.get(factor)
        return not session.remembered and newest is not None and self._clock() - newest <= within

    # --- writing

    def touch_due(self, session: Session, now: datetime) -> bool:
        """Whether ``last_seen_at`` is at *now* old enough to be written."""
        return now - session.last_seen_at >= self._options.touch_interval

    async def touch(self, session: Session) -> None:
        """Note that the session was used, which moves its idle clock."""
        now = self._clock()
        idle_expires_at = now + self._idle_lifetime(remembered=session.remembered)
        await self._store.sessions.touch(session.id, last_seen_at=now, idle_expires_at=idle_expires_at)

    def _idle_lifetime(self, *, remembered: bool) -> timedelta:
        return self._options.remembered_lifetime if remembered else self._options.idle_lifetime

    async def revoke(self, session_id: str, *, user_id: str | None = None, client: Client | None = None) -> bool:
        """End one session; True if it was alive. With *user_id* only if it is that user's."""
        now = self._clock()

        async def act(work: Work[U]) -> bool:
            ended = await work.sessions.revoke(session_id, user_id=user_id, now=now)
            if ended:
                work.emit(SessionsRevoked(at=now, user_id=user_id, session_id=session_id))
            return ended

        return await self._commit(act, verb="revoke", client=client)

    async def revoke_cookie(self, cookie: str, *, client: Client | None = None) -> bool:
        """End the session that *cookie* opens; True if it was alive, False for any cookie that is not ours, too."""
        try:
            secret_hash = self.cookie_hash(cookie)
        except InvalidTokenError:
            return False
        return await self._commit(lambda work: self._end_shown(work, [secret_hash]), verb="revoke", client=client)

    async def revoke_shown(self, client: Client) -> bool:
        """End every session and every pending sign-in whose cookie *client* showed; True if a session was alive.

        Without such a cookie nothing is written.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was changed.
        """

        async def act(work: Work[U]) -> bool:
            await self._end_pending(work, client)
            return await self._end_shown(work, client.session_hashes)

        if not (client.session_hashes or client.pending_hashes):
            return False
        return await self._commit(act, verb="sign_out", client=client)

    async def revoke_all(self, user: U | str, *, except_: Session | None = None, actor: U | str | None = None) -> None:
        """Log out everywhere, or everywhere but here: every other session, mail token and sign-in in flight is dead.

        Args:
            user: Whose, named by object or by id.
            except_: The session that lives on; None: none does.
            actor: Who does it, for the events; None: the application itself.

        Raises:
            InvalidTokenError: *except_* has ended in the meantime; nothing was changed.
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
        """Write a new stamp together with *changes* of the account; None if *expected* does not hold any more.

        After the commit, whatever holds the old stamp is dead: sessions, mail tokens, and sign-ins whose proof began
        before. Only the *acting* session is handed the new one, and only while it is alive itself: a request may have
        been held back since its session was loaded.

        Raises:
            InvalidTokenError: the *acting* session has ended; the transaction must be rolled back.
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
        """The session in which a user acts on their own account, as its row is now.

        Returns:
            None where nobody acts by a session, or somebody else does: theirs proves nothing about this account.

        Raises:
            InvalidTokenError: it has ended since it was loaded, by whatever ends sessions.
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
