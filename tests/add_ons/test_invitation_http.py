"""Invitations over HTTP: seven phases, and pages without a script."""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from asgi_auth.add_ons import APPLICATION, Confirmation
from asgi_auth.limits import Limit
from asgi_auth.senders import MemorySender
from asgi_auth.strategies import Password
from asgi_auth.types import AccessToken, Activity, User
from asgi_auth.web.plug import AuthPlug
from tests.add_ons.inviting import (
    ADMIN,
    ROLE,
    Roles,
    admin_of,
    invitations,
    invite,
    joining,
    make_inviting,
    member_of,
    newest_token,
    states,
)
from tests.asgi import BROWSER, JSON, PAGE, Answer, ask, post, seen_user, site, tables, whoami
from tests.support import EMAIL, NEW_PASSWORD, OTHER_EMAIL, PASSWORD, LocalAuthentication, credentials

pytestmark = pytest.mark.anyio

HERE = "/auth/invitation"
EVIL = "<script>alert('x')</script>\"onload=\""


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[LocalAuthentication]:
    """An Authentication whose admin may invite."""
    auth = make_inviting(tmp_path, registration="invite_only")
    yield auth
    await auth.close()


@pytest.fixture
def app(auth: LocalAuthentication) -> ASGIApp:
    """The plug and both middlewares."""
    return site(auth)


async def bearer_of(auth: LocalAuthentication, user: User) -> str:
    """Sign *user* in and return the access token."""
    return str(await auth.sign_in(user))


async def cookie_of(auth: LocalAuthentication, user: User) -> str:
    """Sign *user* in and return the Cookie header."""
    return f"{auth.site.session_cookie}={(await auth.sign_in(user)).cookie}"


def inputs(answer: Answer) -> list[tuple[str, str]]:
    """Return name and value of every input, in order."""
    found = re.findall(r'<input[^>]* name="([^"]*)"([^>]*)>', answer.text)
    values = [(name, re.search(r' value="([^"]*)"', rest)) for name, rest in found]
    return [(name, unescape(value[1]) if value else "") for name, value in values]


def actions(answer: Answer) -> list[str]:
    """Return the actions of a page's forms."""
    return re.findall(r'<form method="post" action="([^"]*)"', answer.text)


async def look(app: ASGIApp, token: str, *, method: str = "GET", path: str = "view", **request: Any) -> Answer:
    """Open the link of a mail."""
    request = {"headers": PAGE, **request}
    return await ask(app, method, f"{HERE}/{path}", query=f"invitation_token={token}".encode(), **request)


# --- seed 004 --------------------------------------------------------------------------------------------------------


class Pages(AuthPlug[User]):
    """Redirects a user who has signed in to a page of the application."""

    async def handle_success(self, request: Request, activity: Activity, user: User, token: AccessToken) -> Response:
        response = RedirectResponse("/welcome", 303)
        self.store_in_session(response, token)
        return response


async def test_admin_invites_and_the_new_user_sets_a_password(tmp_path: Path) -> None:
    """The whole flow: a lifetime of 48 hours, an own mail text, a page for the password, sign-in and redirect."""
    outbox: list[str] = []

    def send(user: User | None, token: str, opts: Mapping[str, Any]) -> None:
        outbox.append(
            f"{opts['inviter']} wants you, {opts['address']}, before {opts['expires_at']:%d %B}: {opts['url']}"
        )

    roles, options = Roles(), {"sender": send, "lifetime": timedelta(hours=48)}
    auth = make_inviting(tmp_path, roles=roles, invitation=options, registration="invite_only")
    app = site(auth, Pages(auth, app=whoami))
    admin = await cookie_of(auth, await admin_of(auth))
    form = {"email": EMAIL, "grant": {"role": "editor"}}
    answer = await ask(app, "POST", f"{HERE}/invite", json=form, headers=BROWSER, cookie=admin)

    assert (answer.status, answer.json()) == (200, {"status": "accepted"})
    [mail] = outbox
    assert mail.startswith(f"{ADMIN} wants you, {EMAIL}, before 03 January: http://localhost:8000{HERE}/view?")
    link = urlsplit(mail.rpartition(" ")[2])
    page = await ask(app, "GET", link.path, query=link.query.encode(), headers=PAGE)
    token = parse_qs(link.query)["invitation_token"][0]

    assert (page.status, page["referrer-policy"], "<script" in page.text) == (200, "strict-origin", False)
    assert f"{ADMIN} has invited {EMAIL} to localhost." in page.text
    assert actions(page) == ["/auth/password/register", f"{HERE}/decline"]
    hidden = ("invitation_token", token)
    assert inputs(page) == [hidden, ("password", ""), ("password_confirmation", ""), hidden]
    assert page.text.count('type="hidden"') == 2

    weak = await post(app, "/auth/password/register", joining(token, "password1"), headers=PAGE)
    assert (weak.status, actions(weak), inputs(weak)) == (422, actions(page), inputs(page))
    assert f"{ADMIN} has invited {EMAIL} to localhost." in weak.text
    assert "This password is easy to guess." in weak.text

    done = await post(app, "/auth/password/register", joining(token), headers=PAGE)
    assert (done.status, done["location"]) == (303, "/welcome")
    found = await auth.accounts.find("email", EMAIL)
    assert found is not None
    cookie = f"{auth.site.session_cookie}={done.cookie(auth.site.session_cookie)}"
    assert await seen_user(app, cookie=cookie) == found.user.id
    assert roles.granted == [(found.user.id, {"role": "editor"})]
    assert (await look(app, token)).status == 401
    await auth.close()


# --- who invites -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["invite", "resend", "revoke", "list", "accept"])
async def test_inviter_must_be_signed_in(auth: LocalAuthentication, app: ASGIApp, phase: str) -> None:
    """A client that is not signed in gets 401."""
    method = "GET" if phase == "list" else "POST"
    assert (await ask(app, method, f"{HERE}/{phase}", headers=JSON)).status == 401


async def test_user_without_permission_cannot_invite(auth: LocalAuthentication, app: ASGIApp) -> None:
    """IN-3: the user gets 403 and nothing is stored or mailed; another user's invitation gives 403 too."""
    bearer = await bearer_of(auth, await member_of(auth, OTHER_EMAIL))
    answer = await post(app, f"{HERE}/invite", {"email": EMAIL}, bearer=bearer, headers=JSON)
    assert (answer.status, answer.json()["code"], auth.sender.messages) == (403, "forbidden", [])
    await invite(auth)
    [record] = await invitations(auth)
    auth.clock.advance(timedelta(minutes=2))
    for phase in ("resend", "revoke"):
        answer = await post(app, f"{HERE}/{phase}", {"id": record.id}, bearer=bearer, headers=JSON)
        assert (answer.status, answer.json()["code"]) == (403, "forbidden")
    listed = await ask(app, "GET", f"{HERE}/list", bearer=bearer, headers=JSON)
    more = await ask(app, "GET", f"{HERE}/list", query=f"before={record.id}".encode(), bearer=bearer, headers=JSON)
    assert (listed.json(), more.status) == ({"status": "view", "invitations": []}, 403)
    assert await invitations(auth) == [record]


async def test_phases_of_the_inviter(auth: LocalAuthentication, app: ASGIApp) -> None:
    """Invite, resend, revoke and list work; no answer contains the token or the grant."""
    admin = await bearer_of(auth, await admin_of(auth))
    form = {"email": EMAIL, "grant": {"role": "secret-role"}}
    answers = [await ask(app, "POST", f"{HERE}/invite", json=form, bearer=admin)]
    early = await ask(app, "POST", f"{HERE}/invite", json=form, bearer=admin)
    [record] = await invitations(auth)
    auth.clock.advance(timedelta(minutes=1))
    answers.append(await post(app, f"{HERE}/resend", {"id": record.id}, bearer=admin, headers=JSON))
    listed = await ask(app, "GET", f"{HERE}/list", bearer=admin, headers=PAGE)
    revoked = {"id": record.id, "reason": "a mistake"}
    answers.append(await post(app, f"{HERE}/revoke", revoked, bearer=admin, headers=JSON))
    again = await post(app, f"{HERE}/revoke", revoked, bearer=admin, headers=JSON)

    assert [(answer.status, answer.json()) for answer in answers] == [(200, {"status": "accepted"})] * 3
    assert (early.status, early["retry-after"]) == (429, "60")
    assert (again.status, again.json()["fields"]) == (
        422,
        {"id": "This invitation is over: it was accepted, declined or revoked, or it has expired."},
    )
    assert listed.json() == {
        "status": "view",
        "invitations": [
            {
                "id": record.id,
                "scope": None,
                "email": EMAIL,
                "status": "pending",
                "created_at": "2030-01-01T00:00:00+00:00",
                "expires_at": "2030-01-08T00:01:00+00:00",
                "sent_count": 2,
                "last_sent_at": "2030-01-01T00:01:00+00:00",
                "delivery": "sent",
                "reason": None,
            }
        ],
    }
    for answer in (*answers, early, listed, again):
        assert newest_token(auth) not in answer.text
        assert "secret-role" not in answer.text
    assert (await invitations(auth))[0].reason == "a mistake"


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({}, ["email"]),
        ({"email": "no address"}, ["email"]),
        ({"email": [EMAIL]}, ["email"]),
        ({"email": EMAIL, "grant": "editor"}, ["grant"]),
        ({"email": EMAIL, "scope": "walrus"}, ["scope"]),
        ({"email": EMAIL, "scope": 5}, ["scope"]),
    ],
)
async def test_invalid_parameters_of_an_inviter_are_rejected(
    auth: LocalAuthentication, app: ASGIApp, form: dict[str, Any], fields: list[str]
) -> None:
    """A client may not name a scope if the policy takes none."""
    bearer = await bearer_of(auth, await admin_of(auth))
    answer = await ask(app, "POST", f"{HERE}/invite", json=form, bearer=bearer)

    assert (answer.status, list(answer.json()["fields"])) == (422, fields)


async def test_policy_decides_about_a_scope(tmp_path: Path) -> None:
    """A client may name a scope that the policy allows; another scope is rejected."""
    policy = {"may_invite": lambda inviter, address, grant, scope: scope == "walrus"}
    auth = make_inviting(tmp_path, invitation=policy)
    app, bearer = site(auth), await bearer_of(auth, await admin_of(auth))
    answers = [
        await post(app, f"{HERE}/invite", {"email": EMAIL, "scope": scope}, bearer=bearer)
        for scope in ("heron", "walrus")
    ]
    assert [answer.status for answer in answers] == [403, 200]
    assert [each.scope for each in await invitations(auth)] == ["walrus"]
    await auth.close()


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("limit=2", ["c", "b"]),
        ("status=revoked", ["a"]),
        ("status=pending", ["c", "b"]),
        ("scope=walrus", []),
        ("status=nonsense", None),
        ("limit=0", None),
        ("limit=101", None),
        ("limit=-1", None),
        ("limit=%C2%B2", None),
        ("limit=99999999999999999999", None),
        ("limit=0000000501", None),
    ],
)
async def test_list_supports_filters(
    auth: LocalAuthentication, app: ASGIApp, query: str, shown: list[str] | None
) -> None:
    """The list filters by state and scope, in pages of at most a hundred; *shown* is None for a 422."""
    for name in ("a", "b", "c"):
        auth.clock.advance(timedelta(seconds=1))
        await invite(auth, f"{name}@mail.example.org")
    records = await invitations(auth)
    await auth.add_on("invitation").revoke(APPLICATION, records[-1].id)
    bearer = await bearer_of(auth, await admin_of(auth))
    answer = await ask(app, "GET", f"{HERE}/list", query=query.encode(), bearer=bearer, headers=JSON)
    page = await ask(app, "GET", f"{HERE}/list", query=f"before={records[0].id}".encode(), bearer=bearer)

    assert answer.status == (422 if shown is None else 200)
    assert shown is None or [each["email"][0] for each in answer.json()["invitations"]] == shown
    assert [each["email"][0] for each in page.json()["invitations"]] == ["b", "a"]


async def test_other_strategy_registers_over_http(tmp_path: Path) -> None:
    """EN-4: another strategy follows the same rules; without an invitation no answer reveals a taken address."""
    sender = MemorySender()
    auth = make_inviting(tmp_path, sender=sender, hooks=[Confirmation(sender=sender)])
    app, path = site(auth), "/auth/provider/callback"
    await member_of(auth, OTHER_EMAIL)
    token = await invite(auth)
    invited = await post(app, path, {"subject": "alice", "invitation_token": token}, headers=JSON)
    taken = await post(app, path, {"subject": "mallory", "address": OTHER_EMAIL}, headers=JSON)
    dead = await post(app, path, {"subject": "mallory", "invitation_token": token}, headers=JSON)

    assert (invited.status, invited.json()["status"]) == (200, "success")
    assert (taken.status, taken.json()) == (200, {"status": "accepted"})
    assert (dead.status, dead.json()["code"]) == (401, "invalid_token")
    await auth.close()


# --- who is invited --------------------------------------------------------------------------------------------------


async def test_get_and_head_change_nothing(tmp_path: Path, auth: LocalAuthentication, app: ASGIApp) -> None:
    """Rule 6, GHSA-3988-q8q7-p787: a mail scanner's requests change no row, with or without a session."""
    token, user = await invite(auth), await member_of(auth)
    cookie = await cookie_of(auth, user)
    before = tables(tmp_path)
    for method in ("GET", "HEAD"):
        for path in ("view", "accept", "decline"):
            for request in ({}, {"cookie": cookie}):
                assert (await look(app, token, method=method, path=path, **request)).status == 200
        await ask(app, method, f"{HERE}/list", cookie=cookie, headers=JSON)

    assert tables(tmp_path) == before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_get_and_head_do_not_register(auth: LocalAuthentication, app: ASGIApp, method: str) -> None:
    """With ``invite_only`` the phase that registers has no page of its own, so GET and HEAD give 405."""
    token = await invite(auth)
    query = f"invitation_token={token}&password={PASSWORD}".encode()
    assert (await ask(app, method, "/auth/password/register", query=query)).status == 405
    assert await states(auth) == ["pending"]


async def test_program_gets_json(auth: LocalAuthentication, app: ASGIApp) -> None:
    """A client without HTML in Accept gets the contents of the page as data."""
    token = await invite(auth)
    for headers in (JSON, {}):
        answer = await look(app, token, headers=headers)
        assert answer.json() == {
            "status": "view",
            "scope": None,
            "inviter": ADMIN,
            "email": EMAIL,
            "expires_at": "2030-01-08T00:00:00+00:00",
            "to_do": "register",
        }


async def test_user_with_an_account_is_told_to_sign_in(tmp_path: Path) -> None:
    """Case B, then D: after the user's own sign-in the same link shows a button, and the button accepts."""
    auth = make_inviting(tmp_path, invitation={"sign_in_url": "/sign-in?a&b"})
    app, user = site(auth), await member_of(auth)
    token = await invite(auth)
    page = await look(app, token)
    assert "There is an account with this address. Sign in with it to accept." in page.text
    assert '<a href="/sign-in?a&amp;b">Sign in</a>' in page.text
    assert actions(page) == ["/auth/password/sign_in", f"{HERE}/decline"]

    cookie = await cookie_of(auth, user)
    page = await look(app, token, cookie=cookie)
    assert actions(page) == [f"{HERE}/accept", f"{HERE}/decline"]
    for _ in range(2):
        answer = await post(app, actions(page)[0], dict(inputs(page)), headers=PAGE, cookie=cookie)
        assert (answer.status, "You have accepted the invitation." in answer.text, answer.all("set-cookie")) == (
            200,
            True,
            [],
        )
    assert await states(auth) == ["accepted"]
    await auth.close()


async def test_user_of_another_account_is_told_to_switch(auth: LocalAuthentication, app: ASGIApp) -> None:
    """IN-4, case E: the answer is 403 without the invited address; a button signs out, and then the link works."""
    token = await invite(auth, grant=ROLE)
    cookie = await cookie_of(auth, await member_of(auth, OTHER_EMAIL))
    page = await look(app, token, cookie=cookie)
    assert actions(page) == ["/auth/sign_out", f"{HERE}/decline"]
    answer = await post(app, f"{HERE}/accept", {"invitation_token": token}, headers=PAGE, cookie=cookie)
    assert (answer.status, "Sign in with the account whose address was invited" in answer.text) == (403, True)
    assert EMAIL not in answer.text
    assert await states(auth) == ["pending"]

    await post(app, "/auth/sign_out", {}, headers=PAGE, cookie=cookie)
    page = await look(app, token, cookie=cookie)
    assert actions(page) == ["/auth/password/register", f"{HERE}/decline"]


async def test_button_declines(auth: LocalAuthentication, app: ASGIApp) -> None:
    """A POST with the token declines without a session; a cross-site POST with a session is rejected."""
    token = await invite(auth)
    page = await look(app, token, path="decline")
    form, away = {"invitation_token": token}, {"accept": "text/html", "sec-fetch-site": "cross-site"}
    cookie = await cookie_of(auth, await admin_of(auth))
    assert (await post(app, f"{HERE}/decline", form, headers=away, cookie=cookie)).status == 403
    answer = await post(app, actions(page)[0], dict(inputs(page)), headers=PAGE)

    assert (answer.status, "Nothing else will happen." in answer.text) == (200, True)
    assert await states(auth) == ["declined"]
    again = await post(app, f"{HERE}/decline", form, headers=PAGE)
    assert (again.status, "This link or token is no longer valid" in again.text) == (401, True)


async def test_invalid_link_gets_a_page_that_says_so(auth: LocalAuthentication, app: ASGIApp) -> None:
    """EN-7: every invalid link gets the same text, except that a superseded link names the newer mail."""
    old = await invite(auth)
    auth.clock.advance(timedelta(minutes=1))
    new = await invite(auth)
    superseded, garbage = await look(app, old), await look(app, "x" * 43)
    program = await look(app, old, headers=JSON)
    none = await ask(app, "GET", f"{HERE}/view", headers=PAGE)
    await auth.add_on("invitation").decline({"invitation_token": new})
    dead, older = await look(app, new), await look(app, old)

    assert [answer.status for answer in (superseded, garbage, dead, older, none)] == [401, 401, 401, 401, 422]
    assert "Open the link of the newest mail." in superseded.text
    assert program.json()["code"] == "invalid_token"
    assert "newest mail" in program.json()["fields"]["invitation_token"]
    assert garbage.text == dead.text == older.text
    assert "<main" in none.text


async def test_page_of_a_rejected_registration_says_what_is_wrong(auth: LocalAuthentication, app: ASGIApp) -> None:
    """Case B, if a user posts the form nevertheless: the form has no field for the error, so it is above the form."""
    await member_of(auth)
    token = await invite(auth)
    answer = await post(app, "/auth/password/register", joining(token, NEW_PASSWORD), headers=PAGE)

    assert (answer.status, await states(auth)) == (422, ["pending"])
    told = "There is already an account with this address. Sign in, then open the link of the mail again."
    assert told in answer.text
    assert NEW_PASSWORD not in answer.text
    program = await post(app, "/auth/password/register", joining(token, NEW_PASSWORD), headers=JSON)
    assert program.json()["code"] == "identity_taken"


async def test_form_without_an_invitation_is_drawn_again(auth: LocalAuthentication, app: ASGIApp) -> None:
    """The page has a field for the address and no invitation."""
    answer = await post(app, "/auth/password/register", {"email": EMAIL}, headers=PAGE)
    assert (answer.status, actions(answer)) == (422, ["/auth/password/register"])
    assert inputs(answer) == [("email", EMAIL), ("password", ""), ("password_confirmation", "")]


@pytest.mark.parametrize("strategies", [["password"], ["provider"], []])
async def test_page_offers_what_the_invitation_allows(tmp_path: Path, strategies: list[str]) -> None:
    """The page has a form for each allowed strategy that registers, with the parameters of that strategy."""
    named = Password(name="by_name", identity_field="username", register_fields=["email", "nick_name"])
    auth = make_inviting(tmp_path, strategies=[Password(repeat_password=False), named])
    token = await invite(auth, strategies=strategies)
    page = await look(site(auth), token)
    first = "/auth/password/register"
    expected = {"password": [first], "provider": [], "": [first, "/auth/by_name/register"]}

    assert actions(page) == [*expected["".join(strategies)], f"{HERE}/decline"]
    if not strategies:
        names = ["username", "nick_name", "password", "password_confirmation"]
        assert [name for name, _ in inputs(page) if name != "invitation_token"] == ["password", *names]
        ids = re.findall(r' id="([^"]*)"', page.text)
        assert len(ids) == len(set(ids))
        assert re.findall(r'<label for="([^"]*)"', page.text) == ids
        assert "Nick name" in page.text
    await auth.close()


async def test_foreign_text_is_escaped(tmp_path: Path) -> None:
    """RD-4: names, scopes and URLs are escaped as text."""
    auth = make_inviting(tmp_path, app_name=EVIL, invitation={"sign_in_url": EVIL})
    token = await invite(auth, scope=EVIL)
    page = await look(site(auth), token)
    await member_of(auth)
    signing_in = await look(site(auth), token)
    for answer in (page, signing_in):
        assert "alert(" in answer.text
        assert "<script" not in answer.text
        assert 'onload="' not in answer.text
    await auth.close()


async def test_token_is_read_only_from_the_form(auth: LocalAuthentication, app: ASGIApp) -> None:
    """Rule 6, the lure: a token in a cookie, which another user may have planted, or in a POST's query is ignored."""
    token = await invite(auth)
    for request in ({"cookie": f"invitation_token={token}"}, {"query": f"invitation_token={token}".encode()}):
        form = {"password": PASSWORD, "password_confirmation": PASSWORD, "email": EMAIL}
        for path, data in (("/auth/password/register", form), (f"{HERE}/decline", {})):
            answer = await post(app, path, data, headers=PAGE, **request)
            assert answer.status in (403, 422)
    answer = await ask(app, "GET", f"{HERE}/view", headers=PAGE, cookie=f"invitation_token={token}")
    assert (answer.status, await states(auth)) == (422, ["pending"])


async def test_application_can_draw_its_own_page(auth: LocalAuthentication) -> None:
    """An application can override ``handle_view`` like the other callbacks."""

    class Own(AuthPlug[User]):
        async def handle_view(self, request: Request, activity: Activity, view: Any) -> Response:
            return Response(f"{activity} {view.data['to_do']}")

    answer = await look(Own(auth), await invite(auth))
    assert answer.text == "Activity(strategy='invitation', phase='view') register"


async def test_mail_can_link_to_the_applications_page(tmp_path: Path) -> None:
    """The option ``url`` replaces the library's page."""
    auth = make_inviting(tmp_path, invitation={"url": "https://www.example.com/join?lang=en"})
    token = await invite(auth)
    assert auth.sender.messages[-1][2]["url"] == f"https://www.example.com/join?lang=en&invitation_token={token}"
    await auth.close()


async def test_answer_to_an_inviter_reveals_no_account(tmp_path: Path) -> None:
    """IN-3: unknown, registered, unconfirmed, disabled and already invited addresses get the same bytes."""
    auth = make_inviting(tmp_path, invitation={"per_inviter": Limit(99, timedelta(days=1))})
    app, bearer = site(auth), await bearer_of(auth, await admin_of(auth))
    await member_of(auth, "registered@mail.example.org")
    await member_of(auth, "unproven@mail.example.org", confirmed=False)
    await auth.accounts.disable((await member_of(auth, "disabled@mail.example.org")).id)
    await auth.add_on("invitation").invite(APPLICATION, "invited@mail.example.org")
    names = ("unknown", "registered", "unproven", "disabled", "invited")
    answers = [
        await post(app, f"{HERE}/invite", {"email": f"{name}@mail.example.org"}, bearer=bearer, headers=JSON)
        for name in names
    ]
    auth.clock.advance(timedelta(minutes=1))
    own = [each for each in await invitations(auth) if each.inviter_id is not None]
    again = [await post(app, f"{HERE}/resend", {"id": each.id}, bearer=bearer, headers=JSON) for each in own]

    assert len(own) == 4
    assert len({(each.status, each.body, tuple(each.headers)) for each in (*answers, *again)}) == 1
    assert await auth.strategy("password").sign_in(credentials("registered@mail.example.org")) is not None
    await auth.close()
