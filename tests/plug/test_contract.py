"""The answers of the plug: status, body, headers and cookies of every endpoint."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, JSON, Answer, ask, execute, post, seen_user, site, start, whoami
from tests.support import (
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    PASSWORD,
    LocalAuthentication,
    credentials,
    is_alive,
    mailed_token,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

SET = "Path=/; HttpOnly; SameSite=Lax"
GONE = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


async def _sign_in_token(auth: LocalAuthentication) -> str:
    _, token = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    return str(token)


async def _reset_token(auth: LocalAuthentication, email: str = EMAIL) -> str:
    await auth.strategy("password").reset_request({"email": email})
    return mailed_token(auth)


async def _reset_form(auth: LocalAuthentication) -> dict[str, str]:
    new = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    return {"reset_token": await _reset_token(auth), **new}


def _hardened(answer: Answer) -> bool:
    return (
        answer["cache-control"] == "no-store"
        and answer["x-content-type-options"] == "nosniff"
        and answer["referrer-policy"] == "same-origin"
        and answer["content-security-policy"] is not None
    )


# --- success ---------------------------------------------------------------------------------------------------------


async def test_sign_ins_answer_text_with_the_cookie(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """The default answer is text with status 200 and always sets the cookie, also for a script without Accept."""
    registered = await post(plug, "/auth/password/register", registration())
    signed_in = await post(plug, "/auth/password/sign_in", credentials())
    redeemed = await post(plug, "/auth/password/sign_in_with_token", {"token": await _sign_in_token(auth)})

    for answer in (registered, signed_in, redeemed):
        assert (answer.status, answer.text) == (200, "Access granted")
        assert answer["content-type"] == "text/plain; charset=utf-8"
        assert answer["set-cookie"] == f"user_session={answer.cookie('user_session')}; {SET}"
        assert _hardened(answer)
        assert await seen_user(site(auth), cookie=f"user_session={answer.cookie('user_session')}") is not None


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
async def test_browser_gets_the_cookie_and_no_token(
    auth: LocalAuthentication, plug: AuthPlug[User], header: str
) -> None:
    """ONE credential: a page's script cannot leak a token that it cannot read."""
    user, _ = await register(auth)
    value = {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}[header]
    answer = await ask(plug, "POST", "/auth/password/sign_in", json=credentials(), headers={header: value})

    assert answer.json() == {"status": "success", "subject": f"user?id={user.id}"}
    assert answer["set-cookie"] == f"user_session={answer.cookie('user_session')}; {SET}"
    assert _hardened(answer)


async def test_program_gets_the_token_and_no_cookie(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """ONE credential: a JSON body, or a form with Accept, gets JSON; the token is valid for the session."""
    user, _ = await register(auth)
    by_body = await ask(plug, "POST", "/auth/password/sign_in", json=credentials())
    by_accept = await post(plug, "/auth/password/sign_in", credentials(), headers=JSON)

    for answer in (by_body, by_accept):
        token = answer.json().pop("token")
        assert answer.json() == {"status": "success", "subject": f"user?id={user.id}", "token": token}
        assert answer["content-type"] == "application/json"
        assert answer["set-cookie"] is None
        assert _hardened(answer)
        assert await seen_user(site(auth), bearer=token) == user.id


async def test_accept_decides_about_text_for_a_json_body(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """A JSON body with an Accept that names a text type is answered in text."""
    await register(auth)
    answer = await ask(plug, "POST", "/auth/password/sign_in", json=credentials(), headers={"Accept": "text/plain"})

    assert answer.text == "Access granted"


async def test_bearer_for_browsers_gives_the_token(auth: LocalAuthentication) -> None:
    """With the option a browser gets the token and no cookie."""
    await register(auth)
    plug = AuthPlug(auth, bearer_for_browsers=True)
    answer = await ask(plug, "POST", "/auth/password/sign_in", json=credentials(), headers=BROWSER)

    assert list(answer.json()) == ["status", "subject", "token"]
    assert answer["set-cookie"] is None


@pytest.mark.parametrize("remember_me", ["true", "on", "1", True])
async def test_remember_me_outlives_the_browser(
    auth: LocalAuthentication, plug: AuthPlug[User], remember_me: Any
) -> None:
    """A remembered session has a Max-Age of 30 days."""
    await register(auth)
    params = {**credentials(), "remember_me": remember_me}
    answer = await ask(plug, "POST", "/auth/password/sign_in", json=params, headers=BROWSER)

    assert answer["set-cookie"] == f"user_session={answer.cookie('user_session')}; {SET}; Max-Age=2592000"


@pytest.mark.parametrize("remember_me", ["false", "0", "", "yes", False, 1, None])
async def test_remember_me_is_off_for_anything_else(
    auth: LocalAuthentication, plug: AuthPlug[User], remember_me: Any
) -> None:
    """The cookie has no Max-Age, so it ends with the browser session."""
    await register(auth)
    params = {**credentials(), "remember_me": remember_me}
    answer = await ask(plug, "POST", "/auth/password/sign_in", json=params, headers=BROWSER)

    assert "Max-Age" not in str(answer["set-cookie"])


async def test_accepted_in_text_and_json(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """A reset request and a reset are accepted; they do not sign in and set no cookie."""
    await register(auth)
    asked = await post(plug, "/auth/password/reset_request", {"email": EMAIL})
    asked_json = await ask(plug, "POST", "/auth/password/reset_request", json={"email": EMAIL})
    done = await post(plug, "/auth/password/reset", await _reset_form(auth))
    done_json = await ask(plug, "POST", "/auth/password/reset", json=await _reset_form(auth))

    for answer in (asked, done):
        assert (answer.status, answer.text) == (200, "Accepted")
    for answer in (asked_json, done_json):
        assert (answer.status, answer.json()) == (200, {"status": "accepted"})
    for answer in (asked, asked_json, done, done_json):
        assert answer["set-cookie"] is None
        assert _hardened(answer)


# --- signing out -----------------------------------------------------------------------------------------------------


async def test_sign_out_ends_the_session_on_the_server(auth: LocalAuthentication) -> None:
    """SE-4: copies of the cookie and the bearer token of the sign-in become invalid; the cookie is removed."""
    _, token = await register(auth)
    app, cookie = site(auth), f"user_session={token.cookie}"
    assert await seen_user(app, cookie=cookie) is not None
    answer = await post(app, "/auth/sign_out", cookie=cookie)

    assert (answer.status, answer.text) == (200, "Signed out")
    assert answer["set-cookie"] == f"user_session=; {SET}; {GONE}"
    assert answer["clear-site-data"] == '"prefetchCache", "prerenderCache"'
    assert _hardened(answer)
    assert await seen_user(app, cookie=cookie) is None
    assert await seen_user(app, bearer=token) is None


async def test_changed_cookie_clears_prefetched_pages(auth: LocalAuthentication) -> None:
    """SE-4: a sign-in clears them too, since another user may have been signed in; an option clears the whole cache."""
    await register(auth)
    thorough = AuthPlug(auth, clear_cache_on_sign_out=True)
    signed_in = await post(thorough, "/auth/password/sign_in", credentials())
    refused = await post(thorough, "/auth/password/sign_in", credentials(password="not this one"))
    signed_out = await post(thorough, "/auth/sign_out")

    assert signed_in["clear-site-data"] == '"prefetchCache", "prerenderCache"'
    assert refused["clear-site-data"] is None
    assert signed_out["clear-site-data"] == '"prefetchCache", "prerenderCache", "cache"'


async def test_sign_out_with_a_planted_cookie_ends_every_session(auth: LocalAuthentication) -> None:
    """SE-4, SE-8: several cookies authenticate no user, but a sign-out ends the session of each valid one."""
    (_, token), (_, other) = await register(auth), await register(auth, OTHER_EMAIL)
    cookie = f"user_session=forged; user_session={token.cookie}; user_session={other.cookie}"
    answer = await post(site(auth), "/auth/sign_out", cookie=cookie)

    assert (answer.status, answer.text) == (200, "Signed out")
    assert not await is_alive(auth, token)
    assert not await is_alive(auth, other)


async def test_sign_in_with_a_planted_cookie_ends_every_session(auth: LocalAuthentication) -> None:
    """SE-1, SE-8: a sign-in ends every session of the browser's cookies, even with a planted cookie among them."""
    _, token = await register(auth)
    cookie = f"user_session=forged; user_session={token.cookie}"
    answer = await post(site(auth), "/auth/password/sign_in", credentials(), cookie=cookie)

    assert answer.status == 200
    assert not await is_alive(auth, token)


async def test_sign_out_ends_the_session_of_a_bearer_token(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """SE-4, TK-13: the session of the token ends; an invalid token ends no session and gives no error."""
    _, token = await register(auth)
    answer = await ask(plug, "POST", "/auth/sign_out", headers=JSON, bearer=str(token))
    again = await post(plug, "/auth/sign_out", bearer=str(token))
    forged = await post(plug, "/auth/sign_out", bearer=f"{token}x")

    assert answer.json() == {"status": "signed_out"}
    assert (again.status, forged.status) == (200, 200)
    assert await seen_user(site(auth), bearer=str(token)) is None


async def test_sign_out_without_a_session_succeeds(plug: AuthPlug[User]) -> None:
    """A POST without a body and without a valid cookie removes the cookie."""
    for cookie in (None, "user_session=forged", "user_session=a; user_session=b"):
        answer = await ask(plug, "POST", "/auth/sign_out", cookie=cookie)
        assert answer.status == 200
        assert answer["set-cookie"] == f"user_session=; {SET}; {GONE}"


async def test_second_sign_in_ends_the_session_of_the_browser(auth: LocalAuthentication) -> None:
    """SE-1: the browser gets a new cookie, and the old one becomes invalid."""
    _, token = await register(auth)
    app, old = site(auth), f"user_session={token.cookie}"
    answer = await post(app, "/auth/password/sign_in", credentials(), cookie=old, headers=BROWSER)
    new = f"user_session={answer.cookie('user_session')}"

    assert new != old
    assert await seen_user(app, cookie=old) is None
    assert await seen_user(app, cookie=new) is not None


async def test_reset_ends_all_sessions_and_tokens(auth: LocalAuthentication) -> None:
    """SE-5: all sessions and tokens of the user become invalid, also unused sign-in tokens."""
    app, (user, first) = site(auth), await register(auth)
    others = [(await auth.strategy("password").sign_in(credentials()))[1] for _ in range(2)]
    in_flight, form = await _sign_in_token(auth), await _reset_form(auth)
    _, bystander = await register(auth, OTHER_EMAIL)
    assert (await post(app, "/auth/password/reset", form)).status == 200

    for token in (first, *others):
        assert await seen_user(app, cookie=f"user_session={token.cookie}") is None
        assert await seen_user(app, bearer=str(token)) is None
    assert (await post(app, "/auth/password/sign_in_with_token", {"token": in_flight})).status == 401
    assert (await post(app, "/auth/password/sign_in", credentials())).status == 401
    assert (await post(app, "/auth/password/sign_in", credentials(password=NEW_PASSWORD))).status == 200
    assert await seen_user(app, bearer=str(bystander)) not in (None, user.id)


# --- failure ---------------------------------------------------------------------------------------------------------

MALFORMED = {"headers": {"authorization": "Bearer"}, "path": "/auth/password/reauthenticate"}
FAILURES: list[tuple[int, str, str, dict[str, Any]]] = [
    (404, "route_not_found", "There is nothing at this address", {"path": "/auth/password/unknown"}),
    (405, "method_not_allowed", "This address cannot be used in this way", {"method": "PUT"}),
    (413, "body_too_large", "The request is too large", {"headers": {"content-length": "65537"}}),
    (415, "unsupported_media_type", "The request must be JSON or a form, in UTF-8", {"body": b"x"}),
    (400, "malformed_request", "The request could not be read", MALFORMED),
    (422, "validation_failed", "Some fields are not right yet", {"data": {"email": "a@x.example.org"}}),
    (401, "authentication_failed", "Access denied", {"data": credentials()}),
    (403, "cross_site", "The request came from another site", {"headers": {"origin": "null"}}),
    (421, "misdirected_request", "The request was sent to the wrong host", {"headers": {"host": "evil.example"}}),
]


@pytest.mark.parametrize(("status", "code", "title", "request_"), FAILURES, ids=[row[1] for row in FAILURES])
async def test_failures_have_the_documented_answers(
    plug: AuthPlug[User], status: int, code: str, title: str, request_: dict[str, Any]
) -> None:
    """Every refusal has its status, text, problem details (RFC 9457) and headers."""
    options = {"method": "POST", "path": "/auth/password/sign_in", **request_}
    text = await ask(plug, **options)
    options["headers"] = {**options.get("headers", {}), **JSON}
    problem = await ask(plug, **options)

    assert (text.status, text.text.partition("\n")[0]) == (status, title)
    assert problem["content-type"] == "application/problem+json"
    assert problem.json().items() >= {"type": "about:blank", "title": title, "status": status, "code": code}.items()
    for answer in (text, problem):
        assert _hardened(answer)
        assert answer["set-cookie"] is None
        assert answer["allow"] == ("GET, HEAD, POST" if status == 405 else None)
        assert answer["www-authenticate"] == {
            400: 'Bearer realm="localhost", error="invalid_request"',
            401: 'Bearer realm="localhost"',
        }.get(status)


async def test_failure_for_a_json_body_is_json_even_if_unread(plug: AuthPlug[User]) -> None:
    """The media type decides, even if the body is malformed or unread."""
    headers = {"content-type": "application/json"}
    broken = await ask(plug, "POST", "/auth/password/sign_in", body=b"{", headers=headers)
    unknown = await ask(plug, "POST", "/auth/nothing", body=b"{", headers=headers)

    assert (broken.json()["code"], unknown.json()["code"]) == ("malformed_request", "route_not_found")


async def test_validation_names_the_fields(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """A 422 has messages by field; a taken address gives ``identity_taken``."""
    await register(auth)
    empty = await ask(plug, "POST", "/auth/password/register", json={})
    differ = {**registration(), "password_confirmation": NEW_PASSWORD}
    taken = await ask(plug, "POST", "/auth/password/register", json=registration())

    needed = "This field is required."
    assert empty.json()["fields"] == {"email": needed, "password": needed, "password_confirmation": needed}
    answer = await ask(plug, "POST", "/auth/password/register", json=differ)
    assert answer.json()["fields"] == {"password_confirmation": "The two passwords are not the same."}
    assert (taken.status, taken.json()["code"]) == (422, "identity_taken")
    assert list(taken.json()["fields"]) == ["email"]


async def test_slow_body_gives_408(auth: LocalAuthentication) -> None:
    """RP-9: the client sends half a body and then pauses."""

    class Impatient(AuthPlug[User]):
        body_timeout = timedelta(microseconds=1)

    exchange = start(Impatient(auth), "POST", "/auth/password/sign_in", chunks=[b"email="], whole=False)
    await exchange.task

    assert (exchange.answer.status, exchange.answer.text) == (408, "The request took too long to arrive")
    assert _hardened(exchange.answer)


async def test_outage_of_the_store_gives_503(tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """FT-1, TK-14: without its tables the plug answers 503 with Retry-After and does not touch the cookie."""
    _, token = await register(auth)
    await execute(tmp_path, "ALTER TABLE asgi_auth_sessions RENAME TO gone")
    for path, data in (("sign_out", {}), ("password/sign_in", credentials())):
        answer = await post(plug, f"/auth/{path}", data, cookie=f"user_session={token.cookie}", headers=JSON)
        assert (answer.status, answer.json()["code"], answer["retry-after"]) == (503, "store_unavailable", "1")
        assert answer["set-cookie"] is None
        assert _hardened(answer)


# --- https -----------------------------------------------------------------------------------------------------------


async def test_cookies_on_https_have_every_attribute(tmp_path: Path) -> None:
    """SE-3, HT-3: ``__Host-``, Secure, HttpOnly, SameSite, Path=/ and no Domain, for every scheme of the request."""
    auth = make_auth(tmp_path, base_url="https://app.example.org", mount_path="/auth")
    headers = {"host": "app.example.org", "x-forwarded-proto": "http"}
    async with auth.running():
        plug = AuthPlug(auth)
        registered = await post(plug, "/auth/password/register", registration(), headers=headers)
        params = {**credentials(), "remember_me": "on"}
        remembered = await post(plug, "/auth/password/sign_in", params, headers=headers, scheme="https")
        redeemed = await post(plug, "/auth/password/sign_in_with_token", {"token": await _sign_in_token(auth)})
        gone = await post(plug, "/auth/sign_out", headers=headers)
        others = [
            await post(plug, "/auth/password/reset_request", {"email": EMAIL}),
            await post(plug, "/auth/password/reset", await _reset_form(auth)),
            await post(plug, "/auth/password/sign_in", credentials(password=PASSWORD)),
        ]

    name = "__Host-user_session"
    assert registered["set-cookie"] == f"{name}={registered.cookie(name)}; {SET}; Secure"
    assert remembered["set-cookie"] == f"{name}={remembered.cookie(name)}; {SET}; Secure; Max-Age=2592000"
    assert redeemed["set-cookie"] == f"{name}={redeemed.cookie(name)}; {SET}; Secure"
    assert gone["set-cookie"] == f"{name}=; {SET}; Secure; {GONE}"
    assert [answer["set-cookie"] for answer in others] == [None, None, None]


# --- where it is mounted ---------------------------------------------------------------------------------------------


async def test_wrapping_plug_respects_the_prefix_of_the_server(tmp_path: Path) -> None:
    """RP-6: a proxy strips the prefix of the public path; servers other than uvicorn give it only in ``root_path``."""
    auth = make_auth(tmp_path, mount_path="/api/auth")
    app = site(auth)

    assert (await post(app, "/auth/sign_out", root_path="/api")).status == 200
    assert (await post(app, "/api/auth/sign_out", root_path="/api")).status == 200
    assert (await ask(app, "GET", "/authors", root_path="/api")).status == 200
    await auth.close()


async def test_wrapping_plug_passes_other_paths_on(auth: LocalAuthentication) -> None:
    """``AuthPlug(auth, app=inner)`` serves only its own paths; an encoded spelling of them gives 404."""
    app = site(auth)

    assert (await ask(app, "GET", "/authors")).status == 200
    assert (await ask(app, "GET", "/")).status == 200
    assert (await ask(app, "GET", "/auth")).status == 404
    assert (await ask(app, "GET", "/auth/x")).status == 404
    assert (await post(app, "/auth/sign_out", raw_path=b"/%61uth/sign_out")).status == 404
    assert (await post(app, "/api/auth/sign_out", root_path="/api")).status == 200
    assert (await post(app, "/auth/sign_out", root_path="/api")).status == 200
    assert (await post(app, "/auth/sign_out", raw_path=None)).status == 200
    assert (await post(app, "/auth/sign_out?", raw_path=None)).status == 404
    assert (await post(app, "/auth/\udc80", raw_path=b"/auth/x")).status == 404
    assert (await post(app, "/auth/\ud800", raw_path=None)).status == 404


async def test_answer_does_not_wait_for_the_mail(tmp_path: Path) -> None:
    """EN-3, FT-3: known and unknown addresses get the same bytes before the mail is sent; a failure changes nothing."""
    may_send, tried = asyncio.Event(), []

    async def hang(user: object, token: str, opts: Any) -> None:
        tried.append(opts["address"])
        await may_send.wait()
        raise ConnectionError("the server is down")

    auth = make_auth(tmp_path, strategies=[Password(resettable=Resettable(sender=hang))])
    async with auth.running():
        await register(auth)
        plug = AuthPlug(auth, app=whoami)
        known, unknown = (
            start(plug, "POST", "/auth/password/reset_request", data={"email": email}) for email in (EMAIL, OTHER_EMAIL)
        )
        await known.answered.wait()
        await unknown.task
        assert not known.task.done()
        may_send.set()
        await known.task

    assert tried == [EMAIL]
    assert known.answer == unknown.answer
    assert known.answer.status == 200
