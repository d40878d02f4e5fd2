"""The options of a phase (methods, users, freshness, other sites) and sign-ins with several factors."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from asgi_auth.errors import ConfigurationError, FactorRequiredError, ForbiddenError
from asgi_auth.phases import Accepted, Challenge, Form, Outcome, Phase, PhaseRequest, Redirect
from asgi_auth.services import Services
from asgi_auth.strategies import Password
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, JSON, PAGE, ask, post
from tests.second_factor import Code
from tests.support import EMAIL, OTHER_EMAIL, PASSWORD, LocalAuthentication, credentials, is_alive, make_auth, register

pytestmark = pytest.mark.anyio

HERE = "/auth/steps/act"
CODE = {"code": f"code-{EMAIL}"}
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A strategy that is its own actions."""

    phases: Sequence[Phase]
    name: str = "steps"

    def bind(self, services: Services[Any]) -> "Steps":
        return self


class Seen(list[PhaseRequest]):
    """A phase that records its requests and returns *outcome*."""

    outcome: Outcome = Accepted()

    async def __call__(self, request: PhaseRequest) -> Outcome:
        self.append(request)
        return self.outcome


def stepping(directory: Path, seen: Seen, **options: Any) -> LocalAuthentication:
    """Return an ``Authentication`` with the phase /auth/steps/act."""
    return make_auth(directory, strategies=[Password(), Steps(phases=[Phase("act", seen, **options)])])


# --- contradictory options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"methods": frozenset()}, "methods are GET, POST or both"),
        ({"methods": frozenset({"PUT"})}, "methods are GET, POST or both"),
        ({"page": True}, "a page needs a form, or GET"),
        ({"fresh": MINUTE}, "fresh needs who='session'"),
        ({"fresh": MINUTE, "who": "known"}, "fresh needs who='session'"),
        ({"cross_site": True}, "cross_site needs GET and POST"),
    ],
    ids=str,
)
def test_phase_with_contradictory_options_is_rejected(options: dict[str, Any], rule: str) -> None:
    """The constructor raises an error that names the phase and the option."""
    with pytest.raises(ConfigurationError, match=f"the phase 'act': {rule}"):
        Phase("act", Seen(), **options)


# --- who -------------------------------------------------------------------------------------------------------------


async def test_phase_requires_a_fresh_session(tmp_path: Path) -> None:
    """SE-10: the phase is called only if the session's proof is recent enough."""
    seen = Seen()
    auth = stepping(tmp_path, seen, who="session", fresh=MINUTE)
    async with auth.running():
        _, token = await register(auth)
        cookie = f"user_session={token.cookie}"
        nobody = await post(AuthPlug(auth), HERE, headers=JSON)
        auth.clock.advance(MINUTE)
        fresh = await post(AuthPlug(auth), HERE, headers=JSON, cookie=cookie)
        auth.clock.advance(timedelta(microseconds=1))
        stale = await post(AuthPlug(auth), HERE, headers=JSON, cookie=cookie)

    assert (nobody.json()["code"], fresh.status, stale.json()["code"]) == ("authentication_failed", 200, "not_fresh")
    assert len(seen) == 1
    assert seen[0].state.session == token.session


async def test_phase_for_a_pending_sign_in_requires_one(tmp_path: Path) -> None:
    """Without a pending token in a cookie or a text parameter the answer is 401; two cookies are ignored (SE-8)."""
    seen = Seen()
    auth = stepping(tmp_path, seen, who="pending")
    async with auth.running():
        plug = AuthPlug(auth)
        answers = [
            await post(plug, HERE),
            await post(plug, HERE, {"pending_token": ""}),
            await ask(plug, "POST", HERE, body=b'{"pending_token": 1}', headers={"content-type": "application/json"}),
            await post(plug, HERE, cookie="user_pending=a; user_pending=b"),
        ]
        await post(plug, HERE, {"pending_token": "by parameter"})
        await post(plug, HERE, {"pending_token": "by parameter"}, cookie="user_pending=by_cookie")
        await post(plug, HERE, cookie="user_pending=by_cookie")

    assert [answer.status for answer in answers] == [401] * 4
    assert [request.pending for request in seen] == ["by parameter", "by parameter", "by_cookie"]


# --- another site ----------------------------------------------------------------------------------------------------


async def test_cross_site_post_reads_no_cookie(tmp_path: Path) -> None:
    """CF-1: a provider makes the browser post; the phase gets no user and no cookie, until the GET that follows."""
    seen = Seen()
    seen.outcome = Redirect(f"{HERE}?state=x")
    auth = stepping(tmp_path, seen, methods=frozenset({"GET", "POST"}), cross_site=True, who="known")
    async with auth.running():
        _, token = await register(auth)
        cookie = f"user_session={token.cookie}; user_pending=p; user_flow_{'0' * 16}=f"
        foreign = {"Origin": "https://provider.example", "Sec-Fetch-Site": "cross-site"}
        posted = await post(AuthPlug(auth), HERE, {"state": "x"}, headers=foreign, cookie=cookie)
        await post(AuthPlug(auth), HERE, {"state": "x"}, cookie=cookie)  # an old browser, which sends no Sec-Fetch-Site
        await ask(AuthPlug(auth), "GET", HERE, headers=foreign, cookie=cookie)

    by_post, by_old_post, by_get = seen
    assert (posted.status, posted["location"], posted["set-cookie"]) == (303, f"{HERE}?state=x", None)
    for request in (by_post, by_old_post):
        assert (request.state.method, request.browser.read("flow"), request.browser.read("pending")) == (
            None,
            None,
            None,
        )
        assert (request.client.session_hashes, request.client.pending_hashes) == ((), ())
    assert (by_get.state.method, by_get.browser.read("flow")) == ("session", "f")


# --- cookies of a step -----------------------------------------------------------------------------------------------


async def test_failure_can_remove_cookies(tmp_path: Path) -> None:
    """OA-19: the cookie of a rejected flow is removed."""

    async def refuse(request: PhaseRequest) -> Outcome:
        request.browser.drop("flow", "mine")
        raise ForbiddenError("refused")

    auth = make_auth(tmp_path, strategies=[Steps(phases=[Phase("act", refuse, methods=frozenset({"GET"}))])])
    async with auth.running():
        cookie = f"user_flow_{'0' * 16}=mine; user_flow_{'1' * 16}=other"
        answer = await ask(AuthPlug(auth), "GET", HERE, cookie=cookie)

    assert answer.status == 403
    assert [line.partition(";")[0] for line in answer.all("set-cookie")] == [f"user_flow_{'0' * 16}="]


async def test_too_many_cookies_change_no_cookie(tmp_path: Path) -> None:
    """DO-4: the answer is 400 and sets or removes no cookie."""
    auth = stepping(tmp_path, Seen(), who="pending")
    async with auth.running():
        answer = await post(AuthPlug(auth), HERE, cookie="a=1; " * 301)

    assert (answer.status, answer["set-cookie"]) == (400, None)


# --- several factors -------------------------------------------------------------------------------------------------


@pytest.fixture
async def factored(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """Alice has a second factor."""
    auth = make_auth(tmp_path, strategies=[Password(), Code(enrolled=frozenset({EMAIL}))])
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=credentials()["password"])
        yield auth


async def test_script_completes_with_the_pending_token(factored: LocalAuthentication) -> None:
    """A client that is not a browser gets the pending token in the body, no cookie, and at last a bearer token."""
    plug = AuthPlug(factored)
    first = await post(plug, "/auth/password/sign_in", credentials(), headers=JSON)
    token = first.json()["pending_token"]
    wrong = await post(plug, "/auth/code/verify", {"code": "x", "pending_token": token}, headers=JSON)
    second = await post(plug, "/auth/code/verify", {**CODE, "pending_token": token}, headers=JSON)
    again = await post(plug, "/auth/code/verify", {**CODE, "pending_token": token}, headers=JSON)

    assert (first.status, first.json()["code"], first["set-cookie"]) == (401, "factor_required", None)
    assert (wrong.json()["code"], second.status, again.json()["code"]) == (
        "authentication_failed",
        200,
        "invalid_token",
    )
    loaded = await factored.sessions.load_bearer(second.json()["token"])
    assert set(loaded.session.factors) == {"password", "code"}


async def test_browser_is_redirected_to_the_page_of_the_factor(factored: LocalAuthentication) -> None:
    """A browser that accepts HTML gets a page; only the cookie contains the pending token."""
    plug = AuthPlug(factored)
    first = await post(plug, "/auth/password/sign_in", credentials(), headers=PAGE)
    cookie = f"user_pending={first.cookie('user_pending')}"
    page = await ask(plug, "GET", "/auth/code/verify", headers=PAGE, cookie=cookie)
    wrong = await post(plug, "/auth/code/verify", {"code": "x"}, headers=PAGE, cookie=cookie)
    second = await post(plug, "/auth/code/verify", CODE, headers=PAGE, cookie=cookie)

    assert (first.status, first["location"]) == (303, "/auth/code/verify")
    assert "www-authenticate" not in dict(first.headers)
    assert (page.status, "<h1>Enter your code</h1>" in page.text) == (200, True)
    assert (wrong.status, wrong.all("set-cookie")) == (401, [])
    assert second.status == 200
    names = [line.partition("=")[0] for line in second.all("set-cookie")]
    assert sorted(names) == ["user_pending", "user_session"]


async def test_browser_gets_an_error_if_the_factor_has_no_page(tmp_path: Path) -> None:
    """The answer says that another step is required, with the status of the error."""
    auth = make_auth(tmp_path, strategies=[Password(), Code(name="code", enrolled=frozenset({EMAIL}))])
    phases = {route: phase for route, phase in auth.routes.items() if route[0] != "code"}
    auth.routes = phases
    async with auth.running():
        await auth.accounts.create({"email": EMAIL}, password=credentials()["password"])
        answer = await post(AuthPlug(auth), "/auth/password/sign_in", credentials(), headers=PAGE)

    assert (answer.status, answer.text) == (401, "Another step is required to sign in")
    assert "user_pending" in str(answer.all("set-cookie"))


async def test_missing_factor_calls_handle_challenge(factored: LocalAuthentication) -> None:
    """A missing factor calls ``handle_challenge`` and not ``handle_failure``."""
    told: list[Any] = []

    class Plug(AuthPlug[Any]):
        async def handle_challenge(self, request: Any, activity: Any, data: Any) -> Any:
            told.append(data)
            return await super().handle_challenge(request, activity, data)

        async def handle_failure(self, request: Any, activity: Any, reason: Any) -> Any:
            told.append(reason.code)
            return await super().handle_failure(request, activity, reason)

    await post(Plug(factored), "/auth/password/sign_in", credentials(), headers=BROWSER)
    await post(Plug(factored), "/auth/password/sign_in", credentials(password="wrong"), headers=BROWSER)
    assert told == [{"factors": ["code"]}, "authentication_failed"]


async def test_form_is_served_only_if_the_phase_has_a_page(tmp_path: Path) -> None:
    """Only callbacks draw a form without a page."""
    auth = stepping(tmp_path, Seen(), form=Form(title="Act"))
    async with auth.running():
        answer = await ask(AuthPlug(auth), "GET", HERE, headers=PAGE)
    assert (answer.status, answer["allow"]) == (405, "POST")


async def test_too_many_cookies_are_rejected_first(factored: LocalAuthentication) -> None:
    """DO-4: no session is created or ended, and no one-time token is consumed."""
    await factored.accounts.create({"email": OTHER_EMAIL}, password=PASSWORD)
    plug, cookies = AuthPlug(factored), "a=1; " * 301
    user, sign_in = await factored.strategy("password").sign_in(credentials(OTHER_EMAIL), token_type="sign_in")
    for phase, params in (
        ("password/sign_in", credentials(OTHER_EMAIL)),
        ("password/sign_in", credentials()),
        ("password/sign_in_with_token", {"token": sign_in}),
        ("sign_out", {}),
    ):
        assert (await post(plug, f"/auth/{phase}", params, cookie=cookies)).status == 400
    assert await factored.sessions.list(user) == []
    assert (await post(plug, "/auth/password/sign_in_with_token", {"token": sign_in})).status == 200


async def test_callback_can_clear_a_session_and_store_another(factored: LocalAuthentication) -> None:
    """The callback's last call decides about the session cookie; the pending cookie is removed."""

    class Plug(AuthPlug[Any]):
        async def handle_success(self, request: Any, activity: Any, user: Any, token: Any) -> Response:
            response = Response()
            await self.clear_session(request, response)
            self.store_in_session(response, token)
            return response

    await factored.accounts.create({"email": OTHER_EMAIL}, password=PASSWORD)
    cookie = "user_session=x; user_pending=y"
    answer = await post(Plug(factored), "/auth/password/sign_in", credentials(OTHER_EMAIL), cookie=cookie)
    names = sorted(line.partition(";")[0] for line in answer.all("set-cookie"))
    assert names == ["user_pending=", f"user_session={answer.cookie('user_session')}"]
    assert await factored.sessions.load(answer.cookie("user_session"))


async def test_reauthentication_that_requires_a_factor_keeps_the_session(factored: LocalAuthentication) -> None:
    """SE-1: the old session stays valid until the new one is created; then only the new one is valid."""
    user = (await factored.accounts.find("email", EMAIL)).user  # type: ignore[union-attr]
    old = await pending_of(factored.sign_in(user))
    first = await factored.strategy("code").verify(CODE, pending=old)
    alone = replace(first.token.session, factors={"password": factored.clock()})
    pending = await pending_of(factored.strategy("password").reauthenticate({"password": PASSWORD}, session=alone))
    assert await is_alive(factored, first.token)
    _, new = await factored.strategy("code").verify(CODE, pending=pending)
    assert [await is_alive(factored, token) for token in (first.token, new)] == [False, True]


async def pending_of(act: Awaitable[Any]) -> str:
    """Return the pending token of an act that requires a factor."""
    with pytest.raises(FactorRequiredError) as caught:
        await act
    return caught.value.pending_token


async def test_data_of_a_step_can_be_named_factors(tmp_path: Path) -> None:
    """The data do not decide whether a factor is missing."""
    seen = Seen()
    seen.outcome = Challenge({"factors": [{"name": "totp"}]})
    auth = stepping(tmp_path, seen)
    async with auth.running():
        answer = await post(AuthPlug(auth), HERE)
    assert (answer.status, answer.json()) == (200, {"status": "challenge", "factors": [{"name": "totp"}]})


async def test_callback_can_require_a_factor(factored: LocalAuthentication) -> None:
    """If a sign-in in a callback requires a factor, the answer is that of a phase."""

    class Plug(AuthPlug[Any]):
        async def handle_accepted(self, request: Any, activity: Any) -> Response:
            found = await self.auth.accounts.find("email", EMAIL)
            assert found is not None
            return Response(repr(await self.auth.sign_in(found.user)))

    answer = await post(Plug(factored), "/auth/code/ask", headers=JSON)
    assert answer.status == 404
    factored.routes = {**factored.routes, ("code", "ask"): Phase("ask", Seen())}
    answer = await post(Plug(factored), "/auth/code/ask", headers=JSON)
    assert (answer.status, answer.json()["code"], len(answer.json()["pending_token"])) == (401, "factor_required", 43)


@pytest.mark.parametrize("outcome", [Accepted(), Challenge({})])
async def test_cross_site_post_must_redirect(tmp_path: Path, outcome: Outcome) -> None:
    """CF-1: without the redirect another site could sign a browser in."""
    seen = Seen()
    seen.outcome = outcome
    auth = stepping(tmp_path, seen, methods=frozenset({"GET", "POST"}), cross_site=True)
    async with auth.running():
        with pytest.raises(TypeError, match="must answer a POST from another site with a Redirect"):
            await post(AuthPlug(auth), HERE)
        assert (await ask(AuthPlug(auth), "GET", HERE)).status == 200


async def test_invalid_pending_cookie_is_removed_and_hides_no_parameter(factored: LocalAuthentication) -> None:
    """The parameter has precedence; the cookie of an ended sign-in is removed."""
    plug, dead = AuthPlug(factored), "user_pending=dead"
    first = await post(plug, "/auth/password/sign_in", credentials(), headers=JSON)
    by_cookie = await post(plug, "/auth/code/verify", CODE, cookie=dead)
    params = {**CODE, "pending_token": first.json()["pending_token"]}
    by_parameter = await post(plug, "/auth/code/verify", params, cookie=dead)

    assert (by_cookie.status, by_cookie.cookie("user_pending"), by_parameter.status) == (401, "", 200)


async def test_return_to_survives_the_second_factor(factored: LocalAuthentication) -> None:
    """RD-1: the page's address and form keep ``return_to``; a foreign URL is dropped."""
    plug = AuthPlug(factored)
    pages = []
    for wanted in ("/orders?page=2", "https://elsewhere.example/"):
        first = await post(plug, "/auth/password/sign_in", {**credentials(), "return_to": wanted}, headers=PAGE)
        pages.append(first["location"])
    drawn = await ask(plug, "GET", "/auth/code/verify", query=b"return_to=%2Forders%3Fpage%3D2", headers=PAGE)

    assert pages == ["/auth/code/verify?return_to=%2Forders%3Fpage%3D2", "/auth/code/verify"]
    assert '<input type="hidden" name="return_to" value="/orders?page=2">' in drawn.text
