"""No secret is in a log, a repr or the text of an error, and none is in plain text in the database."""

import asyncio
import logging
import re
import sqlite3
import traceback
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from asgi_auth.acts import Draft, Proof
from asgi_auth.add_ons.confirmation import Confirmation
from asgi_auth.add_ons.invitation import APPLICATION, Invitation
from asgi_auth.errors import AuthError
from asgi_auth.events import Event
from asgi_auth.hooks import Hook
from asgi_auth.passwords import Bcrypt
from asgi_auth.phases import PhaseRequest, SignedIn, TokenIssued
from asgi_auth.senders import MemorySender
from asgi_auth.store import Work
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import Account, Client
from asgi_auth.web.bodies import read_body
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, FORM_TYPE, ask, execute, make_scope, post, site, tables
from tests.support import EMAIL, OTHER_EMAIL, OTHER_SECRET, SECRET, credentials, make_auth, registration

pytestmark = pytest.mark.anyio

PASSWORD, NEW_PASSWORD, WRONG = "amber-Walrus 41 orbit", "cobalt_Ferret 73 tundra", "scarlet Otter 58 glacier"
NEW = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}


class _Scenario:
    """The life of an account, over HTTP and without; it records every secret that was issued or entered."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.secrets, self.stored, self.errors = directory, set[str](), set[str](), list[AuthError]()
        self.objects: list[Any] = []
        resettable = Resettable(sender=self._send)
        self.auth = make_auth(
            directory,
            secret=[SECRET, OTHER_SECRET],
            hasher=Bcrypt(cost=4, pepper="p" + SECRET[::-1]),
            strategies=[Password(resettable=resettable)],
        )
        self.app = site(self.auth)
        self.mail: list[str] = []
        self.secrets |= {SECRET, OTHER_SECRET, "p" + SECRET[::-1], PASSWORD, NEW_PASSWORD, WRONG}

    async def _send(self, user: Any, token: str | None, opts: Any) -> None:
        if token is not None:
            self.mail.append(token)
            self.secrets.add(token)
            raise ConnectionError(f"550 could not deliver {opts['url']}")

    def _issued(self, token: Any) -> Any:
        self.secrets |= {str(token)}
        if hasattr(token, "cookie"):
            self.secrets |= {token.cookie, token.cookie.partition(".")[0]}
        self.objects.append(token)
        return token

    async def _fails(self, awaitable: Any) -> None:
        with pytest.raises(AuthError) as caught:
            await awaitable
        self.errors.append(caught.value)

    async def run(self) -> None:
        """Run every act once with valid and once with invalid values."""
        async with self.auth.running():
            await self._without_http()
            await self._over_http()
            await self._when_it_breaks()
            self._remember_rows()

    async def _without_http(self) -> None:
        password = self.auth.strategy("password")
        await password.register(registration(OTHER_EMAIL, PASSWORD))
        user, token = await password.register(registration(EMAIL, PASSWORD))
        self._issued(token)
        finished = await password.sign_in({**credentials(EMAIL, PASSWORD), "remember_me": True})
        self._issued(finished.token)
        issued = await password.sign_in(credentials(EMAIL, PASSWORD), token_type="sign_in")
        self._issued(issued.token)
        loaded = await self.auth.sessions.load(token.cookie)
        found = await self.auth.accounts.find("email", EMAIL)
        assert found is not None
        made = self.auth.tokens.make("reset", account=found.account, lifetime=timedelta(hours=1))
        self.secrets |= {made.token, made.record.token_hash.hex()}
        proof = Proof(account=found.account, factor="password", at=self.auth.clock())
        request = PhaseRequest(params={"password": PASSWORD}, pending=token.cookie)
        client = Client(session_hashes=(self.auth.sessions.cookie_hash(token.cookie),))
        self.objects += [
            user,
            finished,
            issued,
            loaded,
            *loaded,
            found,
            *found,
            made,
            made.record,
            proof,
            request,
            client,
        ]
        self.objects += [SignedIn(user, proof), TokenIssued(user, issued.token), self.auth, self.auth.services]
        self.objects += [self.auth.hasher, self.auth.store, password, self.auth.tokens, self.auth.sessions]
        self.objects += [self.auth.accounts, self.auth.services.passwords, AuthPlug(self.auth), self.app]
        await self._fails(password.sign_in(credentials(EMAIL, WRONG)))
        await self._fails(password.sign_in(credentials(WRONG, PASSWORD)))
        await self._fails(password.sign_in(credentials(EMAIL, f"{WRONG}\ud800")))
        await self._fails(password.register(registration(EMAIL, PASSWORD)))
        await self._fails(password.register({**registration("new@mail.example.org"), **NEW, "password": WRONG}))
        await self._fails(password.sign_in_with_token({"token": token.cookie}))
        await self._fails(password.reset({"reset_token": issued.token, **NEW}))
        for kind, body in (
            ("application/json", f'{{"password": "{PASSWORD}"'.encode()),
            ("application/json", f'{{"password": "{PASSWORD}\\ud800"}}'.encode()),
            ("application/json", f'{{"password": "{PASSWORD}'.encode() + b"\xff"),
            (FORM_TYPE, f"password={PASSWORD}".encode() + b"\xff"),
            (FORM_TYPE, f"password={PASSWORD}&password={PASSWORD}".encode()),
        ):
            await self._fails(self._read(kind, body))
        await self._fails(self.auth.sessions.load(token.cookie + "x"))
        await self._fails(self.auth.sessions.load_bearer(str(token) + "x"))

    @staticmethod
    async def _read(kind: str, body: bytes) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        scope = make_scope("POST", "/", {"content-type": kind})
        await read_body(Request(scope, receive), limit=1000, timeout=timedelta(seconds=9))

    async def _over_http(self) -> None:
        answer = await post(self.app, "/auth/password/sign_in", credentials(EMAIL, PASSWORD), headers=BROWSER)
        cookie = answer.cookie("user_session")
        self.secrets |= {cookie, cookie.partition(".")[0]}
        answer = await ask(self.app, "POST", "/auth/password/sign_in", json=credentials(EMAIL, PASSWORD))
        bearer = str(self._issued(answer.json()["token"]))
        self.auth.clock.advance(timedelta(minutes=2))
        for options in ({"cookie": f"user_session={cookie}"}, {"bearer": bearer}, {"bearer": bearer + "x"}):
            await ask(self.app, "GET", "/", **options)
        await post(self.app, "/auth/password/sign_in", credentials(EMAIL, WRONG))
        await post(self.app, "/auth/password/sign_in", {"email": PASSWORD, "password": EMAIL})
        await ask(self.app, "POST", "/auth/password/sign_in", body=f'{{"password": "{PASSWORD}"'.encode())
        await post(self.app, "/auth/password/reset_request", {"email": EMAIL})
        await post(self.app, "/auth/password/reset", {"reset_token": self.mail[-1], **NEW, "password": WRONG})
        await post(self.app, "/auth/password/reset", {"reset_token": self.mail[-1], **NEW})
        await post(self.app, "/auth/password/reset", {"reset_token": self.mail[-1], **NEW})
        await post(self.app, "/auth/sign_out", cookie=f"user_session={cookie}", bearer=bearer)

    async def _when_it_breaks(self) -> None:
        password = self.auth.strategy("password")
        _, token = await password.sign_in(credentials(EMAIL, NEW_PASSWORD))
        self._issued(token)
        await execute(self.directory, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
        await self._fails(password.sign_in(credentials(EMAIL, NEW_PASSWORD)))
        await self._fails(self.auth.sessions.load(token.cookie))
        await post(self.app, "/auth/sign_out", cookie=f"user_session={token.cookie}")
        await execute(self.directory, "ALTER TABLE gone RENAME TO asgi_auth_sessions")

    def _remember_rows(self) -> None:
        with closing(sqlite3.connect(self.directory / "app.db")) as database:
            for stamp, stored in database.execute("SELECT stamp, password_hash FROM asgi_auth_accounts"):
                self.stored |= {stamp.hex(), repr(stamp), stored, stored.rpartition("$")[2]}
            for (secret_hash,) in database.execute("SELECT secret_hash FROM asgi_auth_sessions"):
                self.stored |= {secret_hash.hex(), repr(secret_hash)}


def _found(secrets: Iterable[str], text: str) -> list[str]:
    return [secret for secret in secrets if secret in text]


def _files(directory: Path) -> str:
    """The bytes of database, write-ahead log and shared memory."""
    return "".join(path.read_bytes().decode("latin-1") for path in directory.iterdir())


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def test_no_secret_is_in_logs_reprs_or_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AU-2, PW-8, TK-17: with all loggers at DEBUG and a loop in debug mode, no secret is logged or shown."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    scenario = _Scenario(tmp_path)
    await scenario.run()
    loop.set_debug(False)
    secrets = scenario.secrets | scenario.stored
    assert len(secrets) > 25
    assert all(len(secret) > 15 for secret in secrets)
    loggers = Counter(record.name for record in caplog.records)
    assert min(loggers["asgi_auth"], loggers["aiosqlite"], loggers["asyncio"]) > 5

    for record in caplog.records:
        # Only a local instance logs the traceback of a defect in a sender: tests/test_mailing.py.
        shown = "" if record.msg == "a %s message could not be sent: %s" else record.exc_text
        assert not _found(secrets, f"{record.getMessage()} {record.args!r} {shown}"), record
    for shown in scenario.objects:
        if type(shown) is not str:
            assert not _found(secrets, repr(shown)), type(shown)
    for error in scenario.errors:
        assert not _found(secrets, "".join(traceback.format_exception(error)))
        for link in _chain(error):
            assert not _found(secrets, f"{link} {link!r} {link.args!r}"), type(link)
    assert not _found(scenario.secrets, _files(tmp_path))
    assert PASSWORD not in str(tables(tmp_path))


async def test_password_in_the_wrong_field_is_not_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AU-4: a password that was entered as the address is neither in the database nor in the log."""
    caplog.set_level(logging.DEBUG)
    auth = make_auth(tmp_path)
    async with auth.running():
        plug = AuthPlug(auth)
        for typed in (PASSWORD, f"{WRONG.replace(' ', '')}@mail.example.org"):
            await post(plug, "/auth/password/sign_in", {"email": typed, "password": EMAIL})
            await post(plug, "/auth/password/reset_request", {"email": typed})
            assert typed not in _files(tmp_path)
            assert typed not in caplog.text


async def test_passwords_are_stored_as_bcrypt_hashes(tmp_path: Path) -> None:
    """PW-8: each hash has the default cost 12 and its own salt."""
    auth = make_auth(tmp_path, hasher=Bcrypt())
    async with auth.running():
        for email in (EMAIL, OTHER_EMAIL):
            await auth.accounts.create({"email": email}, password=PASSWORD)
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        hashes = [row[0] for row in database.execute("SELECT password_hash FROM asgi_auth_accounts")]

    assert len(set(hashes)) == 2
    for stored in hashes:
        assert re.fullmatch(r"\{asgi_auth-1\}\$2b\$12\$[./A-Za-z0-9]{53}", stored)


async def test_tokens_are_random_and_stored_as_hashes(tmp_path: Path) -> None:
    """TK-17: 1,000 tokens have 256 random bits each; the database contains none of them."""
    auth = make_auth(tmp_path)
    async with auth.running():
        user = await auth.accounts.create({"email": EMAIL})
        found = await auth.accounts.get(user.id)
        assert found is not None
        issued = [auth.tokens.make("reset", account=found.account, lifetime=timedelta(hours=1)) for _ in range(1000)]
        async with auth.services.store.transaction() as work:
            for each in issued:
                await work.tokens.insert(each.record)
        cookies = [(await auth.sign_in(user)).cookie.partition(".")[0] for _ in range(30)]
        content = _files(tmp_path)

    for tokens in ([each.token for each in issued], cookies):
        assert len(set(tokens)) == len(tokens)
        assert {len(token) for token in tokens} == {43}
        for position in range(42):
            assert len({token[position] for token in tokens}) > 10
        assert not [token for token in tokens if token in content]


# --- events ----------------------------------------------------------------------------------------------------------


class _Kept(Hook):
    """An audit log that keeps every draft and event."""

    name = "kept"

    def __init__(self) -> None:
        self.drafts: list[str] = []
        self.events: list[tuple[str, str]] = []

    async def prepare(self, draft: Draft) -> Draft:
        self.drafts.append(repr({field.name: getattr(draft, field.name) for field in fields(draft)}))
        return draft

    async def taken(self, draft: Draft, account: Account) -> bool:
        self.drafts.append(repr({field.name: getattr(draft, field.name) for field in fields(draft)}))
        return True

    async def within(self, event: Event, work: Work[Any]) -> None:
        self.events.append((event.name, repr(asdict(event))))


async def test_hooks_get_no_password_and_events_no_token(tmp_path: Path) -> None:
    """AU-4: no field of an event contains a secret, and no draft contains a password."""
    kept, mails = _Kept(), MemorySender()
    auth = make_auth(
        tmp_path,
        sender=mails,
        add_ons=[Confirmation(sender=mails), Invitation(sender=mails), kept],
    )
    async with auth.running():
        password, confirmation = auth.strategy("password"), auth.add_on("confirmation")
        await auth.add_on("invitation").invite(APPLICATION, EMAIL)
        invited = mails.messages[-1][1]
        user, token = await password.register({**registration(EMAIL, PASSWORD), "invitation_token": invited})
        await password.register(registration(EMAIL, WRONG))
        await password.register(registration(OTHER_EMAIL, WRONG))
        await password.register(registration(OTHER_EMAIL, WRONG))
        await confirmation.confirm({"confirmation_token": mails.messages[-1][1]})
        change = {"email": "carol@mail.example.org", "current_password": PASSWORD}
        await confirmation.change_email(user, change, session=token.session)
        await password.reset_request({"email": EMAIL})
        await password.reset({"reset_token": mails.messages[-1][1], **NEW})
        with pytest.raises(AuthError):
            await password.sign_in(credentials(EMAIL, WRONG))
    tokens = {token for _, token, _ in mails.messages if token is not None}
    passwords = {PASSWORD, NEW_PASSWORD, WRONG}
    assert len(tokens) == len({"invitation", "confirmation", "change", "reset"})
    happened = {"invitation.sent", "invitation.accepted", "user.created", "user.confirmed", "user.change_asked"}
    assert {name for name, _ in kept.events} >= {*happened, "sign_in.succeeded", "act.failed", "password.set"}
    assert [text for text in kept.drafts for secret in passwords if secret in text] == []
    assert [text for _, text in kept.events for secret in passwords | tokens if secret in text] == []
