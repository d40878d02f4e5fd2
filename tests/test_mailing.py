"""asgi_auth.mailing: links, senders, counts and deliveries."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth import mailing as module
from asgi_auth.errors import (
    ConfigurationError,
    InvalidTokenError,
    RateLimitedError,
    SenderError,
    StoreUnavailableError,
)
from asgi_auth.events import DeliveryFailed, Event
from asgi_auth.limits import Limit
from asgi_auth.mailing import Link
from asgi_auth.senders import ConsoleSender, MemorySender
from asgi_auth.tokens import IssuedToken
from tests.support import BASE_URL, EMAIL, PATIENCE, Events, LocalAuthentication, found_of, make_auth, register

pytestmark = pytest.mark.anyio

LINK = Link(strategy="password", phase="reset", parameter="reset_token")


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication with a hook that records its events."""
    auth = make_auth(tmp_path, app_name="Example", add_ons=[Events()])
    yield auth
    await auth.close()


def seen(auth: LocalAuthentication) -> list[Event]:
    hook = auth.services.hooks[-1]
    assert isinstance(hook, Events)
    return hook.seen


async def issue(auth: LocalAuthentication, purpose: str = "reset") -> IssuedToken:
    return await auth.tokens.issue(purpose, account=(await found_of(auth)).account, lifetime=timedelta(hours=1))


async def is_live(auth: LocalAuthentication, issued: IssuedToken) -> bool:
    try:
        await auth.tokens.peek(issued.record.purpose, issued.token)
    except InvalidTokenError:
        return False
    return True


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "link"),
    [
        (None, "http://localhost:8000/auth/password/reset?reset_token="),
        ("https://www.example.org/reset", "https://www.example.org/reset?reset_token="),
        ("https://www.example.org/reset?lang=de", "https://www.example.org/reset?lang=de&reset_token="),
    ],
)
async def test_link_leads_to_our_page_or_to_the_applications(
    auth: LocalAuthentication, url: str | None, link: str
) -> None:
    """The application's own page replaces the page of the phase and keeps its query."""
    await register(auth)
    issued, sender = await issue(auth), MemorySender()
    await auth.services.mailing.send(
        sender, None, purpose="reset", address=EMAIL, token=issued, link=replace(LINK, url=url)
    )
    assert sender.messages[0][2]["url"] == link + issued.token


# --- senders ---------------------------------------------------------------------------------------------------------


def test_value_that_is_no_sender_is_refused(tmp_path: Path) -> None:
    """ConfigurationError names the parameter whose value is not a sender."""
    not_a_sender: Any = "smtp.example.org"
    with pytest.raises(ConfigurationError, match=r"^mailer"):
        make_auth(tmp_path).services.mailing.sender(not_a_sender, parameter="mailer")


def test_sender_that_shows_messages_is_for_local_use(tmp_path: Path) -> None:
    """A public instance refuses ConsoleSender: a reader of the console could use the links."""
    local, public = make_auth(tmp_path), make_auth(tmp_path, base_url="https://auth.example.org")
    assert local.services.local is True
    assert public.services.local is False
    sender = ConsoleSender()
    assert local.services.mailing.sender(sender, parameter="mailer") is sender
    with pytest.raises(ConfigurationError, match="mailer: ConsoleSender is for local use, not for https"):
        public.services.mailing.sender(sender, parameter="mailer")


# --- deliveries ------------------------------------------------------------------------------------------------------


async def test_delivery_hands_over_what_a_mail_needs(auth: LocalAuthentication) -> None:
    """A sender gets user, token, purpose, address, application, link and expiry; a notice has no token and no link."""
    user, _ = await register(auth)
    issued, sender = await issue(auth), MemorySender()
    await auth.services.mailing.send(sender, user, purpose="reset", address=EMAIL, token=issued, link=LINK)
    await auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL)
    texts = [opts["texts"].subject for _, _, opts in sender.messages]
    assert texts == ["Set a new password for Example", "A message from Example"]
    messages = [(to, token, {**opts, "texts": None}) for to, token, opts in sender.messages]
    assert messages == [
        (
            user,
            issued.token,
            {
                "locale": "en",
                "texts": None,
                "purpose": "reset",
                "address": EMAIL,
                "app_name": "Example",
                "url": f"{BASE_URL}/auth/password/reset?reset_token={issued.token}",
                "expires_at": issued.record.expires_at,
            },
        ),
        (
            None,
            None,
            {"purpose": "notice", "address": EMAIL, "app_name": "Example", "locale": "en", "texts": None},
        ),
    ]
    with pytest.raises(TypeError):
        sender.messages[0][2]["url"] = ""  # type: ignore[index]  # the test is that this fails


async def test_delivery_retires_older_tokens_once_it_is_done(auth: LocalAuthentication) -> None:
    """TK-12: the older token of the purpose stays valid until the sender has returned."""
    user, _ = await register(auth)
    older, newer = await issue(auth), await issue(auth)
    during: list[bool] = []

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        during.append(await is_live(auth, older))

    sender = auth.services.mailing.sender(send, parameter="mailer")
    await auth.services.mailing.send(sender, user, purpose="reset", address=EMAIL, token=newer, link=LINK)
    assert during == [True]
    assert [await is_live(auth, issued) for issued in (older, newer)] == [False, True]


async def test_failed_delivery_is_an_event_and_retires_nothing(
    auth: LocalAuthentication, caplog: pytest.LogCaptureFixture
) -> None:
    """TK-12: the older link stays valid; log and event contain the type of the failure, not its text."""
    user, _ = await register(auth)
    older, newer = await issue(auth), await issue(auth)
    seen(auth).clear()

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        raise ConnectionError(f"could not send {token} to {opts['address']}")

    sender = auth.services.mailing.sender(send, parameter="mailer")
    caplog.set_level(logging.DEBUG, "asgi_auth")
    await auth.services.mailing.send(sender, user, purpose="reset", address=EMAIL, token=newer, link=LINK)
    await auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL)
    assert [await is_live(auth, issued) for issued in (older, newer)] == [True, True]
    failures = [event for event in seen(auth) if isinstance(event, DeliveryFailed)]
    assert [(event.user_id, event.purpose, event.reason) for event in failures] == [
        (user.id, "reset", "ConnectionError"),
        (None, "notice", "ConnectionError"),
    ]
    records = [record for record in caplog.records if record.name == "asgi_auth" and record.levelname != "INFO"]
    assert [record.getMessage() for record in records] == [
        "a reset message could not be sent: ConnectionError",
        "a notice message could not be sent: ConnectionError",
    ]


async def _failing_delivery(directory: Path, error: Exception, base_url: str) -> str:
    """Deliver by a sender that raises *error*; return the reason in the event."""
    listener = Events()
    auth = make_auth(directory, base_url=base_url, add_ons=[listener])

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        raise error

    async with auth.running():
        sender = auth.services.mailing.sender(send, parameter="mailer")
        await auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL)
    [failure] = [event for event in listener.seen if isinstance(event, DeliveryFailed)]
    return failure.reason


@pytest.mark.parametrize("base_url", ["https://app.example.org", BASE_URL], ids=["public", "local"])
async def test_sender_says_why_it_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture, base_url: str) -> None:
    """TK-4: log and event contain the text of a SenderError: a sender promises that it holds no secret."""
    assert await _failing_delivery(tmp_path, SenderError("quota of today is used up"), base_url) == (
        "quota of today is used up"
    )
    record = next(record for record in caplog.records if record.message.startswith("a notice message"))
    assert record.message == "a notice message could not be sent: quota of today is used up"
    assert record.exc_info is None


@pytest.mark.parametrize("base_url", ["https://app.example.org", BASE_URL], ids=["public", "local"])
async def test_defect_of_a_sender_shows_its_traceback_locally(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, base_url: str
) -> None:
    """TK-4: a local instance logs the traceback, a public one only the type: the text may contain a token."""
    assert await _failing_delivery(tmp_path, KeyError("hush"), base_url) == "KeyError"
    record = next(record for record in caplog.records if record.message.startswith("a notice message"))
    assert record.message == "a notice message could not be sent: KeyError"
    assert ("hush" in caplog.text, "in send" in caplog.text) == ((base_url == BASE_URL,) * 2)


async def test_delivery_has_a_time_limit(auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that hangs fails after SENDER_TIMEOUT."""
    assert timedelta(seconds=60) == module.SENDER_TIMEOUT
    monkeypatch.setattr(module, "SENDER_TIMEOUT", timedelta(0))
    await register(auth)

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        await asyncio.Event().wait()

    await auth.services.mailing.send(
        auth.services.mailing.sender(send, parameter="mailer"), None, purpose="notice", address=EMAIL
    )
    [failure] = [event for event in seen(auth) if isinstance(event, DeliveryFailed)]
    assert failure.reason == "no end within 0 s"


async def test_delivery_may_be_cancelled(auth: LocalAuthentication) -> None:
    """A cancellation is not reported as a failed delivery."""
    started = asyncio.Event()

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    sender = auth.services.mailing.sender(send, parameter="mailer")
    task = asyncio.ensure_future(auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen(auth) == []


async def test_eight_deliveries_that_fail_at_once_all_end(auth: LocalAuthentication) -> None:
    """Jobs that record their failure do not wait for each other."""
    meet = asyncio.Barrier(8)

    async def send(user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        await meet.wait()
        raise ConnectionError

    sender = auth.services.mailing.sender(send, parameter="mailer")

    async def job() -> None:
        await auth.services.mailing.send(sender, None, purpose="notice", address=EMAIL)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(auth.services.commit.jobs.schedule(job) for _ in range(8)))
    assert [event.name for event in seen(auth)] == ["delivery.failed"] * 8


# --- counts ----------------------------------------------------------------------------------------------------------

SHORT, LONG = Limit(1, timedelta(minutes=1)), Limit(2, timedelta(hours=1))


async def fail(*_: Any, **__: Any) -> Any:
    """Fail as a database that does not answer."""
    raise StoreUnavailableError("sqlite: SQLITE_IOERR")


async def test_code_has_no_link(auth: LocalAuthentication) -> None:
    """A token that the user types in is sent with its expiry and without a URL."""
    await register(auth)
    issued, sender = await issue(auth), MemorySender()
    assert await auth.services.mailing.send(sender, None, purpose="reset", address=EMAIL, token=issued)
    [(_, token, opts)] = sender.messages
    assert (token, opts["expires_at"], "url" in opts) == (issued.token, issued.record.expires_at, False)


async def test_refused_message_gives_back_its_other_counts(auth: LocalAuthentication) -> None:
    """RL-6: a message that one quota refuses is not counted against the other quotas."""
    sender, mailing = MemorySender(), auth.services.mailing
    quotas = [mailing.quota("often", EMAIL.upper(), LONG), mailing.quota("seldom", EMAIL, SHORT)]
    sent = [await mailing.send(sender, None, purpose="notice", address=EMAIL, quotas=quotas) for _ in range(4)]
    assert sent == [True, False, False, False]
    auth.clock.advance(timedelta(minutes=1))
    assert await mailing.send(sender, None, purpose="notice", address=EMAIL, quotas=quotas)
    assert len(sender.messages) == 2


async def test_sent_message_is_counted_if_retiring_older_tokens_fails(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RL-6: a failure after the sender has returned does not give the count back."""
    await register(auth)
    issued, sender, mailing = await issue(auth), MemorySender(), auth.services.mailing
    quotas = [mailing.quota("seldom", EMAIL, SHORT)]
    monkeypatch.setattr(auth.services.tokens, "retire_older", fail)
    with pytest.raises(StoreUnavailableError):
        await mailing.send(sender, None, purpose="reset", address=EMAIL, token=issued, link=LINK, quotas=quotas)
    assert not await mailing.send(sender, None, purpose="reset", address=EMAIL, quotas=quotas)
    assert len(sender.messages) == 1


async def test_count_of_an_act_that_fails_is_given_back(auth: LocalAuthentication) -> None:
    """RL-6: an act that is not committed uses up no quota; a committed one does."""
    mailing = auth.services.mailing
    quota = mailing.quota("seldom", EMAIL, SHORT)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            async with mailing.counted(quota):
                await fail()
    async with mailing.counted(quota):
        pass
    with pytest.raises(RateLimitedError):
        async with mailing.counted(quota):
            raise AssertionError  # pragma: no cover  # never entered
    await mailing.give_back(quota)
    async with mailing.counted(quota):
        pass


async def test_count_of_a_cancelled_act_stays(auth: LocalAuthentication) -> None:
    """RL-6: the act and its message continue after their request is cancelled, so the count stays."""
    quota = auth.services.mailing.quota("seldom", EMAIL, SHORT)
    with pytest.raises(asyncio.CancelledError):
        async with auth.services.mailing.counted(quota):
            raise asyncio.CancelledError
    with pytest.raises(RateLimitedError):
        await auth.services.limiter.take(*quota)
