"""Helpers for the tests of confirmation: an Authentication with the add-on, and the links of its mails."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from asgi_auth.add_ons import Confirmation
from asgi_auth.hooks import Hook
from asgi_auth.senders import MemorySender
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import AccessToken, User
from tests.support import EMAIL, PASSWORD, LocalAuthentication, credentials, make_auth, registration

NEW_EMAIL = "alice@new.example.org"
THIRD_EMAIL = "alice@third.example.org"


def confirming(
    directory: Path,
    *,
    sender: Any = None,
    add_ons: tuple[Hook, ...] = (),
    register_fields: tuple[str, ...] = ("phone", "nickname"),
    also: tuple[Any, ...] = (),
    options: Any = None,
    **confirmation: Any,
) -> LocalAuthentication:
    """Return an ``Authentication`` with ``Confirmation(**confirmation)``; it also gets *options*."""
    sender = sender or MemorySender()
    password = Password(register_fields=register_fields, resettable=Resettable(sender=sender))
    parts = {
        "strategies": [password, *also],
        "add_ons": [Confirmation(sender=sender, **confirmation), *add_ons],
    }
    return make_auth(directory, sender=sender, **{**parts, **(options or {})})


def actions(auth: LocalAuthentication) -> Any:
    """Return the actions of the add-on."""
    return auth.add_on("confirmation")


def mails(auth: LocalAuthentication) -> list[tuple[str, str]]:
    """Take every new mail; return purpose and address of each, sorted, since their order is not fixed."""
    return sorted((opts["purpose"], opts["address"]) for _, _, opts in take(auth))


def take(auth: LocalAuthentication) -> list[tuple[Any, str | None, Any]]:
    """Return every mail since the last call and clear the mailbox."""
    taken = list(auth.sender.messages)
    auth.sender.messages.clear()
    return taken


def links(auth: LocalAuthentication) -> dict[tuple[str, str], str]:
    """Take every new mail; return the newest token of each purpose and address."""
    found = {}
    for _, token, opts in take(auth):
        if token is not None:
            [[linked]] = parse_qs(urlsplit(opts["url"]).query).values()
            assert linked == token
            found[opts["purpose"], opts["address"]] = token
    return found


async def sign_up(auth: LocalAuthentication, email: str = EMAIL, password: str = PASSWORD, **fields: Any) -> Any:
    """Register; the answer signs nobody in."""
    user, token = await auth.strategy("password").register({**registration(email, password), **fields})
    assert token is None
    return user


async def confirm(auth: LocalAuthentication, token: str, **options: Any) -> Any:
    """Confirm with the token of a link."""
    return await actions(auth).confirm({"confirmation_token": token}, **options)


async def sign_in(auth: LocalAuthentication, email: str = EMAIL, password: str = PASSWORD) -> tuple[User, AccessToken]:
    """Sign in by password."""
    user, token = await auth.strategy("password").sign_in(credentials(email, password))
    return user, token


async def confirmed(auth: LocalAuthentication, email: str = EMAIL, **fields: Any) -> tuple[User, AccessToken]:
    """Register, confirm and sign in; clear the mails of these steps."""
    await sign_up(auth, email, **fields)
    await confirm(auth, links(auth)["confirmation", email])
    return await sign_in(auth, email)


async def change_email(auth: LocalAuthentication, signed_in: tuple[User, AccessToken], email: str) -> Any:
    """Request a change of the address."""
    user, token = signed_in
    params = {"email": email, "current_password": PASSWORD}
    return await actions(auth).change_email(user, params, session=token.session)
