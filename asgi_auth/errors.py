"""Every error of the package, and nothing else.

AuthError
├─ ConfigurationError
├─ RequestError
│  ├─ MalformedRequestError, RouteNotFoundError, MethodNotAllowedError, SlowRequestError
│  └─ BodyTooLargeError, MediaTypeError, MisdirectedRequestError
├─ ValidationError
│  └─ IdentityTakenError
├─ AuthenticationFailedError
│  └─ InvalidTokenError
├─ FactorRequiredError
├─ ForbiddenError
│  └─ CrossSiteError, NotFreshError
├─ RateLimitedError
├─ UnavailableError
│  └─ OverloadedError, StoreUnavailableError
└─ SenderError, ProviderError

Every client may see ``code``, ``status``, ``title``, ``detail``, ``fields`` and ``headers``. ``reason`` has the real
cause and is for the log only. In a response it would reveal which half of a credential was right.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from asgi_auth.messages import Message

Cause = Literal[
    "account_changed",
    "cross_site",
    "dead_token",
    "disabled",
    "identity_taken",
    "internal",
    "invalid_parameters",
    "malformed",
    "no_password",
    "not_admitted",
    "not_allowed",
    "not_fresh",
    "not_signed_in",
    "other_factor",
    "session_ended",
    "too_many_tries",
    "unavailable",
    "unknown_user",
    "unproven_address",
    "wrong_code",
    "wrong_password",
]
"""Why an act was refused, as one word. Only the log and the events have it."""


class AuthError(Exception):
    """The root of every error that this package raises on purpose.

    Args:
        reason: The real cause, for the log. No client sees it.
        fields: Messages by the name of their parameter. The client sees them.
        detail: What the client must do differently, in a sentence or two. The client sees it. It must not depend on a
            secret. Empty: the title is sufficient.
        headers: HTTP headers that the response must have.
        cause: The same as *reason* as one word, for events; None: the cause of the class.
        user_id: The id of the user whom the error is about, for events; None if that is not known.
    """

    code: ClassVar[str] = "auth_error"
    """Stable and public: programs may compare it."""
    status: ClassVar[int] = 500
    """The HTTP status of the response."""
    title: ClassVar[Message] = Message("error.internal", "Something went wrong")
    """What happened, for the client: the same for every cause. It is the heading of a page, without a full stop."""
    advice: ClassVar[Message] = Message("error.internal.advice", "Please try again later.")
    """What the user can do now, in sentences."""
    cause: Cause = "internal"

    def __init__(
        self,
        reason: str = "",
        *,
        fields: Mapping[str, str] | None = None,
        detail: str = "",
        headers: Mapping[str, str] | None = None,
        cause: Cause | None = None,
        user_id: str | None = None,
    ) -> None:
        super().__init__(reason or self.title)
        self.reason = reason or self.title
        self.cause, self.user_id = cause or type(self).cause, user_id
        self.fields: Mapping[str, str] = dict(fields or {})
        self.detail = detail
        self.headers: Mapping[str, str] = dict(headers or {})


class ConfigurationError(AuthError):
    """The configuration is invalid. It is raised at the start and names the parameter."""

    code = "configuration_error"
    title = Message("error.configuration", "The application is not configured correctly")


class RequestError(AuthError):
    """The request is invalid."""

    code = "request_error"
    status = 400
    title = Message("error.request", "The request cannot be served")
    advice = Message("error.request.advice", "Go back to the page before this one and try again.")
    cause: Cause = "malformed"


class MalformedRequestError(RequestError):
    """The request is malformed: invalid JSON, a repeated parameter, or two credentials at once."""

    code = "malformed_request"
    status = 400
    title = Message("error.malformed", "The request could not be read")


class RouteNotFoundError(RequestError):
    """There is no such strategy, or it has no such phase."""

    code = "route_not_found"
    status = 404
    title = Message("error.not_found", "There is nothing at this address")
    advice = Message("error.not_found.advice", "Check the address, or go back to the start.")


class MethodNotAllowedError(RequestError):
    """The phase does not support this method; ``headers`` has Allow (RFC 9110 section 15.5.6)."""

    code = "method_not_allowed"
    status = 405
    title = Message("error.method", "This address cannot be used in this way")
    advice = Message("error.method.advice", "Go back to the start and follow the links from there.")


class SlowRequestError(RequestError):
    """The body did not arrive in time (RFC 9110 section 15.5.9)."""

    code = "slow_request"
    status = 408
    title = Message("error.slow", "The request took too long to arrive")
    advice = Message("error.slow.advice", "Check your connection and try again.")


class BodyTooLargeError(RequestError):
    """The body is over the limit (RFC 9110 section 15.5.14)."""

    code = "body_too_large"
    status = 413
    title = Message("error.too_large", "The request is too large")
    advice = Message("error.too_large.advice", "Enter less and try again.")


class MediaTypeError(RequestError):
    """The body is neither a JSON object nor an urlencoded form in UTF-8 (RFC 9110 section 15.5.16)."""

    code = "unsupported_media_type"
    status = 415
    title = Message("error.media_type", "The request must be JSON or a form, in UTF-8")


class MisdirectedRequestError(RequestError):
    """A local instance got a request for a foreign Host: DNS rebinding (RFC 9110 section 15.5.20)."""

    code = "misdirected_request"
    status = 421
    title = Message("error.misdirected", "The request was sent to the wrong host")


class ValidationError(AuthError):
    """Some parameters are invalid; ``fields`` has the reason for each. Nothing was stored or consumed."""

    code = "validation_failed"
    status = 422
    title = Message("error.invalid", "Some fields are not right yet")
    advice = Message("error.invalid.advice", "Correct them and try again.")
    cause: Cause = "invalid_parameters"


class IdentityTakenError(ValidationError):
    """Another account already has this address or name."""

    code = "identity_taken"
    title = Message("error.taken", "There is already an account with this address or name")
    cause: Cause = "identity_taken"


class AuthenticationFailedError(AuthError):
    """The credentials were rejected. The client gets the same answer for every cause."""

    code = "authentication_failed"
    status = 401
    title = Message("error.denied", "Access denied")
    advice = Message("error.denied.advice", "Sign in and try again.")
    cause: Cause = "not_admitted"


class InvalidTokenError(AuthenticationFailedError):
    """The token is not live: unknown, altered, consumed, expired, retired or issued for another purpose.

    The code is the error value of RFC 6750 section 3.1.
    """

    code = "invalid_token"
    title = Message("error.dead_link", "This link or token is no longer valid")
    advice = Message(
        "error.dead_link.advice",
        "It was used already, it has expired, or a newer one has replaced it. If you opened it before, it may have done"
        " its work: try to sign in. If you cannot, ask for a new one.",
    )
    cause: Cause = "dead_token"


class FactorRequiredError(AuthError):
    """The sign-in waits for another factor. This is not a failure: the first factor was proven.

    Args:
        factors: The names of the possible factors. One of them is required.
        pending_token: The secret token with which the next step continues this sign-in.
    """

    code = "factor_required"
    status = 401
    title = Message("error.factor", "Another step is required to sign in")
    cause: Cause = "other_factor"

    def __init__(self, factors: Sequence[str], pending_token: str = "") -> None:
        super().__init__(f"another factor is needed: {' or '.join(factors)}")
        self.factors, self.pending_token = tuple(factors), pending_token


class ForbiddenError(AuthError):
    """The user is known, but not allowed to do this."""

    code = "forbidden"
    status = 403
    title = Message("error.forbidden", "You are not allowed to do this")
    advice = Message("error.forbidden.advice", "Go back to the page before this one.")
    cause: Cause = "not_allowed"


class CrossSiteError(ForbiddenError):
    """A browser sent the request on behalf of another site."""

    code = "cross_site"
    title = Message("error.cross_site", "The request came from another site")
    advice = Message("error.cross_site.advice", "Open the page on this site and try again.")
    cause: Cause = "cross_site"


class NotFreshError(ForbiddenError):
    """The user must prove a factor again: the last proof in this session is too old, or a factor is missing."""

    code = "not_fresh"
    title = Message("error.not_fresh", "Confirm who you are to do this")
    advice = Message("error.not_fresh.advice", "Enter your password once more.")
    cause: Cause = "not_fresh"


class RateLimitedError(AuthError):
    """There were too many tries; ``headers`` has Retry-After (RFC 6585 section 4)."""

    code = "rate_limited"
    status = 429
    title = Message("error.rate_limited", "Too many attempts")
    advice = Message("error.rate_limited.advice", "Wait a while, then try again.")
    cause: Cause = "too_many_tries"


class UnavailableError(AuthError):
    """A required service does not answer now. Nothing was lost or consumed. The client may try again."""

    code = "unavailable"
    status = 503
    title = Message("error.unavailable", "The service is busy at the moment")
    advice = Message("error.unavailable.advice", "Nothing was changed. Try again in a few seconds.")
    cause: Cause = "unavailable"

    def __init__(self, reason: str = "", *, retry_after: int = 1) -> None:
        """Args: retry_after: Seconds for the Retry-After header (RFC 9110 section 10.2.3)."""
        super().__init__(reason, headers={"Retry-After": str(retry_after)})


class OverloadedError(UnavailableError):
    """Too many passwords wait to be hashed."""

    code = "overloaded"


class StoreUnavailableError(UnavailableError):
    """The database is locked, read-only, full or unreachable."""

    code = "store_unavailable"


class SenderError(AuthError):
    """A sender could not send a message. No client sees this error.

    Its text is for the log and for ``DeliveryFailed``. It has the reason, but no address, token or password.
    """

    code = "sender_error"
    title = Message("error.sender", "A message could not be sent")


class ProviderError(AuthError):
    """An identity provider gave an invalid answer. No client sees this error."""

    code = "provider_error"
    title = Message("error.provider", "The identity provider did not answer as it should")
