"""TK-8: every token has one purpose; elsewhere the token and its parts are rejected."""

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import Confirmation
from asgi_auth.errors import AuthError, InvalidTokenError
from asgi_auth.senders import MemorySender
from asgi_auth.sessions import PENDING_FACTOR
from asgi_auth.strategies.password import Password, Resettable
from tests.second_factor import Code
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    found_of,
    mailed_token,
    make_auth,
)

pytestmark = pytest.mark.anyio

KINDS = ("cookie", "bearer", "sign_in", "pending", "first", "change", "undo", "reset")


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with every consumer of tokens."""
    sender = MemorySender()
    by_mail = Confirmation(sender=sender, required=False, confirm_on_update=False)
    by_phone = Confirmation(sender=sender, required=False, monitor_fields=("phone",), name="by_phone")
    auth = make_auth(
        tmp_path,
        sender=sender,
        strategies=[Password(resettable=Resettable(sender=sender)), Code()],
        add_ons=[by_mail, by_phone],
    )
    yield auth
    await auth.close()


async def issue_all(auth: LocalAuthentication) -> Mapping[str, str]:
    """One live token of each kind: one proves the first address of another user, all others belong to one user."""
    user = await auth.accounts.create({"email": OTHER_EMAIL}, password=PASSWORD, confirmed=True)
    user = await auth.accounts.change(user, {"email": EMAIL})
    await auth.accounts.confirm(user.id)
    await auth.accounts.change(user, {"phone": "+1 555 0100"})
    await auth.accounts.create({"email": "carol@mail.example.org"}, password=PASSWORD)
    mailed = {opts["purpose"]: token for _, token, opts in auth.sender.messages}
    _, token = await auth.strategy("password").sign_in(credentials())
    _, sign_in = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    await auth.strategy("password").reset_request({"email": EMAIL})
    pending = await auth.tokens.issue(
        PENDING_FACTOR,
        account=(await found_of(auth)).account,
        lifetime=timedelta(minutes=10),
        extra_data={
            "required": ["code"],
            "proven": [["password", auth.clock().isoformat()]],
            "remember": False,
            "registered": False,
            "replaces": None,
        },
    )
    confirmations = (mailed["confirmation"], mailed["phone_change"], mailed["email_changed"])
    values = (token.cookie, str(token), sign_in, pending.token, *confirmations, mailed_token(auth))
    return dict(zip(KINDS, values, strict=True))


def consumers(auth: LocalAuthentication) -> Mapping[str, Callable[[str], Awaitable[Any]]]:
    """Every consumer of tokens, by the kind that it accepts."""
    password, code = auth.strategy("password"), auth.strategy("code")
    by_mail, by_phone = auth.add_on("confirmation"), auth.add_on("by_phone")
    new = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    return {
        "cookie": auth.sessions.load,
        "bearer": auth.sessions.load_bearer,
        "sign_in": lambda token: password.sign_in_with_token({"token": token}),
        "pending": lambda token: code.verify({"code": f"code-{EMAIL}"}, pending=token),
        "first": lambda token: by_mail.confirm({"confirmation_token": token}),
        "change": lambda token: by_phone.confirm({"confirmation_token": token}),
        "undo": lambda token: by_mail.undo({"undo_token": token}),
        "reset": lambda token: password.reset({"reset_token": token, **new}),
    }


def parts_of(token: str) -> list[str]:
    """Values that a user could derive from a token: hashes, parts, extensions and changes."""
    digest = hashlib.sha256(token.encode()).digest()
    hashes = [digest.hex(), base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), digest.decode("latin-1")]
    cut = [token[:-1], token[1:], token[:43], token[-43:], token[: len(token) // 2]]
    grown = [token + "A", token + "=", token + ".", "A" + token, token + token, f" {token}", f"{token}\n"]
    changed = [token.swapcase(), token[::-1], ("A" if token[0] != "A" else "B") + token[1:]]
    return [part for part in (*hashes, *cut, *grown, *changed, *token.split(".")) if part != token]


@pytest.mark.parametrize("kind", KINDS)
async def test_token_is_accepted_only_by_its_own_consumer(auth: LocalAuthentication, kind: str) -> None:
    """TK-8, TK-9, TK-22: every other consumer refuses the token and does not consume it."""
    tokens = await issue_all(auth)
    secret = tokens["cookie"].partition(".")[0]
    for consumer, consume in consumers(auth).items():
        with pytest.raises(InvalidTokenError):
            await consume(secret)
        if consumer != kind:
            with pytest.raises(InvalidTokenError):
                await consume(tokens[kind])
    await consumers(auth)[kind](tokens[kind])


@pytest.mark.parametrize("kind", KINDS)
async def test_part_of_a_token_is_rejected(auth: LocalAuthentication, kind: str) -> None:
    """TK-8, TK-17: no consumer accepts the stored hash, a part or a changed form of a token."""
    tokens = await issue_all(auth)
    for part in parts_of(tokens[kind]):
        for consume in consumers(auth).values():
            with pytest.raises(AuthError) as refused:
                await consume(part)
            assert refused.value.status in (401, 422)
    await consumers(auth)[kind](tokens[kind])


async def test_token_is_rejected_for_a_similar_purpose(auth: LocalAuthentication) -> None:
    """TK-8: purposes are compared exactly; empty and similar names do not match."""
    tokens = await issue_all(auth)
    for purpose in ("", "Reset", "reset ", "res", "%", "_eset", "access", "session_cookie"):
        for token in tokens.values():
            with pytest.raises(InvalidTokenError):
                await auth.tokens.peek(purpose, token)
