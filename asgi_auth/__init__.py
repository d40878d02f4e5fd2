"""Authentication for ASGI applications: strategies, sessions, bearer tokens, a plug and two middlewares."""

from asgi_auth.authentication import Authentication
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    BodyTooLargeError,
    ConfigurationError,
    CrossSiteError,
    FactorRequiredError,
    ForbiddenError,
    IdentityTakenError,
    InvalidTokenError,
    MalformedRequestError,
    MediaTypeError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    NotFreshError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    RequestError,
    RouteNotFoundError,
    SenderError,
    SlowRequestError,
    StoreUnavailableError,
    UnavailableError,
    ValidationError,
)
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit, Limits
from asgi_auth.passwords import Bcrypt, PasswordPolicy
from asgi_auth.runtime.lanes import Outbox
from asgi_auth.sender import Sender
from asgi_auth.sessions import SessionOptions
from asgi_auth.types import AccessToken, Activity, AnonymousUser, User, UserMixin
from asgi_auth.web.controller import AuthController
from asgi_auth.web.guards import require
from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.web.plug import AuthPlug

__all__ = [
    "AccessToken",
    "Activity",
    "AnonymousUser",
    "AuthController",
    "AuthError",
    "AuthPlug",
    "Authentication",
    "AuthenticationFailedError",
    "Bcrypt",
    "BearerUserMiddleware",
    "BodyTooLargeError",
    "ConfigurationError",
    "CrossSiteError",
    "FactorRequiredError",
    "ForbiddenError",
    "Hook",
    "IdentityTakenError",
    "InvalidTokenError",
    "Limit",
    "Limits",
    "MalformedRequestError",
    "MediaTypeError",
    "MethodNotAllowedError",
    "MisdirectedRequestError",
    "NotFreshError",
    "Outbox",
    "OverloadedError",
    "PasswordPolicy",
    "ProviderError",
    "RateLimitedError",
    "RequestError",
    "RouteNotFoundError",
    "Sender",
    "SenderError",
    "SessionOptions",
    "SessionUserMiddleware",
    "SlowRequestError",
    "StoreUnavailableError",
    "UnavailableError",
    "User",
    "UserMixin",
    "ValidationError",
    "require",
]
