"""asgi_auth.errors: one class tree, and codes that programs can compare."""

import inspect

from asgi_auth import errors
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    InvalidTokenError,
    RateLimitedError,
    UnavailableError,
    ValidationError,
)

TREE = {
    "AuthError": ("Exception", "auth_error", 500),
    "ConfigurationError": ("AuthError", "configuration_error", 500),
    "RequestError": ("AuthError", "request_error", 400),
    "MalformedRequestError": ("RequestError", "malformed_request", 400),
    "RouteNotFoundError": ("RequestError", "route_not_found", 404),
    "MethodNotAllowedError": ("RequestError", "method_not_allowed", 405),
    "SlowRequestError": ("RequestError", "slow_request", 408),
    "BodyTooLargeError": ("RequestError", "body_too_large", 413),
    "MediaTypeError": ("RequestError", "unsupported_media_type", 415),
    "MisdirectedRequestError": ("RequestError", "misdirected_request", 421),
    "ValidationError": ("AuthError", "validation_failed", 422),
    "IdentityTakenError": ("ValidationError", "identity_taken", 422),
    "AuthenticationFailedError": ("AuthError", "authentication_failed", 401),
    "InvalidTokenError": ("AuthenticationFailedError", "invalid_token", 401),
    "FactorRequiredError": ("AuthError", "factor_required", 401),
    "ForbiddenError": ("AuthError", "forbidden", 403),
    "CrossSiteError": ("ForbiddenError", "cross_site", 403),
    "NotFreshError": ("ForbiddenError", "not_fresh", 403),
    "RateLimitedError": ("AuthError", "rate_limited", 429),
    "UnavailableError": ("AuthError", "unavailable", 503),
    "OverloadedError": ("UnavailableError", "overloaded", 503),
    "StoreUnavailableError": ("UnavailableError", "store_unavailable", 503),
    "SenderError": ("AuthError", "sender_error", 500),
    "ProviderError": ("AuthError", "provider_error", 500),
}


def _classes() -> dict[str, type[AuthError]]:
    return {
        name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, AuthError)
    }


def test_errors_are_the_documented_tree() -> None:
    """Every error has its documented parent, code and status, and there is no other error."""
    found = {name: (cls.__base__.__name__, cls.code, cls.status) for name, cls in _classes().items() if cls.__base__}
    assert found == TREE


def test_errors_have_unique_codes() -> None:
    """No two errors share a code, so that a code identifies one error."""
    codes = [cls.code for cls in _classes().values()]
    assert len(set(codes)) == len(codes) == 24


def test_error_separates_the_reason_from_the_title() -> None:
    """The reason is for the log; title and code are the same for every cause."""
    unknown, wrong = AuthenticationFailedError("unknown user"), AuthenticationFailedError("wrong password")
    assert (unknown.reason, wrong.reason) == ("unknown user", "wrong password")
    assert (unknown.title, unknown.code) == (wrong.title, wrong.code) == ("Access denied", "authentication_failed")
    assert not unknown.fields
    assert not unknown.headers


def test_error_without_a_reason_uses_its_title() -> None:
    """Without a reason, the title is the reason."""
    error = InvalidTokenError()
    assert error.reason == str(error) == "This link or token is no longer valid"


def test_error_copies_its_fields_and_headers() -> None:
    """The error copies the given fields and headers."""
    fields, headers = {"email": "This field is required."}, {"Retry-After": "1"}
    error = ValidationError("parameters refused", fields=fields)
    limited = RateLimitedError("too many", headers=headers)
    fields["password"], headers["Retry-After"] = "This field is required.", "2"
    assert dict(error.fields) == {"email": "This field is required."}
    assert dict(limited.headers) == {"Retry-After": "1"}


def test_unavailable_error_has_retry_after() -> None:
    """The headers of UnavailableError have Retry-After in seconds."""
    assert dict(UnavailableError("locked").headers) == {"Retry-After": "1"}
    assert dict(UnavailableError("locked", retry_after=30).headers) == {"Retry-After": "30"}
