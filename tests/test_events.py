"""Which act an event belongs to, who did it, and that every act leaves one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.add_ons import Confirmation
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ConfigurationError,
    FactorRequiredError,
    ForbiddenError,
    OverloadedError,
    RateLimitedError,
    StoreUnavailableError,
    ValidationError,
)
from asgi_auth.events import ActAccepted, ActFailed, Event, UserChangeAsked, UserChangeCancelled, UserChanged
from asgi_auth.hooks import Hook
from asgi_auth.limits import Limit, Limits
from asgi_auth.senders import MemorySender
from asgi_auth.strategies import Password, Resettable
from asgi_auth.types import Activity, Client
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, JSON, post
from tests.second_factor import Code
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    Events,
    LocalAuthentication,
    credentials,
    found_of,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

CLIENT = Client(address="192.0.2.1", label="Browser/1.0")


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def auth(tmp_path: Path, events: Events) -> AsyncIterator[LocalAuthentication]:
    """Every verb of the library is there; the address need not be confirmed."""
    sender = MemorySender()
    auth = make_auth(
        tmp_path,
        sender=sender,
        strategies=[Password(resettable=Resettable(sender=sender))],
        add_ons=[Confirmation(sender=sender, required=False), events],
    )
    async with auth.running():
        yield auth


# --- one act --------------------------------------------------------------------------------------------------------


async def test_events_of_one_act_bear_its_id(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: a registration creates a user and signs them in; both have the act, the activity and the client."""
    await auth.strategy("password").register(registration(), client=CLIENT)
    first = events.take()
    await auth.strategy("password").sign_in(credentials(), client=CLIENT)
    second = events.take()

    assert [event.name for event in first] == ["user.created", "sign_in.succeeded"]
    assert len({event.act_id for event in first}) == 1
    assert len({event.act_id for event in (*first, *second)}) == 2
    assert {event.activity for event in first} == {Activity("password", "register")}
    assert {event.client for event in (*first, *second)} == {CLIENT}


async def test_mail_that_fails_belongs_to_its_act(tmp_path: Path) -> None:
    """AU-1: it is sent after the answer, and told of in a transaction of its own."""

    async def refuse(user: object, token: str | None, opts: object) -> None:
        raise OSError("550")

    events = Events()
    auth = make_auth(tmp_path, strategies=[Password(resettable=Resettable(sender=refuse))], add_ons=[events])
    async with auth.running():
        await register(auth)
        events.take()
        await post(AuthPlug(auth), "/auth/password/reset_request", {"email": EMAIL})
    accepted, failed = sorted(events.take(), key=lambda event: event.name)

    assert (accepted.name, failed.name) == ("act.accepted", "delivery.failed")
    assert accepted.act_id == failed.act_id
    assert failed.activity == ("password", "reset_request")


async def test_event_of_a_hook_belongs_to_the_act(tmp_path: Path) -> None:
    """What a hook emits, or does with the library while it is told, is part of the act."""

    class Echo(Hook):
        name = "echo"

        async def within(self, event: Event, work: Any) -> None:
            if event.name == "user.created":
                work.emit(UserChangeCancelled(at=event.at))

    events = Events()
    auth = make_auth(tmp_path, add_ons=[Echo(), events])
    await register(auth)
    acts = {event.act_id for event in events.take()}
    await auth.close()
    assert len(acts) == 1


# --- who did it -----------------------------------------------------------------------------------------------------


async def test_actor_of_what_the_application_does(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: an administrator who locks a user is named, by object or by id; without one it is the application."""
    user, admin = await auth.accounts.create({"email": EMAIL}), await auth.accounts.create({"email": OTHER_EMAIL})
    events.take()
    await auth.accounts.disable(user, actor=admin)
    await auth.accounts.enable(user.id, actor=admin.id)
    await auth.accounts.confirm(user)
    await auth.sessions.revoke_all(user, actor=admin)
    await auth.accounts.delete(user, actor=admin)
    told = [(event.name, event.activity, event.actor, event.user_id) for event in events.take()]

    assert told == [
        ("sessions.revoked", (None, "disable"), admin.id, user.id),
        ("user.disabled", (None, "disable"), admin.id, user.id),
        ("sessions.revoked", (None, "enable"), admin.id, user.id),
        ("user.enabled", (None, "enable"), admin.id, user.id),
        ("user.confirmed", (None, "confirm"), None, user.id),
        ("sessions.revoked", (None, "revoke_all"), admin.id, user.id),
        ("user.deleted", (None, "delete"), admin.id, user.id),
    ]


async def test_actor_of_a_phase_is_who_is_signed_in(auth: LocalAuthentication, events: Events) -> None:
    """By cookie; a sign-out has its client, too."""
    user, token = await register(auth)
    cookie = f"user_session={token.cookie}"
    events.take()
    await post(AuthPlug(auth), "/auth/confirmation/cancel", headers=BROWSER, cookie=cookie)
    await post(AuthPlug(auth), "/auth/sign_out", headers=BROWSER, cookie=cookie)
    cancelled, ended = events.take()

    assert (cancelled.name, cancelled.actor, cancelled.user_id) == ("user.change_cancelled", user.id, user.id)
    assert (ended.name, ended.activity) == ("sessions.revoked", (None, "sign_out"))
    assert ended.client.address == "192.0.2.1"


# --- every act leaves one -------------------------------------------------------------------------------------------

Act = Callable[[LocalAuthentication], Coroutine[Any, Any, Any]]


async def unknown(auth: LocalAuthentication) -> Any:
    await auth.strategy("password").sign_in(credentials(OTHER_EMAIL))


async def wrong(auth: LocalAuthentication) -> Any:
    await auth.strategy("password").sign_in(credentials(password=NEW_PASSWORD))


async def disabled(auth: LocalAuthentication) -> Any:
    await auth.services.store.accounts.update((await found_of(auth)).account.user_id, {"disabled_at": auth.clock()})
    await auth.strategy("password").sign_in(credentials())


async def taken(auth: LocalAuthentication) -> Any:
    await auth.strategy("password").register(registration())


async def dead_reset(auth: LocalAuthentication) -> Any:
    await auth.strategy("password").reset({"reset_token": "A" * 43, "password": "", "password_confirmation": ""})


async def dead_link(auth: LocalAuthentication) -> Any:
    await auth.add_on("confirmation").confirm({"confirmation_token": "A" * 43})


async def wrong_current(auth: LocalAuthentication) -> Any:
    change = {"email": OTHER_EMAIL, "current_password": NEW_PASSWORD}
    await auth.add_on("confirmation").change_email((await found_of(auth)).user, change, session=None)


async def missing(auth: LocalAuthentication) -> Any:
    await auth.strategy("password").sign_in({})


REFUSALS: list[tuple[Act, str, str, str, bool]] = [
    (unknown, "password.sign_in", "authentication_failed", "unknown_user", False),
    (wrong, "password.sign_in", "authentication_failed", "wrong_password", True),
    (disabled, "password.sign_in", "authentication_failed", "disabled", True),
    (taken, "password.register", "identity_taken", "identity_taken", False),
    (dead_reset, "password.reset", "validation_failed", "invalid_parameters", False),
    (dead_link, "confirmation.confirm", "invalid_token", "dead_token", False),
    (wrong_current, "confirmation.change_email", "validation_failed", "wrong_password", True),
    (missing, "password.sign_in", "validation_failed", "invalid_parameters", False),
]


@pytest.mark.parametrize(("act", "activity", "code", "cause", "known"), REFUSALS)
async def test_refusal_leaves_exactly_one_event(
    auth: LocalAuthentication, events: Events, act: Act, activity: str, code: str, cause: str, known: bool
) -> None:
    """AU-1, AU-4: what was tried, what was told and why; whom it is about, if that is known; nothing that was typed."""
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    with pytest.raises(AuthError):
        await act(auth)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (".".join(map(str, event.activity)), event.code, event.cause) == (activity, code, cause)
    assert event.user_id == (user.id if known else None)
    assert "mail.example.org" not in repr(event)


async def test_refusal_of_a_stranger_is_one_of_the_act(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: a phase for signed-in users that is asked without a session, and one for fresh sessions."""
    await post(AuthPlug(auth), "/auth/password/reauthenticate", {"password": "x"}, headers=JSON)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (event.activity, event.cause) == (("password", "reauthenticate"), "not_signed_in")


async def test_concealed_refusal_leaves_its_event(tmp_path: Path, events: Events) -> None:
    """EN-4: the client is told what everybody is told; the log knows that the address was taken."""
    sender = MemorySender()
    auth = make_auth(tmp_path, sender=sender, add_ons=[Confirmation(sender=sender), events])
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    assert await auth.strategy("password").register(registration()) == (None, None)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (event.activity, event.cause) == (("password", "register"), "identity_taken")
    await auth.close()


async def test_success_that_writes_nothing_leaves_an_event(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: a reset that is asked for, for whomever, and a sign-in token."""
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    await auth.strategy("password").reset_request({"email": EMAIL})
    await auth.strategy("password").reset_request({"email": OTHER_EMAIL})
    await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    told = [(type(event), event.activity.phase, event.user_id) for event in events.take()]
    assert told == [
        (ActAccepted, "reset_request", None),
        (ActAccepted, "reset_request", None),
        (ActAccepted, "sign_in", user.id),
    ]


async def test_missing_factor_is_no_refusal(tmp_path: Path, events: Events) -> None:
    """The sign-in waits: an event of its own, and no failure."""
    auth = make_auth(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))], add_ons=[events])
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    with pytest.raises(FactorRequiredError):
        await auth.strategy("password").sign_in(credentials())
    assert [event.name for event in events.take()] == ["sign_in.pending"]
    await auth.close()


async def test_change_that_waits_is_no_change(auth: LocalAuthentication, events: Events) -> None:
    """``UserChanged`` says that fields were written; asking for a change, and dropping it, are events of their own."""
    user = await auth.accounts.create({"email": EMAIL}, confirmed=True)
    events.take()
    await auth.accounts.change(user, {"email": OTHER_EMAIL})
    await auth.accounts.change(user, {"email": EMAIL})
    await auth.accounts.change(user, {"email": OTHER_EMAIL, "plan": "gold"})
    await auth.add_on("confirmation").cancel(user)
    kinds = [type(event) for event in events.take()]
    assert kinds == [UserChangeAsked, UserChanged, UserChangeAsked, UserChangeCancelled]


async def test_change_of_a_user_who_is_gone(auth: LocalAuthentication) -> None:
    """The caller learns which parameter is wrong."""
    user = await auth.accounts.create({"email": EMAIL})
    await auth.accounts.delete(user)
    for named in (user, user.id):
        with pytest.raises(ValidationError) as refused:
            await auth.accounts.change(named, {"plan": "gold"})
        assert refused.value.fields == {"user": "This user does not exist any more."}


# --- before an act --------------------------------------------------------------------------------------------------


class Bouncer(Hook):
    """Refuses whom it is told to, before anything else is looked at."""

    name = "bouncer"

    def __init__(self) -> None:
        self.asked: list[tuple[Activity, str | None, dict[str, Any]]] = []
        self.closed = False

    async def before(self, activity: Activity, client: Client, params: Any) -> None:
        self.asked.append((activity, client.address, dict(params)))
        if self.closed:
            raise ForbiddenError("closed")


async def test_before_sees_the_parameters_without_secrets(tmp_path: Path) -> None:
    """With and without HTTP; what it refuses does not happen, and no password is looked at."""
    bouncer, events = Bouncer(), Events()
    auth = make_auth(tmp_path, add_ons=[bouncer, events])
    async with auth.running():
        await register(auth)
        await post(AuthPlug(auth), "/auth/password/sign_in", {**credentials(), "captcha": "x"})
        bouncer.closed = True
        events.take()
        answer = await post(AuthPlug(auth), "/auth/password/sign_in", credentials(), headers=JSON)
        with pytest.raises(ForbiddenError):
            await auth.strategy("password").sign_in(credentials(), client=CLIENT)

    assert bouncer.asked == [
        (("password", "register"), None, {"email": EMAIL}),
        (("password", "sign_in"), "192.0.2.1", {"email": EMAIL, "captcha": "x"}),
        (("password", "sign_in"), "192.0.2.1", {"email": EMAIL}),
        (("password", "sign_in"), "192.0.2.1", {"email": EMAIL}),
    ]
    assert (answer.status, answer.json()["code"]) == (403, "forbidden")
    assert [event.name for event in events.take()] == ["act.failed", "act.failed"]


# --- tries ----------------------------------------------------------------------------------------------------------


async def test_tries_at_the_current_password_are_one_budget(tmp_path: Path) -> None:
    """RL-6: reauthentication and a change of address count together; what is right is given back."""
    sender, limit = MemorySender(), Limit(2, timedelta(hours=1))
    confirmation = Confirmation(sender=sender, required=False)
    auth = make_auth(tmp_path, sender=sender, add_ons=[confirmation], limits=Limits(current_password=limit))
    user, token = await register(auth)
    password, change = auth.strategy("password"), {"email": OTHER_EMAIL, "current_password": NEW_PASSWORD}
    for _ in range(3):
        _, token = await password.reauthenticate({"password": PASSWORD}, session=token.session)
    with pytest.raises(AuthError):
        await password.reauthenticate({"password": NEW_PASSWORD}, session=token.session)
    with pytest.raises(ValidationError):
        await auth.add_on("confirmation").change_email(user, change, session=token.session)
    with pytest.raises(RateLimitedError):
        await password.reauthenticate({"password": PASSWORD}, session=token.session)
    auth.clock.advance(timedelta(hours=1))
    await password.reauthenticate({"password": PASSWORD}, session=token.session)
    await auth.close()


async def test_tries_at_a_sign_in_may_be_limited(tmp_path: Path) -> None:
    """RL-4, EN-1: by the name that is given, in any spelling, and whether or not there is such an account."""
    auth = make_auth(tmp_path, limits=Limits(sign_in=Limit(2, timedelta(hours=1)), current_password=None))
    await register(auth)
    for email in (EMAIL, OTHER_EMAIL):
        for spelling in (email, email.upper().replace("MAIL.EXAMPLE.ORG", "Mail.Example.Org")):
            with pytest.raises(AuthError) as refused:
                await auth.strategy("password").sign_in(credentials(spelling, NEW_PASSWORD))
            assert refused.value.code == "authentication_failed"
        with pytest.raises(RateLimitedError):
            await auth.strategy("password").sign_in(credentials(email))
    await auth.close()


async def test_tries_are_given_back_unless_the_secret_was_wrong(tmp_path: Path) -> None:
    """RL-6: also what was counted before another key was refused; a wrong secret and a cancelled try stay counted."""
    auth = make_auth(tmp_path, limits=Limits(current_password=Limit(1, timedelta(hours=1))))
    tries = auth.services.tries
    errors = [(AuthenticationFailedError, True), (asyncio.CancelledError, True), (OverloadedError, False)]
    for number, (error, counted) in enumerate(errors):
        with pytest.raises(error):
            async with tries.attempt("current_password", [f"a{number}"]):
                raise error
        assert await _is_counted(auth, f"a{number}") is counted
    with pytest.raises(RateLimitedError):
        await tries.attempt("current_password", ["b", "a0"]).__aenter__()
    assert not await _is_counted(auth, "b")
    await auth.close()


async def _is_counted(auth: LocalAuthentication, key: str) -> bool:
    try:
        await auth.services.limiter.check("current_password", key, Limit(1, timedelta(hours=1)))
    except RateLimitedError:
        return True
    return False


async def test_hook_before_sees_no_secret_whatever_is_sent(tmp_path: Path) -> None:
    """AU-4: secrets of other phases, of verbs without a phase, nested ones, and those of a keyword argument."""
    bouncer = Bouncer()
    auth = make_auth(
        tmp_path,
        strategies=[Password(resettable=Resettable(sender=MemorySender()), sign_in_enabled=False)],
        add_ons=[bouncer],
    )
    secrets = {"password": PASSWORD, "reset_token": PASSWORD, "pending_token": PASSWORD, "user": {"password": PASSWORD}}
    async with auth.running():
        await register(auth)
        await post(AuthPlug(auth), "/auth/password/reset_request", {"email": EMAIL, "password": PASSWORD})
        await auth.strategy("password").sign_in(params={**credentials(), **secrets})
        with pytest.raises(TypeError):
            await auth.strategy("password").sign_in()

    assert bouncer.asked[-2:] == [
        (("password", "sign_in"), None, {"email": EMAIL, "user": {}}),
        (("password", "sign_in"), None, {}),
    ]
    assert PASSWORD not in repr(bouncer.asked)


# --- where an act ends ----------------------------------------------------------------------------------------------


async def test_task_that_outlives_its_act_begins_another(tmp_path: Path) -> None:
    """AU-1: whatever a hook, or a sender, has started goes on with acts of its own, and with actors of its own."""
    tasks: list[asyncio.Task[Any]] = []
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        await auth.accounts.disable(user, actor=admin)

    class Starter(Hook):
        name = "starter"

        async def before(self, activity: Activity, client: Client, params: Any) -> None:
            tasks.append(asyncio.create_task(later()))

    async def send(user: object, token: str | None, opts: object) -> None:
        tasks.append(asyncio.create_task(later()))

    events = Events()
    strategies = [Password(resettable=Resettable(sender=send))]
    auth = make_auth(tmp_path, strategies=strategies, add_ons=[Starter(), events])
    user, admin = await auth.accounts.create({"email": EMAIL}), await auth.accounts.create({"email": OTHER_EMAIL})
    await auth.strategy("password").reset_request({"email": EMAIL}, client=CLIENT)
    events.take()
    over.set()
    await asyncio.gather(*tasks)
    told = [event for event in events.take() if event.name == "user.disabled"]
    await auth.close()

    assert len(tasks) == 2
    assert [(event.activity, event.actor, event.client) for event in told] == [((None, "disable"), admin.id, Client())]


async def test_part_of_an_act_may_have_an_actor_of_its_own(tmp_path: Path) -> None:
    """AU-1: what is done in a hook's job is part of the act, by whom it says."""

    class Locking(Hook):
        name = "locking"

        async def within(self, event: Event, work: Any) -> None:
            if event.name == "user.created" and event.activity.strategy == "password":
                work.after_commit(lambda: auth.accounts.disable(event.user_id or "", actor=admin))

    events = Events()
    auth = make_auth(tmp_path, add_ons=[Locking(), events])
    admin = await auth.accounts.create({"email": OTHER_EMAIL})
    events.take()
    with pytest.raises(AuthError):
        await auth.strategy("password").sign_in(credentials())
    await auth.strategy("password").register(registration(), client=CLIENT)
    told = events.take()
    await auth.close()

    created, disabled = (event for event in told if event.name in ("user.created", "user.disabled"))
    assert (disabled.act_id, disabled.client) == (created.act_id, CLIENT)
    assert (created.actor, disabled.actor) == (None, admin.id)


async def test_acts_of_two_authentications_do_not_mix(tmp_path: Path) -> None:
    """TK-23: the event of the one names neither the act nor a user of the other, and both leave theirs."""

    class Promoting(Hook):
        name = "promoting"

        async def before(self, activity: Activity, client: Client, params: Any) -> None:
            await admins.accounts.create({"email": OTHER_EMAIL})

    events, theirs = Events(), Events()
    admins = make_auth(tmp_path, subject_name="admin", add_ons=[theirs])
    users = make_auth(tmp_path, add_ons=[Promoting(), events])
    await users.strategy("password").reset_request({"email": EMAIL}, client=CLIENT)
    [ours], [created] = events.take(), theirs.take()
    await users.close()
    await admins.close()

    assert isinstance(ours, ActAccepted)
    assert (created.activity, created.actor, created.client) == ((None, "create"), None, Client())
    assert created.act_id != ours.act_id


async def test_refusal_within_an_act_is_told_once(tmp_path: Path) -> None:
    """AU-1: a verb that calls another one, and lets its error go, is one refused act."""

    class Outer(Hook):
        name = "outer"

        async def go(self) -> Any:
            return await own.strategy("password").sign_in(credentials())

    events = Events()
    own = make_auth(tmp_path, add_ons=[Outer(), events])
    with pytest.raises(AuthenticationFailedError):
        await own.add_on("outer").go()
    [event] = events.take()
    assert event.activity == ("outer", "go")
    await own.close()


async def test_refused_sign_in_of_the_application_leaves_an_event(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: ``auth.sign_in`` is an act, too."""
    user = await auth.accounts.create({"email": EMAIL})
    await auth.accounts.disable(user)
    events.take()
    with pytest.raises(AuthenticationFailedError):
        await auth.sign_in(user)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (event.activity, event.cause, event.user_id) == ((None, "sign_in"), "disabled", user.id)


async def test_try_that_cannot_be_given_back_changes_nothing(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-3: a right password is right, also where the database fails just then."""

    async def fail(name: str, key: str) -> None:
        raise StoreUnavailableError("down")

    _, token = await register(auth)
    monkeypatch.setattr(auth.services.limiter, "give_back", fail)
    await auth.strategy("password").reauthenticate({"password": PASSWORD}, session=token.session)
    assert "a try could not be given back: down" in caplog.messages


def test_plain_before_is_refused_at_start(tmp_path: Path) -> None:
    """A hook's methods are awaited."""

    class Plain(Hook):
        name = "plain"

        def before(self, activity: Activity, client: Client, params: Any) -> None:  # type: ignore[override]
            """Plain."""

    with pytest.raises(ConfigurationError, match="must be 'async def'"):
        make_auth(tmp_path, add_ons=[Plain()])
