"""Authentication for ASGI applications: strategies, sessions, bearer tokens, a plug and two middlewares.

Each name is loaded when it is first used (PEP 562), so that a module of models that only needs ``UserMixin`` does not
load the plug.
"""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from asgi_auth.messages import Message
    from asgi_auth.pages import Pages
    from asgi_auth.passwords import Bcrypt, PasswordPolicy
    from asgi_auth.runtime.lanes import Outbox
    from asgi_auth.sender import Sender
    from asgi_auth.sessions import SessionOptions
    from asgi_auth.types import AccessToken, Activity, AnonymousUser, User, UserMixin
    from asgi_auth.web.controller import AuthController
    from asgi_auth.web.guards import require
    from asgi_auth.web.middleware import BearerUserMiddleware, SessionUserMiddleware
    from asgi_auth.web.plug import AuthPlug
else:
    _HOMES = {
        "Authentication": "asgi_auth.authentication",
        "Hook": "asgi_auth.hooks",
        "Limit": "asgi_auth.limits",
        "Limits": "asgi_auth.limits",
        "Message": "asgi_auth.messages",
        "Pages": "asgi_auth.pages",
        "Bcrypt": "asgi_auth.passwords",
        "PasswordPolicy": "asgi_auth.passwords",
        "Outbox": "asgi_auth.runtime.lanes",
        "Sender": "asgi_auth.sender",
        "SessionOptions": "asgi_auth.sessions",
        "AccessToken": "asgi_auth.types",
        "Activity": "asgi_auth.types",
        "AnonymousUser": "asgi_auth.types",
        "User": "asgi_auth.types",
        "UserMixin": "asgi_auth.types",
        "AuthController": "asgi_auth.web.controller",
        "require": "asgi_auth.web.guards",
        "BearerUserMiddleware": "asgi_auth.web.middleware",
        "SessionUserMiddleware": "asgi_auth.web.middleware",
        "AuthPlug": "asgi_auth.web.plug",
    }

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            if not name.startswith("_"):
                with suppress(ModuleNotFoundError):
                    return import_module(f"{__name__}.{name}")
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES.get(name, "asgi_auth.errors")), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
    "Message",
    "MethodNotAllowedError",
    "MisdirectedRequestError",
    "NotFreshError",
    "Outbox",
    "OverloadedError",
    "Pages",
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
