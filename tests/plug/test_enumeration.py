"""No answer reveals to a stranger whether an account exists."""

from datetime import timedelta
from pathlib import Path

import pytest

from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, JSON, PAGE, Headers, ask, execute, post, tables
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    mailed_token,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

NEW = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
BAD_HASHES = ["''", "'x'", "'$2b$12$short'", f"'$2b$31${'a' * 53}'", "'{asgi_auth-1}'"]


@pytest.mark.parametrize("headers", [{}, JSON, BROWSER])
async def test_failed_sign_ins_give_the_same_answer(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User], headers: Headers
) -> None:
    """EN-1, PW-10: the same bytes for unknown, disabled or unconfirmed users and wrong, missing or broken passwords."""
    addresses = {name: f"{name}@mail.example.org" for name in ("known", "locked", "confirmed", "bare")}
    for name in ("known", "locked", "confirmed"):
        await register(auth, addresses[name])
    found = {name: await auth.accounts.find("email", address) for name, address in addresses.items()}
    await auth.accounts.create({"email": addresses["bare"]})
    locked, confirmed = found["locked"], found["confirmed"]
    assert locked is not None
    assert confirmed is not None
    await auth.accounts.disable(locked.account.user_id)
    await auth.accounts.confirm(confirmed.account.user_id)
    attempts = [
        credentials(OTHER_EMAIL),
        credentials(addresses["known"], NEW_PASSWORD),
        credentials(addresses["confirmed"], NEW_PASSWORD),
        credentials(addresses["bare"]),
        credentials(addresses["locked"]),
        credentials(addresses["locked"], NEW_PASSWORD),
    ]
    answers = [await post(plug, "/auth/password/sign_in", attempt, headers=headers) for attempt in attempts]
    for stored in BAD_HASHES:
        await execute(tmp_path, f"UPDATE asgi_auth_accounts SET password_hash = {stored}")  # noqa: S608
        answers.append(await post(plug, "/auth/password/sign_in", credentials(addresses["known"]), headers=headers))

    assert answers == [answers[0]] * len(answers)
    assert answers[0].status == 401
    assert answers[0]["set-cookie"] is None


async def test_invalid_mail_tokens_give_the_same_answer(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """EN-7: expired, used, forged and replaced tokens, and those of another purpose or a disabled user."""
    user, _ = await register(auth)
    tokens = ["x" * 43, "x", "x" * 10_000 + "é", str((await register(auth, OTHER_EMAIL))[1])[:4000]]
    _, sign_in_token = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    tokens.append(sign_in_token)
    for _ in range(2):
        await auth.strategy("password").reset_request({"email": EMAIL})
        tokens.append(mailed_token(auth))
    used = tokens.pop()
    assert (await post(plug, "/auth/password/reset", {"reset_token": used, **NEW})).status == 200
    tokens.append(used)
    await auth.strategy("password").reset_request({"email": EMAIL})
    expired = mailed_token(auth)
    auth.clock.advance(timedelta(hours=1))
    tokens.append(expired)
    await auth.strategy("password").reset_request({"email": EMAIL})
    tokens.append(mailed_token(auth))
    await auth.accounts.disable(user.id)
    before = tables(tmp_path)
    for headers in ({}, JSON, PAGE):
        answers = [await post(plug, "/auth/password/reset", {"reset_token": t, **NEW}, headers=headers) for t in tokens]
        too_long = answers.pop(2)
        assert too_long.status == 422
        assert answers == [answers[0]] * len(answers)
        assert answers[0].status == 401

    assert tables(tmp_path) == before


async def test_mail_token_works_once(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """TK-10: a rejected password does not consume the token; an accepted one does."""
    await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    form = {"reset_token": mailed_token(auth), **NEW}
    weak = {"password": "password1", "password_confirmation": "password1"}
    statuses = [
        (await post(plug, "/auth/password/reset", {**form, **change})).status
        for change in (weak, {"password_confirmation": PASSWORD}, {"password": "", "password_confirmation": ""}, {}, {})
    ]

    assert statuses == [422, 422, 422, 200, 401]
    assert (await post(plug, "/auth/password/sign_in", credentials(password=NEW_PASSWORD))).status == 200


async def test_reset_request_reveals_no_account(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """EN-3: known, unknown and disabled addresses get the same answer; only the known one gets mail."""
    await register(auth)
    locked, _ = await register(auth, OTHER_EMAIL)
    await auth.accounts.disable(locked.id)
    answers = [
        await ask(plug, "POST", "/auth/password/reset_request", json={"email": email})
        for email in (EMAIL, "nobody@mail.example.org", OTHER_EMAIL)
    ]

    assert answers == [answers[0]] * 3
    assert [opts["address"] for _, _, opts in auth.sender.messages] == [EMAIL]


async def test_failure_reveals_no_reason(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """RD-4: only the log has the reason."""
    await register(auth)
    answer = await ask(plug, "POST", "/auth/password/sign_in", json=credentials(password=NEW_PASSWORD))

    assert "wrong" not in answer.text + str(answer.headers)
    assert answer.json() == {
        "type": "about:blank",
        "title": "Access denied",
        "status": 401,
        "code": "authentication_failed",
    }


async def test_taken_address_is_told_after_the_policy(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """EN-4: a weak password gives the same answer whether or not the address is taken."""
    await register(auth)
    weak = [
        await post(plug, "/auth/password/register", registration(email, "password1")) for email in (EMAIL, OTHER_EMAIL)
    ]

    assert weak[0] == weak[1]
    assert (await post(plug, "/auth/password/register", registration())).status == 422
