"""All refused sign-ins take the same time, so that a client cannot learn from it (EN-2)."""

import time
from pathlib import Path
from statistics import median

import pytest

from asgi_auth.passwords import Bcrypt
from asgi_auth.web.plug import AuthPlug
from tests.asgi import post
from tests.support import OTHER_EMAIL, PASSWORD, credentials, make_auth

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COST = 9
"""A hash takes about 30 ms, so that the other work hardly matters."""
ROUNDS = 24


async def test_refused_sign_ins_take_the_same_time(tmp_path: Path) -> None:
    """EN-2: wrong, unknown, without a password, older hash, disabled: ratios of the times are between 0.85 and 1.18.

    All cases take turns. The test compares CPU time, to which other programs add nothing; the wall clock only shows
    that no case waits.
    """
    auth = make_auth(tmp_path, hasher=Bcrypt(cost=COST))
    older = make_auth(tmp_path, hasher=Bcrypt(cost=5))
    plug = AuthPlug(auth)
    cases = {name: f"{name}@mail.example.org" for name in ("wrong", "unknown", "without", "older", "disabled")}
    async with auth.running(), older.running():
        await auth.accounts.create({"email": cases["wrong"]}, password=PASSWORD)
        await auth.accounts.create({"email": cases["without"]})
        await older.accounts.create({"email": cases["older"]}, password=PASSWORD)
        disabled = await auth.accounts.create({"email": cases["disabled"]}, password=PASSWORD)
        await auth.accounts.disable(disabled.id)
        await auth.accounts.create({"email": OTHER_EMAIL}, password=PASSWORD)

        spent: dict[str, list[float]] = {name: [] for name in cases}
        waited: dict[str, list[float]] = {name: [] for name in cases}
        for round_ in range(ROUNDS):
            names = [*cases][round_ % len(cases) :] + [*cases][: round_ % len(cases)]
            for name in names:
                began, clock = time.process_time(), time.perf_counter()
                answer = await post(plug, "/auth/password/sign_in", credentials(cases[name], "not the password"))
                spent[name].append(time.process_time() - began)
                waited[name].append(time.perf_counter() - clock)
                assert answer.status == 401
    work = {name: median(times) / median(spent["wrong"]) for name, times in spent.items()}
    assert {name: ratio for name, ratio in work.items() if not 0.85 <= ratio <= 1.18} == {}
    wait = {name: min(times) / min(waited["wrong"]) for name, times in waited.items()}
    assert {name: ratio for name, ratio in wait.items() if not 0.5 <= ratio <= 2} == {}
