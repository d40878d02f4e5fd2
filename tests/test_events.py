"""Events: every act has one, and each event names its act and its actor."""

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
    """An Authentication with every action; the address does not have to be confirmed."""
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


async def test_events_of_one_act_share_its_id(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: a registration creates a user and signs in; both events have the act, the activity and the client."""
    await auth.strategy("password").register(registration(), client=CLIENT)
    first = events.take()
    await auth.strategy("password").sign_in(credentials(), client=CLIENT)
    second = events.take()

    assert [event.name for event in first] == ["user.created", "sign_in.succeeded"]
    assert len({event.act_id for event in first}) == 1
    assert len({event.act_id for event in (*first, *second)}) == 2
    assert {event.activity for event in first} == {Activity("password", "register")}
    assert {event.client for event in (*first, *second)} == {CLIENT}


async def test_failed_mail_belongs_to_its_act(tmp_path: Path) -> None:
    """AU-1: the mail is sent after the answer; its failure is an event in a separate transaction, with the same act."""

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
    """An event that a hook emits within an event is part of the act."""

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


# --- the actor ------------------------------------------------------------------------------------------------------


async def test_actor_of_an_application_call_is_the_given_user(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: the event names the administrator, given as object or id; without an actor, the application acted."""
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


async def test_actor_of_a_phase_is_the_signed_in_user(auth: LocalAuthentication, events: Events) -> None:
    """The user of the cookie is the actor; the event of a sign-out has the client, too."""
    user, token = await register(auth)
    cookie = f"user_session={token.cookie}"
    events.take()
    await post(AuthPlug(auth), "/auth/confirmation/cancel", headers=BROWSER, cookie=cookie)
    await post(AuthPlug(auth), "/auth/sign_out", headers=BROWSER, cookie=cookie)
    cancelled, ended = events.take()

    assert (cancelled.name, cancelled.actor, cancelled.user_id) == ("user.change_cancelled", user.id, user.id)
    assert (ended.name, ended.activity) == ("sessions.revoked", (None, "sign_out"))
    assert ended.client.address == "192.0.2.1"


# --- every act has an event -----------------------------------------------------------------------------------------

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
async def test_refusal_has_exactly_one_event(
    auth: LocalAuthentication, events: Events, act: Act, activity: str, code: str, cause: str, known: bool
) -> None:
    """AU-1, AU-4: it has the activity, the code, the cause and the user, if known, but no entered value."""
    user = await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    with pytest.raises(AuthError):
        await act(auth)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (".".join(map(str, event.activity)), event.code, event.cause) == (activity, code, cause)
    assert event.user_id == (user.id if known else None)
    assert "mail.example.org" not in repr(event)


async def test_refusal_of_a_stranger_has_an_event(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: a phase for signed-in users that is called without a session has an event."""
    await post(AuthPlug(auth), "/auth/password/reauthenticate", {"password": "x"}, headers=JSON)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (event.activity, event.cause) == (("password", "reauthenticate"), "not_signed_in")


async def test_concealed_refusal_has_an_event(tmp_path: Path, events: Events) -> None:
    """EN-4: the client gets the same answer for every address; the event says that the address was taken."""
    sender = MemorySender()
    auth = make_auth(tmp_path, sender=sender, add_ons=[Confirmation(sender=sender), events])
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    assert await auth.strategy("password").register(registration()) == (None, None)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (event.activity, event.cause) == (("password", "register"), "identity_taken")
    await auth.close()


async def test_success_without_a_change_has_an_event(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: a reset request for any address has an event, and the issue of a sign-in token, too."""
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


async def test_missing_factor_is_not_a_refusal(tmp_path: Path, events: Events) -> None:
    """A sign-in that waits for a factor has its own event, which is not a failure."""
    auth = make_auth(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))], add_ons=[events])
    await auth.accounts.create({"email": EMAIL}, password=PASSWORD)
    events.take()
    with pytest.raises(FactorRequiredError):
        await auth.strategy("password").sign_in(credentials())
    assert [event.name for event in events.take()] == ["sign_in.pending"]
    await auth.close()


async def test_pending_change_is_not_a_change(auth: LocalAuthentication, events: Events) -> None:
    """``UserChanged`` means that fields were written; the request and the cancellation have their own events."""
    user = await auth.accounts.create({"email": EMAIL}, confirmed=True)
    events.take()
    await auth.accounts.change(user, {"email": OTHER_EMAIL})
    await auth.accounts.change(user, {"email": EMAIL})
    await auth.accounts.change(user, {"email": OTHER_EMAIL, "plan": "gold"})
    await auth.add_on("confirmation").cancel(user)
    kinds = [type(event) for event in events.take()]
    assert kinds == [UserChangeAsked, UserChanged, UserChangeAsked, UserChangeCancelled]


async def test_change_of_a_deleted_user_is_rejected(auth: LocalAuthentication) -> None:
    """The error names the parameter ``user``."""
    user = await auth.accounts.create({"email": EMAIL})
    await auth.accounts.delete(user)
    for named in (user, user.id):
        with pytest.raises(ValidationError) as refused:
            await auth.accounts.change(named, {"plan": "gold"})
        assert refused.value.fields == {"user": "This user does not exist any more."}


# --- before an act --------------------------------------------------------------------------------------------------


class Bouncer(Hook):
    """A hook that can refuse every act before anything else is checked."""

    name = "bouncer"

    def __init__(self) -> None:
        self.asked: list[tuple[Activity, str | None, dict[str, Any]]] = []
        self.closed = False

    async def before(self, activity: Activity, client: Client, params: Any) -> None:
        self.asked.append((activity, client.address, dict(params)))
        if self.closed:
            raise ForbiddenError("closed")


async def test_before_sees_the_parameters_without_secrets(tmp_path: Path) -> None:
    """With and without HTTP; an act that ``before`` refuses is not done, and no password is checked."""
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


# --- attempts -------------------------------------------------------------------------------------------------------


async def test_attempts_at_the_current_password_share_one_limit(tmp_path: Path) -> None:
    """RL-6: reauthentication and a change of address share one limit; a right password is not counted."""
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


async def test_attempts_at_a_sign_in_can_be_limited(tmp_path: Path) -> None:
    """RL-4, EN-1: attempts are counted by the given address in every spelling, whether or not the account exists."""
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


async def test_attempts_are_counted_only_if_the_secret_was_wrong(tmp_path: Path) -> None:
    """RL-6: a wrong secret and a cancelled attempt stay counted. If a later key is refused, the earlier one is not."""
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


async def test_hook_before_never_sees_a_secret(tmp_path: Path) -> None:
    """AU-4: secrets are removed from other phases, actions without a phase, nested values and keyword arguments."""
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


# --- the limits of an act -------------------------------------------------------------------------------------------


async def test_task_that_outlives_its_act_begins_another(tmp_path: Path) -> None:
    """AU-1: a task that a hook or a sender has started begins its own acts, with their own actors."""
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


async def test_part_of_an_act_can_have_its_own_actor(tmp_path: Path) -> None:
    """AU-1: a call in a hook's job is part of the act and has the actor that it names."""

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
    """TK-23: the event of one names neither the act nor a user of the other, and both have events."""

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


async def test_refusal_within_an_act_has_one_event(tmp_path: Path) -> None:
    """AU-1: an action that calls another action and passes its error on is one refused act."""

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


async def test_refused_sign_in_of_the_application_has_an_event(auth: LocalAuthentication, events: Events) -> None:
    """AU-1: ``auth.sign_in`` is an act with events, too."""
    user = await auth.accounts.create({"email": EMAIL})
    await auth.accounts.disable(user)
    events.take()
    with pytest.raises(AuthenticationFailedError):
        await auth.sign_in(user)
    [event] = events.take()
    assert isinstance(event, ActFailed)
    assert (event.activity, event.cause, event.user_id) == ((None, "sign_in"), "disabled", user.id)


async def test_failure_to_give_an_attempt_back_changes_nothing(
    auth: LocalAuthentication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-3: a right password is accepted even if the database fails when the attempt is given back."""

    async def fail(name: str, key: str) -> None:
        raise StoreUnavailableError("down")

    _, token = await register(auth)
    monkeypatch.setattr(auth.services.limiter, "give_back", fail)
    await auth.strategy("password").reauthenticate({"password": PASSWORD}, session=token.session)
    assert "a try could not be given back: down" in caplog.messages


def test_plain_before_is_refused_at_start(tmp_path: Path) -> None:
    """Every method of a hook must be async, because it is awaited."""

    class Plain(Hook):
        name = "plain"

        def before(self, activity: Activity, client: Client, params: Any) -> None:  # type: ignore[override]
            """Plain."""

    with pytest.raises(ConfigurationError, match="must be 'async def'"):
        make_auth(tmp_path, add_ons=[Plain()])
