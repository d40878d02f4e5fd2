"""TK-16, TK-9: a secret is replaced in three steps; mail tokens and passwords do not depend on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import InvalidTokenError
from asgi_auth.passwords import Bcrypt
from asgi_auth.testing import FakeClock
from asgi_auth.types import AccessToken
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_SECRET,
    PASSWORD,
    SECRET,
    LocalAuthentication,
    credentials,
    is_alive,
    mailed_token,
    make_auth,
    register,
)

pytestmark = pytest.mark.anyio

THIRD_SECRET = "Zq4Lr8Xc1Vn6Bm3Ts0Wd5Fg9Hj2Ky7Pu-oE_aI-uYt"
STEPS = ([SECRET], [OTHER_SECRET, SECRET], [OTHER_SECRET])


def step(directory: Path, secret: object, clock: FakeClock) -> LocalAuthentication:
    return make_auth(directory, secret=secret, clock=clock)


async def sign_in(auth: LocalAuthentication, password: str = PASSWORD) -> AccessToken:
    token: AccessToken = (await auth.strategy("password").sign_in(credentials(password=password))).token
    return token


async def test_rotation_takes_three_steps(tmp_path: Path) -> None:
    """TK-16: sessions of step two are valid at step three; those that only the first key signed are not."""
    clock = FakeClock()
    first, second, third = (step(tmp_path, secret, clock) for secret in STEPS)
    await register(first)
    issued: Mapping[str, AccessToken] = {
        "at one": await sign_in(first),
        "at two": await sign_in(second),
        "at three": await sign_in(third),
    }
    alive = {when: [await is_alive(auth, token) for auth in (first, second, third)] for when, token in issued.items()}
    assert alive == {
        "at one": [True, True, False],
        "at two": [False, True, True],
        "at three": [False, True, True],
    }
    for auth in (first, second, third):
        await auth.close()


async def test_each_step_signs_with_the_newest_key(tmp_path: Path) -> None:
    """TK-9: the newest key is the first of our list (the last one in itsdangerous): at step two it signs."""
    clock = FakeClock()
    both, old = step(tmp_path, STEPS[1], clock), step(tmp_path, SECRET, clock)
    await register(both)
    token = await sign_in(both)
    for load, credential in ((old.sessions.load, token.cookie), (old.sessions.load_bearer, str(token))):
        with pytest.raises(InvalidTokenError):
            await load(credential)
    for auth in (both, old):
        await auth.close()


async def test_mail_tokens_and_passwords_do_not_depend_on_the_secret(tmp_path: Path) -> None:
    """TK-16: removing a leaked secret at once signs users out and has no other effect."""
    clock = FakeClock()
    before, after = step(tmp_path, SECRET, clock), step(tmp_path, THIRD_SECRET, clock)
    _, token = await register(before)
    _, sign_in_token = await before.strategy("password").sign_in(credentials(), token_type="sign_in")
    await before.strategy("password").reset_request({"email": EMAIL})
    assert not await is_alive(after, token)
    assert await is_alive(after, await sign_in(after))
    redeemed = await after.strategy("password").sign_in_with_token({"token": sign_in_token})
    assert await is_alive(after, redeemed.token)
    await after.strategy("password").reset(
        {"reset_token": mailed_token(before), "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    )
    assert await is_alive(after, await sign_in(after, NEW_PASSWORD))
    for auth in (before, after):
        await auth.close()


async def test_pepper_is_rotated_apart_from_the_secret(tmp_path: Path) -> None:
    """PW-8: peppers are rotated apart from the secret: old hashes verify while their key is known, and are rehashed."""
    clock = FakeClock()
    peppers: tuple[Any, ...] = (OTHER_SECRET, [THIRD_SECRET, OTHER_SECRET], THIRD_SECRET)
    first, second, third = (make_auth(tmp_path, hasher=Bcrypt(cost=4, pepper=key), clock=clock) for key in peppers)
    await register(first)
    assert await is_alive(second, await sign_in(second))
    assert await is_alive(third, await sign_in(third))
    for auth in (first, second, third):
        await auth.close()
