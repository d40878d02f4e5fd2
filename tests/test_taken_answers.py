"""The limit of answers that reveal a taken identity at registration, and the answers after it is used up."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.acts import Draft
from asgi_auth.errors import IdentityTakenError
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit, Limits
from asgi_auth.strategies.password import Password
from asgi_auth.types import EMPTY, Account
from asgi_auth.web.plug import AuthPlug
from tests.add_ons.confirming import confirming
from tests.add_ons.inviting import invite, make_inviting
from tests.asgi import JSON, PAGE, Answer, Headers, execute, post, tables
from tests.gate import GatedBcrypt, Lingering
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, LocalAuthentication, credentials, make_auth, registration
from tests.workers import OnPostgres, OnSQLite, workers

pytestmark = pytest.mark.anyio

REGISTER = "/auth/password/register"
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
ONCE, TWICE = (Limits(identity_taken=Limit(count, timedelta(hours=1))) for count in (1, 2))


async def enter(
    auth: LocalAuthentication,
    email: str = EMAIL,
    fields: Mapping[str, str] = EMPTY,
    *,
    address: str = HERE,
    headers: Headers = (),
) -> Answer:
    """Register over HTTP, with further *fields*."""
    form = {**registration(email), **fields}
    return await post(AuthPlug(auth), REGISTER, form, headers=headers, client=(address, 1234))


async def statuses(auth: LocalAuthentication, emails: Sequence[str], **options: Any) -> list[int]:
    """The statuses of one registration after the other."""
    return [(await enter(auth, email, **options)).status for email in emails]


def free(number: int) -> str:
    """An address without an account."""
    return f"new{number}@mail.example.org"


def counted(directory: Path) -> int:
    """The number of sources that the database has counted."""
    return sum("identity_taken" in row for row in tables(directory)["asgi_auth_counters"])


# --- the refusal


def _without_address(answer: Answer, email: str) -> tuple[object, ...]:
    headers = [header for header in answer.headers if header[0] != "content-length"]
    return answer.status, *headers, answer.text.replace(email, "")


@pytest.mark.parametrize("headers", [{}, JSON, PAGE], ids=["plain", "json", "page"])
async def test_used_up_answers_are_refused_alike(tmp_path: Path, headers: Headers) -> None:
    """EN-4, RL-2: 429 with Retry-After, the same for a taken and a free address until the window ends.

    The answers are equal to the byte, except for the submitted address in the field of the form.
    """
    auth = make_auth(tmp_path, limits=TWICE)
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        assert await statuses(auth, [EMAIL, free(0), EMAIL.upper()], headers=headers) == [422, 200, 422]
        auth.clock.advance(timedelta(minutes=20))
        entered = (EMAIL, free(1), EMAIL, free(2), free(1))
        answers = [await enter(auth, email, headers=headers) for email in entered]
        told = {_without_address(answer, email) for answer, email in zip(answers, entered, strict=True)}
        assert len(told) == 1
        assert (answers[0].status, answers[0]["retry-after"], answers[0]["set-cookie"]) == (429, "2400", None)
        auth.clock.advance(timedelta(minutes=40, microseconds=-1))
        assert (await enter(auth, free(1)))["retry-after"] == "1"
        auth.clock.advance(timedelta(microseconds=1))
        assert await statuses(auth, [EMAIL, free(1), EMAIL, EMAIL]) == [422, 200, 422, 429]


async def test_answers_are_counted_by_source(tmp_path: Path) -> None:
    """EN-4: another address is another client, but a /64 is one client; sign-ins are not limited by this."""
    auth = make_auth(tmp_path, limits=ONCE)
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        assert await statuses(auth, [EMAIL, EMAIL]) == [422, 429]
        assert await statuses(auth, [free(0), EMAIL], address=ELSEWHERE) == [200, 422]
        assert await statuses(auth, [EMAIL], address="2001:db8::1") == [422]
        assert await statuses(auth, [free(1)], address="2001:db8::ffff:2") == [429]
        assert await statuses(auth, [free(1)], address="2001:db8:0:1::1") == [200]
        assert (await post(AuthPlug(auth), "/auth/password/sign_in", credentials())).status == 200


async def test_used_up_answers_are_refused_before_hashing(tmp_path: Path) -> None:
    """RL-2: a refused registration causes no hash and no check of the password."""
    hasher = GatedBcrypt()
    auth = make_auth(tmp_path, limits=ONCE, hasher=hasher)
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        assert "identity_taken" in (await enter(auth, headers=JSON)).text
        hashed = len(hasher.gate.calls)
        weak = {"password": "password1", "password_confirmation": "password1"}
        answers = [await enter(auth, EMAIL), await enter(auth, OTHER_EMAIL), await enter(auth, OTHER_EMAIL, weak)]
        assert answers == [answers[0]] * 3
        assert answers[0].status == 429
        assert len(hasher.gate.calls) == hashed


async def test_waiting_registrations_are_refused_alike_once_answers_are_used_up(tmp_path: Path) -> None:
    """EN-4: a registration that waits for its hash while the limit is used up gets the same answer as a later one."""
    hasher = GatedBcrypt()
    auth = make_auth(tmp_path, limits=ONCE, hasher=hasher)
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        hasher.gate.close("hash")
        waiting = [asyncio.create_task(enter(auth, email)) for email in (EMAIL, free(0), free(1), EMAIL)]
        await hasher.gate.arrived()
        await auth.services.limiter.take("identity_taken", HERE, ONCE.identity_taken)
        hasher.gate.open()
        answers = await asyncio.gather(*waiting)
        assert answers == [await enter(auth)] * 4
        assert answers[0].status == 429


# --- counted answers


async def test_other_registrations_are_not_counted(tmp_path: Path) -> None:
    """Registrations that succeed, fail for another reason or come from the application are not counted."""
    auth = make_auth(tmp_path, limits=ONCE)
    async with auth.running():
        assert await statuses(auth, [*map(free, range(5)), "nobody", ""]) == [200] * 5 + [422] * 2
        assert (await enter(auth, EMAIL, {"password": "password1"})).status == 422
        for _ in range(3):
            with pytest.raises(IdentityTakenError):
                await auth.accounts.create({"email": free(0)})
            with pytest.raises(IdentityTakenError):  # a call of the application has no client
                await auth.strategy("password").register(registration(free(0)))
        assert counted(tmp_path) == 0


async def test_concealed_answers_are_not_counted(tmp_path: Path) -> None:
    """EN-4: answers that conceal a taken address are not counted; an answer that reveals a taken user name is."""
    strategies = [Password(identity_field="username", register_fields=["email"])]
    auth = confirming(tmp_path, options={"strategies": strategies, "limits": ONCE})
    async with auth.running():
        answers = [await enter(auth, EMAIL, {"username": f"name{number}"}) for number in range(5)]
        assert answers == [answers[0]] * 5
        assert (answers[0].status, counted(tmp_path)) == (200, 0)
        taken = await enter(auth, EMAIL, {"username": "name0"}, headers=JSON)
        assert list(taken.json()["fields"]) == ["username"]
        names = [{"username": name} for name in ("name0", "name9")]
        assert [(await enter(auth, free(0), name)).status for name in names] == [429, 429]


async def test_invited_users_are_not_counted(tmp_path: Path) -> None:
    """EN-4: registrations with an invitation are not counted, and work when the limit of the network is used up."""
    auth = make_inviting(tmp_path, limits=ONCE)
    async with auth.running():
        taken, invited = await invite(auth), await invite(auth, OTHER_EMAIL)
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD, confirmed=True)
        for _ in range(3):
            assert "identity_taken" in (await enter(auth, EMAIL, {"invitation_token": taken}, headers=JSON)).text
        assert counted(tmp_path) == 0
        assert await statuses(auth, [EMAIL, free(0)]) == [422, 429]
        assert (await enter(auth, OTHER_EMAIL, {"invitation_token": invited})).status == 200


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_answer_to_a_cancelled_request_is_counted(tmp_path: Path, again: bool) -> None:
    """EN-4: a client that disconnects before the answer is counted."""
    lingering = Lingering()
    auth = make_auth(tmp_path, add_ons=[lingering])
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        registering = asyncio.create_task(enter(auth))
        await lingering.asked.wait()
        registering.cancel()
        if again:
            await asyncio.sleep(0)
            registering.cancel()
        lingering.over.set()
        with pytest.raises(asyncio.CancelledError):
            await registering
        assert counted(tmp_path) == 1


async def test_refused_registrations_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has one line a second about refused registrations, without the client's address."""
    auth = make_auth(tmp_path, limits=ONCE)
    monkeypatch.setattr(auth.services.telling, "_clock", lambda: 0.0)
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        assert await statuses(auth, [EMAIL, free(0), free(1)]) == [422, 429, 429]
    # One line a second: with a line for each refusal a stranger could fill the disk.
    assert caplog.messages.count("password.register refused: too many: identity_taken") == 1
    assert HERE not in caplog.text


async def test_counts_survive_a_restart(tmp_path: Path) -> None:
    """RL-7: the database has the counts, and only a keyed hash of each source."""
    for expected in ([422, 422], [429]):
        auth = make_auth(tmp_path, limits=TWICE)
        async with auth.running():
            if expected == [422, 422]:
                await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
            assert await statuses(auth, [EMAIL] * len(expected)) == expected
            assert counted(tmp_path) == 1
            assert HERE not in str(tables(tmp_path)["asgi_auth_counters"])
        await auth.close()


# --- races


async def test_race_reveals_no_more_than_the_limit(shared: OnSQLite | OnPostgres) -> None:
    """RL-5, RL-7: of 100 registrations of a taken address at once at five workers, 20 learn that it is taken."""
    async with workers(shared) as auths:
        await auths[0].accounts.create({"email": EMAIL}, password=PASSWORD)
        answers = await asyncio.gather(*(enter(auths[number % 5], headers=JSON) for number in range(100)))
        codes = Counter(answer.json()["code"] for answer in answers)
        assert codes == {"identity_taken": 20, "rate_limited": 80}
        assert await shared.count_rows("users") == 1


async def test_registrations_of_free_addresses_from_one_source_succeed(shared: OnSQLite | OnPostgres) -> None:
    """RL-5: 60 registrations of free addresses from one source at once succeed, and none is counted."""
    async with workers(shared, limits=ONCE) as auths:
        answers = await asyncio.gather(*(enter(auths[number % 5], free(number)) for number in range(60)))
        assert {answer.status for answer in answers} == {200}
        assert await shared.count_rows("counters") == 0


# --- failures


async def test_registration_is_503_if_counters_fail(tmp_path: Path) -> None:
    """FT-1: without counters a registration is 503, for a taken and a free address alike."""
    auth = make_auth(tmp_path)
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        await execute(tmp_path, "DROP TABLE asgi_auth_counters")
        answers = [await enter(auth, email, headers=JSON) for email in (EMAIL, free(0))]
        assert answers == [answers[0]] * 2
        assert (answers[0].status, answers[0].json()["code"]) == (503, "store_unavailable")


class Breaking(Hook):
    """Drops the table of counters at the last moment."""

    name = "breaking"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def taken(self, draft: Draft, account: Account) -> bool:
        await execute(self._directory, "DROP TABLE asgi_auth_counters")
        return False


async def test_answer_that_cannot_be_counted_is_not_given(tmp_path: Path) -> None:
    """FT-1: the answer is 503 if counting fails after the address was found to be taken."""
    auth = make_auth(tmp_path, add_ons=[Breaking(tmp_path)])
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
        answer = await enter(auth, headers=JSON)
        assert (answer.status, answer.json()["code"]) == (503, "store_unavailable")
