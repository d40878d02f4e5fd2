"""Callbacks of the plug's subclasses, answers to every outcome, and the time at which jobs run."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from asgi_auth.acts import FactorRequired, Proof
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    ForbiddenError,
    InvalidTokenError,
    RateLimitedError,
    RouteNotFoundError,
)
from asgi_auth.phases import (
    Accepted,
    Challenge,
    Form,
    Outcome,
    Phase,
    PhaseRequest,
    Redirect,
    SignedIn,
    TokenIssued,
)
from asgi_auth.services import Services
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import AccessToken, Activity, CookieKind, User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, JSON, PAGE, ask, post, seen_user, silence, site, start
from tests.gate import Gatekeeper
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PATIENCE,
    LocalAuthentication,
    credentials,
    is_alive,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio


class _Recorder(AuthPlug[User]):
    """Answers with the arguments of the callback."""

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        response = JSONResponse([*activity, user.email, dict(self.params(request))], 201, {"cache-control": "public"})
        response.set_cookie("theirs", "1")
        self.store_in_session(response, token)
        return response

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        shown = [*activity, type(reason).__name__, dict(reason.fields), dict(self.params(request))]
        return JSONResponse(shown, 418)

    async def handle_accepted(self, request: Request, activity: Activity) -> Response:
        return JSONResponse([*activity, dict(self.params(request))])

    async def handle_sign_out(self, request: Request) -> Response:
        response = JSONResponse(dict(self.params(request)))
        await self.clear_session(request, response)
        return response


async def test_callbacks_get_their_arguments(auth: LocalAuthentication) -> None:
    """Callbacks get activity, user and parameters without secrets; the plug adds cookies and headers to the answer."""
    plug, seen = _Recorder(auth), {"email": EMAIL, "more": "x"}
    answer = await post(plug, "/auth/password/register", {**registration(), "more": "x"})
    accepted = await post(plug, "/auth/password/reset_request", {"email": EMAIL})
    signed_out = await post(plug, "/auth/sign_out", {"why": "tired"})

    assert (answer.status, answer.json()) == (201, ["password", "register", EMAIL, seen])
    assert answer["cache-control"] == "no-store"
    assert [value.partition("=")[0] for value in answer.all("set-cookie")] == ["theirs", "user_session"]
    assert accepted.json() == ["password", "reset_request", {"email": EMAIL}]
    assert signed_out.json() == {"why": "tired"}
    assert len(signed_out.all("set-cookie")) == 1
    assert signed_out["clear-site-data"] == '"prefetchCache", "prerenderCache"'


class _Forgetful(AuthPlug[User]):
    """Has callbacks with common mistakes."""

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Any: ...

    handle_failure = lambda *_: PlainTextResponse("sync")  # type: ignore[assignment]  # noqa: E731

    async def handle_accepted(self, request: Request, activity: Activity) -> Any:
        return {"a": "dict"}

    handle_sign_out = handle_failure  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("path", "params", "message"),
    [
        ("password/register", registration(), "handle_success returned NoneType, not a Response"),
        ("password/sign_in", {}, "<lambda> must be 'async def'"),
        ("password/reset_request", {"email": EMAIL}, "handle_accepted returned dict, not a Response"),
        ("sign_out", {}, "<lambda> must be 'async def'"),
    ],
)
async def test_invalid_callback_is_named(
    auth: LocalAuthentication, path: str, params: Mapping[str, str], message: str
) -> None:
    """A missing return, a value that is not a Response and a missing ``async`` raise an error with the name."""
    with pytest.raises(TypeError, match=f"_Forgetful.{message}"):
        await post(_Forgetful(auth), f"/auth/{path}", params)


async def test_handle_failure_gets_its_arguments(auth: LocalAuthentication) -> None:
    """Unknown routes have ``Activity(None, None)``; 401 and 405 keep their headers if the callback sets a status."""
    plug = _Recorder(auth)
    unknown = await post(plug, "/auth/x/y")
    wrong = await post(plug, "/auth/password/sign_in", credentials())
    invalid = await post(plug, "/auth/password/reset", {"reset_token": "secret", "password": "secret", "x": "y"})
    method = await ask(plug, "GET", "/auth/sign_out")

    assert unknown.json() == [None, None, "RouteNotFoundError", {}, {}]
    assert (wrong.status, wrong.json()[:3]) == (418, ["password", "sign_in", "AuthenticationFailedError"])
    assert wrong["www-authenticate"] == 'Bearer realm="localhost"'
    assert invalid.json()[3:] == [
        {"password_confirmation": "This field is required.", "password": "Use at least 8 characters."},
        {"x": "y"},
    ]
    assert (method.json()[:2], method["allow"]) == ([None, "sign_out"], "POST")


async def test_auth_error_in_a_callback_is_a_failure(auth: LocalAuthentication) -> None:
    """The plug answers an ``AuthError`` of a callback like any other."""

    class Picky(AuthPlug[User]):
        async def handle_success(self, *args: Any) -> Response:
            raise RateLimitedError("enough", headers={"Retry-After": "9"})

    answer = await post(Picky(auth), "/auth/password/register", registration(), headers=JSON)

    assert (answer.status, answer["retry-after"], answer["set-cookie"]) == (429, "9", None)


async def test_only_the_token_of_a_sign_in_becomes_a_cookie(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """Text, such as a bearer token from a request, raises TypeError."""
    _, token = await register(auth)
    for text in (str(token) + "", token.cookie, None):
        with pytest.raises(TypeError, match="AccessToken"):
            plug.store_in_session(PlainTextResponse(), text)  # type: ignore[arg-type]


async def test_application_can_revoke_sessions_and_tokens(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """``revoke_session_tokens``, ``revoke_bearer_tokens`` and ``clear_session`` work in every endpoint."""
    tokens = [(await register(auth))[1], (await auth.strategy("password").sign_in(credentials()))[1]]
    app = site(auth)
    await plug.revoke_session_tokens(_request(cookie=f"user_session={tokens[0].cookie}"))
    await plug.revoke_bearer_tokens(_request(authorization=f"Bearer {tokens[1]}"))
    response = PlainTextResponse()
    await plug.clear_session(_request(), response)

    assert [await seen_user(app, bearer=str(token)) for token in tokens] == [None, None]
    assert response.headers["set-cookie"].startswith("user_session=; ")
    assert plug.params(_request()) == {}


def _request(**headers: str) -> Request:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": pairs})


async def test_page_of_the_application_keeps_its_styles(auth: LocalAuthentication) -> None:
    """CF-8: the only policy for a callback's page forbids frames."""

    class Drawn(AuthPlug[User]):
        async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
            return HTMLResponse("<link rel=stylesheet href=/style.css>", reason.status)

    answer = await post(Drawn(auth), "/auth/password/sign_in", credentials())

    assert (answer.status, answer["content-security-policy"]) == (401, "frame-ancestors 'none'")


# --- jobs ------------------------------------------------------------------------------------------------------------


async def test_jobs_run_after_the_answer(tmp_path: Path) -> None:
    """The answer is sent before the sender is called; the plug's call returns after the sender has returned."""
    log: list[str] = []

    async def send(user: object, token: str, opts: Mapping[str, Any]) -> None:
        log.append(opts["purpose"])

    auth = make_auth(tmp_path, strategies=[Password(resettable=Resettable(sender=send))])
    async with auth.running():
        await register(auth)
        exchange = start(AuthPlug(auth), "POST", "/auth/password/reset_request", data={"email": EMAIL})
        await exchange.answered.wait()
        log.append("answered")
        await exchange.task

    assert log == ["answered", "reset"]


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
async def test_jobs_run_even_if_a_callback_fails(auth: LocalAuthentication, error: type[Exception]) -> None:
    """The accepted job runs, and the server gets the callback's error."""
    await register(auth)

    class Broken(AuthPlug[User]):
        async def handle_accepted(self, request: Request, activity: Activity) -> Response:
            raise error

    with pytest.raises(error):
        await post(Broken(auth), "/auth/password/reset_request", {"email": EMAIL})

    assert [opts["purpose"] for _, _, opts in auth.sender.messages] == ["reset"]


async def test_failed_job_changes_no_answer(tmp_path: Path) -> None:
    """FT-3: the mail server is down; the answers are as usual, and the password is set."""
    sent: list[Any] = []

    async def refuse(user: object, token: str | None, opts: Mapping[str, Any]) -> None:
        sent.append(token)
        raise OSError("550")

    auth = make_auth(tmp_path, strategies=[Password(resettable=Resettable(sender=refuse))])
    async with auth.running():
        plug = AuthPlug(auth)
        await register(auth)
        asked = await post(plug, "/auth/password/reset_request", {"email": EMAIL})
        form = {"reset_token": sent[0], "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
        done = await post(plug, "/auth/password/reset", form)

    assert (asked.status, done.status, len(sent)) == (200, 200, 2)


# --- outcomes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Fake:
    """A strategy that is its own actions."""

    phases: Sequence[Phase]
    name: str = "fake"

    def bind(self, services: Services[Any]) -> "_Fake":
        return self


def _fake(directory: Path, outcome: Any, **phase: Any) -> LocalAuthentication:
    """Return an ``Authentication`` whose phase /auth/fake/act returns *outcome*, or the result of its call."""

    async def handle(request: PhaseRequest) -> Any:
        return await outcome(request) if callable(outcome) else outcome

    act = Phase("act", handle, **phase)
    return make_auth(directory, strategies=[Password(), _Fake(phases=[act])])


async def test_challenge_is_answered_as_data(tmp_path: Path) -> None:
    """The data may be passkey options, for example."""
    auth = _fake(tmp_path, Challenge({"options": {}}))
    async with auth.running():
        answer = await post(AuthPlug(auth), "/auth/fake/act")

    assert (answer.json(), answer["set-cookie"]) == ({"status": "challenge", "options": {}}, None)


async def test_pending_cookie_is_set_and_later_removed(tmp_path: Path) -> None:
    """SE-3: a sign-in that requires a factor gets a pending cookie and no session; its completion removes it."""

    gate = Gatekeeper(FactorRequired(("totp",)))
    auth = make_auth(tmp_path, add_ons=[gate])
    async with auth.running():
        plug = AuthPlug(auth)
        pending = await post(plug, "/auth/password/register", registration(), headers=BROWSER)
        gate.answer = None
        cookie = f"user_pending={pending.cookie('user_pending')}"
        complete = await post(plug, "/auth/password/sign_in", credentials(), headers=BROWSER, cookie=cookie)

    assert (pending.status, pending.json()["factors"]) == (401, ["totp"])
    assert pending.all("set-cookie")[0].endswith("; Path=/; HttpOnly; SameSite=Lax; Max-Age=600")
    assert len(pending.all("set-cookie")) == 1
    assert [value.split("=")[0] for value in complete.all("set-cookie")] == ["user_session", "user_pending"]
    assert "Max-Age=0" in complete.all("set-cookie")[1]


async def test_other_outcomes_are_answered(tmp_path: Path) -> None:
    """A redirect gives 303, a sign-in token is data, and an invalid outcome raises TypeError."""
    expected: list[tuple[Any, tuple[int, str | None, str]]] = [
        (Redirect("https://idp.example.org/authorize"), (303, "https://idp.example.org/authorize", "")),
        (TokenIssued(None, "abc"), (200, None, '{"status":"challenge","token":"abc"}')),
    ]
    for outcome, answered in expected:
        auth = _fake(tmp_path, outcome)
        async with auth.running():
            answer = await post(AuthPlug(auth), "/auth/fake/act")
        assert (answer.status, answer["location"], answer.text) == answered

    auth = _fake(tmp_path, "nonsense")
    async with auth.running():
        with pytest.raises(TypeError, match="not an outcome"):
            await post(AuthPlug(auth), "/auth/fake/act")


async def test_each_flow_has_its_own_cookie(tmp_path: Path) -> None:
    """SE-3, OA-19: each flow has a cookie, so that tabs do not conflict; the returning request sees all of them."""

    async def begin(request: PhaseRequest) -> Outcome:
        request.browser.keep("flow", request.params["flow"], lifetime=timedelta(minutes=10))
        return Redirect("https://idp.example.org/authorize")

    auth, cookies = _fake(tmp_path, begin), []
    async with auth.running():
        for flow in ("first", "second"):
            answer = await post(AuthPlug(auth), "/auth/fake/act", {"flow": flow})
            (cookie,) = answer.all("set-cookie")
            assert cookie.endswith(f"={flow}; Path=/; HttpOnly; SameSite=Lax; Max-Age=600")
            cookies.append(cookie.partition(";")[0])
    assert cookies == ["user_flow_a7937b64b8caa58f=first", "user_flow_16367aacb67a4a01=second"]

    seen: list[Sequence[str]] = []

    async def look(request: PhaseRequest) -> Outcome:
        seen.append(request.browser.read_all("flow"))
        return Accepted()

    auth = _fake(tmp_path, look)
    async with auth.running():
        await post(AuthPlug(auth), "/auth/fake/act", headers={"cookie": "; ".join([*cookies, "user_flow=no"])})
    assert seen == [["first", "second"]]


@pytest.mark.parametrize(("page", "head"), [(False, 405), (True, 200)])
async def test_get_phase_supports_head_only_for_a_page(tmp_path: Path, page: bool, head: int) -> None:
    """A provider's callback may be cross-site; POST gives 405, and a HEAD cannot consume what a GET would."""
    auth = _fake(tmp_path, Accepted(), methods=frozenset({"GET"}), page=page)
    headers = {"sec-fetch-site": "cross-site"}
    async with auth.running():
        plug = AuthPlug(auth)
        answers = [await ask(plug, method, "/auth/fake/act", headers=headers) for method in ("GET", "HEAD", "POST")]

    assert [answer.status for answer in answers] == [200, head, 405]
    assert answers[2]["allow"] == ("GET, HEAD" if page else "GET")


@pytest.mark.parametrize("purpose", [("sec-purpose", "prefetch"), ("purpose", "prefetch")])
async def test_prefetch_runs_no_phase(tmp_path: Path, purpose: tuple[str, str]) -> None:
    """CF-3: a prefetch consumes no flow and calls no callback; the browser repeats the request on opening."""
    seen: list[PhaseRequest] = []

    async def look(request: PhaseRequest) -> Outcome:
        seen.append(request)
        return Accepted()

    auth = _fake(tmp_path, look, methods=frozenset({"GET"}), page=True)
    async with auth.running():
        plug = _Recorder(auth)
        ahead = [await ask(plug, method, "/auth/fake/act", headers=[purpose]) for method in ("GET", "HEAD")]
        assert seen == []
        opened = await ask(plug, "GET", "/auth/fake/act")

    assert [(each.status, each["retry-after"], each["cache-control"]) for each in ahead] == [(503, "0", "no-store")] * 2
    assert (opened.status, len(seen)) == (200, 1)


async def test_prefetch_header_allows_forms_and_posts(auth: LocalAuthentication) -> None:
    """CF-3: a form's page changes nothing, and browsers do not prefetch a POST, so both are answered as usual."""
    _, token = await register(auth)
    headers = {**PAGE, "sec-purpose": "prefetch"}
    drawn = await ask(AuthPlug(auth), "GET", "/auth/password/sign_in", headers=headers)
    signed_out = await post(AuthPlug(auth), "/auth/sign_out", headers=headers, cookie=f"user_session={token.cookie}")

    assert (drawn.status, signed_out.status) == (200, 200)
    assert not await is_alive(auth, token)


async def test_phase_sees_the_query_and_unambiguous_cookies(tmp_path: Path) -> None:
    """SE-8: a strategy does not see a cookie that was sent twice, nor cookies of other purposes."""
    seen: list[PhaseRequest] = []

    async def look(request: PhaseRequest) -> Outcome:
        seen.append(request)
        return Accepted()

    auth = _fake(tmp_path, look, methods=frozenset({"GET", "POST"}))
    async with auth.running():
        twice, odd = f"user_flow_{'0' * 16}", f"user_challenge_{'1' * 16}"
        cookie = f"theme=1; {twice}=1; {twice}=2; {odd}=\xff; user_pending=p; user_flow_{'2' * 16}=f; junk"
        await ask(AuthPlug(auth), "GET", "/auth/fake/act", query=b"state=a&code=b", cookie=cookie)

    (request,) = seen
    assert (request.method, request.query, request.pending) == ("GET", {"state": "a", "code": "b"}, None)
    kinds: tuple[CookieKind, ...] = ("pending", "flow", "challenge")
    assert [request.browser.read(kind) for kind in kinds] == ["p", "f", None]
    assert request.client.address == "192.0.2.1"


async def test_phase_for_a_session_gets_its_user(tmp_path: Path) -> None:
    """With or without the middlewares the phase gets the user; other clients are rejected with the reason."""

    async def greet(request: PhaseRequest) -> Outcome:
        return Challenge({"user": request.state.user.email, "method": request.state.method})

    auth = _fake(tmp_path, greet, who="session")
    async with auth.running():
        _, token = await register(auth)
        for app in (AuthPlug(auth), site(auth)):
            act = partial(post, app, "/auth/fake/act", headers=JSON)
            by_cookie, by_token = await act(cookie=f"user_session={token.cookie}"), await act(bearer=str(token))
            nobody, forged = await act(), await act(bearer="forged")
            second = await act(bearer=str(token), cookie="user_session=forged")

            assert by_cookie.json() == {"status": "challenge", "user": EMAIL, "method": "session"}
            assert by_token.json() == second.json() == {"status": "challenge", "user": EMAIL, "method": "bearer"}
            assert (nobody.status, nobody.json()["code"]) == (401, "authentication_failed")
            assert (forged.status, forged.json()["code"]) == (401, "invalid_token")
            assert forged["www-authenticate"] == 'Bearer realm="localhost", error="invalid_token"'


@pytest.mark.parametrize(
    ("reason", "status", "text"),
    [
        (InvalidTokenError(), 401, "ask for a new one"),
        (AuthenticationFailedError(), 401, 'role="alert">Access denied'),
        (ForbiddenError(), 403, "Go back"),
        (RouteNotFoundError(), 404, "Check the address"),
    ],
)
async def test_page_without_token_or_fields_has_only_a_button(
    tmp_path: Path, reason: AuthError, status: int, text: str
) -> None:
    """GET returns the form, POST runs the phase, and the page of a failure says what to do next."""

    async def refuse(request: PhaseRequest) -> Outcome:
        raise reason

    auth = _fake(tmp_path, refuse, form=Form(title="Leave <b>", button="Go"), page=True)
    async with auth.running():
        page = await ask(AuthPlug(auth), "GET", "/auth/fake/act", query=b"x=secret", headers=PAGE)
        answer = await post(AuthPlug(auth), "/auth/fake/act", headers=PAGE)

    assert "<h1>Leave &lt;b&gt;</h1>" in page.text
    assert "secret" not in page.text
    assert 'type="hidden"' not in page.text
    assert (answer.status, text in answer.text) == (status, True)


async def test_disconnect_cancels_the_phase(tmp_path: Path) -> None:
    """DO-2: the waiting phase is cancelled; no answer is sent and no task remains."""
    entered = asyncio.Event()

    async def wait(request: PhaseRequest) -> Outcome:
        entered.set()
        return Accepted(user=await silence())

    auth = _fake(tmp_path, wait)
    async with auth.running():
        tasks = asyncio.all_tasks()
        exchange = start(AuthPlug(auth), "POST", "/auth/fake/act")
        await entered.wait()
        exchange.gone.set()
        await asyncio.wait_for(exchange.task, PATIENCE)
        assert asyncio.all_tasks() == tasks

    assert exchange.answer.status == 0


async def test_own_strategy_signs_in(tmp_path: Path) -> None:
    """The plug creates the session for ``SignedIn`` of every strategy."""

    async def prove(request: PhaseRequest) -> Outcome:
        found = await auth.accounts.find("email", EMAIL)
        assert found is not None
        return SignedIn(found.user, Proof(account=found.account, factor="fake", at=auth.clock()))

    auth = _fake(tmp_path, prove)
    async with auth.running():
        user, _ = await register(auth)
        answer = await post(AuthPlug(auth), "/auth/fake/act")
        cookie = f"user_session={answer.cookie('user_session')}"
        assert await seen_user(site(auth), cookie=cookie) == user.id


async def test_add_headers_is_called_for_every_answer(auth: LocalAuthentication) -> None:
    """Successes, refusals and unknown routes get the header; it cannot replace security headers."""

    class Plug(AuthPlug[User]):
        def add_headers(self, request: Request, response: Response) -> None:
            response.headers["X-Seen"] = request.method
            response.headers["X-Content-Type-Options"] = "anything"

    plug = Plug(auth)
    answers = [
        await post(plug, "/auth/password/register", registration()),
        await post(plug, "/auth/password/sign_in", credentials(OTHER_EMAIL)),
        await ask(plug, "GET", "/auth/password/sign_in", headers=PAGE),
        await post(plug, "/auth/no/where"),
    ]
    assert [(answer.status, answer["x-seen"]) for answer in answers] == [
        (200, "POST"),
        (401, "POST"),
        (200, "GET"),
        (404, "POST"),
    ]
    assert {answer["x-content-type-options"] for answer in answers} == {"nosniff"}
