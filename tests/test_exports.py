"""The public names: complete, sorted, and documented."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import asgi_auth

PUBLIC = {
    "asgi_auth": [
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
    ],
    "asgi_auth.add_ons": ["APPLICATION", "Confirmation", "Invitation"],
    "asgi_auth.senders": ["ConsoleSender", "Mail", "MemorySender", "SMTPSender"],
    "asgi_auth.stores": ["PostgresStore", "SQLAlchemyStore", "SQLiteStore"],
    "asgi_auth.strategies": ["Password", "Resettable"],
    "asgi_auth.testing": ["CounterSuite", "FakeClock", "InvitationSuite", "StoreSuite"],
}


@pytest.mark.parametrize("package", list(PUBLIC))
def test_package_exports_its_public_names(package: str) -> None:
    """``__all__`` is sorted, has exactly the documented names, and each name exists."""
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__) == PUBLIC[package]
    assert all(hasattr(module, name) for name in module.__all__)


def test_every_error_is_exported() -> None:
    """Every error of the library can be imported from ``asgi_auth``."""
    errors = importlib.import_module("asgi_auth.errors")
    raised = {name for name, value in vars(errors).items() if inspect.isclass(value) and name.endswith("Error")}
    assert raised <= set(asgi_auth.__all__)


def _explained(value: Any, name: str) -> bool:
    doc: str = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
    return doc != "" and not doc.startswith(f"{name}(")  # a dataclass generates one


def _members(value: Any) -> list[tuple[str, Any]]:
    """The public methods and properties that a class itself defines."""
    kinds = (property, classmethod, staticmethod)
    return [
        (name, member)
        for name, member in vars(value).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds))
    ]


@pytest.mark.parametrize("package", list(PUBLIC))
def test_public_names_have_docstrings(package: str) -> None:
    """Every public name and each of its public methods has its own docstring."""
    module = importlib.import_module(package)
    unexplained = [name for name in PUBLIC[package] if not _explained(getattr(module, name), name)]
    for name in PUBLIC[package]:
        value = getattr(module, name)
        members = _members(value) if inspect.isclass(value) else []
        unexplained += [f"{name}.{member}" for member, what in members if not what.__doc__]
    assert [name for name in unexplained if not name.startswith("StoreSuite.")] == []


def test_modules_have_docstrings() -> None:
    """Every module has a docstring."""
    names = [found.name for found in pkgutil.walk_packages(asgi_auth.__path__, "asgi_auth.")]
    assert "asgi_auth.protocol.keys" in names
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    assert [module.__name__ for module in modules if not module.__doc__] == []


def test_package_loads_only_used_modules() -> None:
    """An application that only uses ``UserMixin`` loads neither the plug nor Starlette."""
    code = (
        "import sys, asgi_auth; assert not [name for name in sys.modules if name.startswith('asgi_auth.')];"
        "asgi_auth.UserMixin; assert 'asgi_auth.types' in sys.modules; assert 'starlette' not in sys.modules;"
        "assert sorted(asgi_auth.__all__) == [name for name in dir(asgi_auth) if name in asgi_auth.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_package_provides_its_modules() -> None:
    """``asgi_auth.errors`` is available after ``import asgi_auth``."""
    code = "import asgi_auth; assert asgi_auth.errors.AuthError is asgi_auth.AuthError"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute '_nothing'"):
        _ = asgi_auth._nothing  # type: ignore[attr-defined]


def test_package_has_no_other_names() -> None:
    """A misspelt name raises AttributeError, and ImportError in an import statement."""
    with pytest.raises(AttributeError, match="module 'asgi_auth' has no attribute 'AuthPlugg'"):
        _ = asgi_auth.AuthPlugg  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'AuthPlugg' from 'asgi_auth'"):
        exec("from asgi_auth import AuthPlugg")  # noqa: S102  # a constant text


def test_import_of_the_package_is_cheap() -> None:
    """It loads at most 1.6 times as many modules as ``import starlette.applications``: a number, not a time."""
    assert _imported("asgi_auth") <= 1.6 * _imported("starlette.applications")


def _imported(module: str) -> int:
    """The number of modules that an import loads."""
    code = f"import sys; before = len(sys.modules); import {module}; print(len(sys.modules) - before)"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
