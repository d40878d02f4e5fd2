"""Access tokens (JWT, RFC 7519) and single-purpose tokens (opaque).

An access token only names a session. Every request reads this session from the store. A single-purpose token is 256
random bits without content. The store has a row with its purpose, found by the hash of the token.
"""

import hashlib
import logging
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

import jwt

from asgi_auth.errors import InvalidTokenError
from asgi_auth.protocol.keys import derive_key, key_id
from asgi_auth.runtime.telling import Telling
from asgi_auth.store import ScopedStore, TokenRecord, Work
from asgi_auth.types import EMPTY, Account, Clock, Session
from asgi_auth.verified import VerifiedCredentials

U = TypeVar("U")

ACCESS_LIFETIME = timedelta(days=7)
"""The longest life of an access token, also if its session lives longer."""
LEEWAY = 30
"""Seconds that another machine's clock may be ahead of ours (RFC 7519 section 4.1.5)."""
TOKEN_BYTES_LIMIT = 4096

_CLAIMS = ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "purpose")
_TEXT_CLAIMS = ("iss", "aud", "sub", "sid", "jti", "purpose")
_TIME_CLAIMS = ("iat", "nbf", "exp")
BASE64_OF_32_BYTES = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
"""Canonical base64url (RFC 4648 section 5). Decoders also accept other spellings, which would be other tokens here."""
_RANDOM = re.compile(BASE64_OF_32_BYTES)
_SERIALISED = re.compile(rf"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.{BASE64_OF_32_BYTES}")
_FOREIGN = (
    "was signed with another secret. If the code makes the secret, each worker and each start has a secret of its own, "
    "and none accepts what another has signed: make one with python -m asgi_auth secret, and keep it in an environment "
    "variable. After a change of the secret, and where another application on this host uses the same names, this line "
    "is expected"
)
_LATEST = 253_402_300_800  # the year 10000: later instants have no datetime


class AccessClaims(NamedTuple):
    """The claims of a verified access token. Authority comes from the session, never from ``user_id``."""

    session_id: str
    user_id: str
    nbf: int
    exp: int


class IssuedToken(NamedTuple):
    """A new single-purpose token, and its record for the store."""

    token: str
    record: TokenRecord

    def __repr__(self) -> str:
        return f"IssuedToken(purpose={self.record.purpose!r})"


def hash_token(token: str) -> bytes:
    """The look-up hash of a random token. SHA-256 is sufficient for 256 random bits."""
    return hashlib.sha256(token.encode()).digest()


def random_hash(token: str) -> bytes | None:
    """The look-up hash of a single-purpose token. Returns None for a malformed token, which then costs no query."""
    return hash_token(token) if _RANDOM.fullmatch(token) else None


def new_stamp() -> bytes:
    """128 random bits. A session or token is live only while it has the stamp of its account."""
    return secrets.token_bytes(16)


class Tokens(Generic[U]):
    """Issues and verifies the tokens of one ``Authentication``."""

    def __init__(
        self,
        store: ScopedStore[U],
        *,
        keys: tuple[bytes, ...],
        base_url: str,
        subject_name: str,
        clock: Clock,
        telling: Telling | None,
    ) -> None:
        """Set up the keys of every secret.

        Args:
            store: The store of single-purpose tokens.
            keys: The application's secrets, newest first.
            base_url: The issuer.
            subject_name: Part of every key and of ``aud``.
            clock: Returns the current aware UTC instant.
            telling: Logs a foreign signature; None: no log, as on an instance that is not local.
        """
        derived = [derive_key(key, "access_token", subject_name) for key in keys]
        self._store, self._clock, self._telling = store, clock, telling
        self._keys = {key_id(key): key for key in derived}
        self._kid = key_id(derived[0])
        self._issuer, self._audience = base_url, f"{base_url}/{subject_name}"
        self._subject_name = subject_name
        self._verified = VerifiedCredentials[AccessClaims]()

    # --- access tokens

    def subject(self, user_id: str) -> str:
        """The URI form of a user in a token: ``user?id=…``."""
        return f"{self._subject_name}?id={user_id}"

    def issue_access(self, session: Session) -> tuple[str, datetime]:
        """A JWT that names *session*, and the time when the JWT expires."""
        now = self._clock().replace(microsecond=0)
        exp = min(session.expires_at, now + ACCESS_LIFETIME)
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": self.subject(session.user_id),
            "sid": session.id,
            "jti": str(uuid4()),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(exp.timestamp()),
            "purpose": "access",
        }
        token = jwt.encode(claims, self._keys[self._kid], algorithm="HS256", headers={"kid": self._kid})
        return token, datetime.fromtimestamp(claims["exp"], UTC)  # type: ignore[arg-type]  # an int, just above

    def verify_access(self, token: str, *, now: datetime | None = None) -> AccessClaims:
        """Verify *token* and return its claims.

        A valid token is cached by its full SHA-256, so that the next request need not verify the signature again. Its
        times are checked at every use, and the caller reads its session.

        Args:
            token: The token as the client sent it.
            now: The instant at which the token must be valid; None: the clock's.

        Raises:
            InvalidTokenError: the token is altered, foreign, expired, not yet valid, or issued for another purpose.
        """
        known = self._verified.get(token)
        claims, seconds = known or self._decode(token), (now or self._clock()).timestamp()
        if seconds >= claims.exp:
            raise InvalidTokenError(f"access token expired {seconds - claims.exp:.0f} s ago")
        if seconds + LEEWAY < claims.nbf:
            raise InvalidTokenError(f"access token begins in {claims.nbf - seconds:.0f} s, by the clock that issued it")
        if known is None:
            self._verified.keep(token, claims)
        return claims

    def _decode(self, token: str) -> AccessClaims:
        if len(token) > TOKEN_BYTES_LIMIT or not _SERIALISED.fullmatch(token):
            raise InvalidTokenError("access token is malformed")
        try:
            header = jwt.get_unverified_header(token)
            if header.keys() - {"alg", "kid", "typ"}:  # "crit", "jku", "jwk", "b64" and the like (RFC 7515 section 4.1)
                raise InvalidTokenError("access token has foreign header parameters")
            if header["kid"] not in self._keys:
                raise self._unknown_key(token)
            claims = jwt.decode(
                token,
                self._keys[header["kid"]],
                algorithms=["HS256"],
                audience=self._audience,
                issuer=self._issuer,
                # We check the times ourselves, because PyJWT reads its own clock.
                options={
                    "require": list(_CLAIMS),
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError) as exc:
            raise InvalidTokenError(f"access token refused: {type(exc).__name__}") from exc
        return self._typed(claims)

    def _unknown_key(self, token: str) -> InvalidTokenError:
        if self._telling is not None:
            claims = jwt.decode(token, options={"verify_signature": False})  # used for the warning only
            if claims.get("aud") == self._audience:  # not for another kind of user
                self.tell_foreign("an access token")
        return InvalidTokenError("access token was signed with an unknown key")

    def tell_foreign(self, what: str) -> None:
        """On a local instance, warn once that *what* was signed with another secret, as code may generate it."""
        if self._telling is not None:
            self._telling.once(logging.WARNING, "foreign signature", f"{what} {_FOREIGN}")

    def _typed(self, claims: dict[str, Any]) -> AccessClaims:
        texts = all(type(claims[name]) is str for name in _TEXT_CLAIMS)
        times = all(type(claims[name]) is int and 0 <= claims[name] < _LATEST for name in _TIME_CLAIMS)
        if not texts or not times:
            raise InvalidTokenError("access token has a claim of the wrong type")
        if claims["purpose"] != "access":
            raise InvalidTokenError("token was made for something else")
        prefix = self.subject("")
        if not claims["sub"].startswith(prefix):
            raise InvalidTokenError("access token names another kind of user")
        not_before = max(claims["nbf"], claims["iat"])
        return AccessClaims(claims["sid"], claims["sub"].removeprefix(prefix), not_before, claims["exp"])

    # --- single-purpose tokens

    def make(
        self,
        purpose: str,
        *,
        account: Account | None,
        lifetime: timedelta,
        extra_data: Mapping[str, Any] = EMPTY,
        outlives_changes: bool = False,
    ) -> IssuedToken:
        """Return a new token. It becomes live when the caller stores its record.

        With *outlives_changes* a change of the account does not end it. Use this only for tokens that revert a change.
        """
        token, now = secrets.token_urlsafe(32), self._clock()
        record = TokenRecord(
            token_hash=hash_token(token),
            purpose=purpose,
            user_id=account.user_id if account else None,
            stamp=account.stamp if account and not outlives_changes else None,
            created_at=now,
            expires_at=now + lifetime,
            extra_data=extra_data,
        )
        return IssuedToken(token, record)

    async def issue(
        self, purpose: str, *, account: Account | None, lifetime: timedelta, extra_data: Mapping[str, Any] = EMPTY
    ) -> IssuedToken:
        """Make a token and store its record.

        Args:
            purpose: The only use of the token.
            account: The account of the user, as it was when the proof began; None if there is no user yet.
            lifetime: How long the token is valid.
            extra_data: JSON data that the client must not see.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        issued = self.make(purpose, account=account, lifetime=lifetime, extra_data=extra_data)
        await self._store.tokens.insert(issued.record)
        return issued

    async def peek(self, purpose: str, token: str) -> TokenRecord:
        """The record of a live token of *purpose*; changes nothing. Raises InvalidTokenError if it is not live."""
        token_hash, record = random_hash(token), None
        if token_hash is not None:
            record = await self._store.tokens.peek(purpose, token_hash, now=self._clock())
        return _live(record, purpose)

    async def consume(self, work: Work[Any], purpose: str, token: str) -> TokenRecord:
        """Consume a live token in the transaction of its effect. Raises InvalidTokenError if it is not live."""
        token_hash, record = random_hash(token), None
        if token_hash is not None:
            record = await work.tokens.consume(purpose, token_hash, now=self._clock())
        return _live(record, purpose)

    async def retire_older(self, record: TokenRecord) -> None:
        """Delete the user's tokens of the same purpose that are older than *record*."""
        if record.user_id is not None:
            await self._store.tokens.retire(record.purpose, record.user_id, older_than=record.token_hash)


def _live(record: TokenRecord | None, purpose: str) -> TokenRecord:
    if record is None:
        raise InvalidTokenError(f"no live {purpose} token")
    return record
