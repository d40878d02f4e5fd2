"""The page of a mailed link, from the mail to the new password, without a script."""

import re
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import Response

from asgi_auth.errors import AuthError
from asgi_auth.types import Activity, User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import PAGE, Answer, ask, execute, post, tables
from tests.support import EMAIL, NEW_PASSWORD, LocalAuthentication, credentials, mailed_token, register

pytestmark = pytest.mark.anyio

RESET = "/auth/password/reset"


def _inputs(answer: Answer) -> dict[str, str]:
    """Return name and value of every input."""
    found = re.findall(r'<input[^>]* name="([^"]*)"([^>]*)>', answer.text)
    values = {name: re.search(r' value="([^"]*)"', rest) for name, rest in found}
    return {name: unescape(value[1]) if value else "" for name, value in values.items()}


def _actions(answer: Answer) -> list[str]:
    return re.findall(r'<form method="post" action="([^"]*)"', answer.text)


def _is_page(answer: Answer) -> bool:
    headers = (answer["content-type"], answer["cache-control"])
    policy = "strict-origin" if "<form" in answer.text else "same-origin"
    expected = ("text/html; charset=utf-8", "no-store")
    return headers == expected and answer["referrer-policy"] == policy and "<script" not in answer.text


async def test_reset_works_from_the_mail_to_the_password(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """CF-3, TK-21: GET changes nothing, the form posts to a path without token, and errors are shown in the form."""
    await register(auth)
    await post(plug, "/auth/password/reset_request", {"email": EMAIL})
    token, link = mailed_token(auth), urlsplit(auth.sender.messages[-1][2]["url"])
    before = tables(tmp_path)
    page = await ask(plug, "GET", link.path, query=link.query.encode(), headers=PAGE)
    await ask(plug, "HEAD", link.path, query=link.query.encode(), headers=PAGE)

    assert tables(tmp_path) == before
    assert (page.status, _is_page(page), _actions(page)) == (200, True, [RESET])
    assert _inputs(page) == {"reset_token": token, "password": "", "password_confirmation": ""}

    for change, problem in (
        ({"password": "password1", "password_confirmation": "password1"}, "This password is easy to guess."),
        ({"password": NEW_PASSWORD, "password_confirmation": "other words"}, "The two passwords are not the same."),
    ):
        refused = await post(plug, RESET, {**_inputs(page), **change}, headers=PAGE)
        assert (refused.status, _is_page(refused), _actions(refused)) == (422, True, [RESET])
        assert _inputs(refused) == {"reset_token": token, "password": "", "password_confirmation": ""}
        assert problem in refused.text
        assert not [value for value in change.values() if value in refused.text]

    new = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    done = await post(plug, RESET, {**_inputs(page), **new}, headers=PAGE)
    again = await post(plug, RESET, {**_inputs(page), **new}, headers=PAGE)

    assert (done.status, _is_page(done), _actions(done)) == (200, True, [])
    assert (again.status, _is_page(again), _actions(again)) == (401, True, [])
    assert "This link or token is no longer valid" in again.text
    assert "ask for a new one" in again.text
    assert token not in again.text + done.text
    assert (await post(plug, "/auth/password/sign_in", credentials(password=NEW_PASSWORD))).status == 200


@pytest.mark.parametrize("query", [b"", b"reset_token=", b"other=1", b"reset_token", b"x=%20&reset_token="])
async def test_link_without_its_token_is_rejected(plug: AuthPlug[User], query: bytes) -> None:
    """GET says that the link is invalid before the user types a password; a POST says that it is incomplete."""
    page = await ask(plug, "GET", RESET, query=query, headers=PAGE)
    form = {"reset_token": "", "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    refused = await post(plug, RESET, form, headers=PAGE)

    assert (page.status, "This link or token is no longer valid" in page.text, _actions(page)) == (401, True, [])
    assert (refused.status, "This link is incomplete." in refused.text) == (422, True)


@pytest.mark.parametrize("query", [b"reset_token=a&reset_token=b", b"reset_token=%ff", b"reset_token=%"])
async def test_link_with_two_tokens_is_rejected(plug: AuthPlug[User], query: bytes) -> None:
    """RP-4: an ambiguous or malformed query gives 400."""
    answer = await ask(plug, "GET", RESET, query=query, headers=PAGE)

    assert (answer.status, _is_page(answer)) == (400, True)
    assert "</h1>\n<p>This was given twice.</p>" in answer.text or "Go back to the page before this one" in answer.text


@pytest.mark.parametrize("token", ['"><script>alert(1)</script>', "'onfocus=x", "&lt;", "a b", "é" * 50])
async def test_values_of_a_form_are_escaped(plug: AuthPlug[User], token: str) -> None:
    """RD-4: the token of a link and the value of a field stay text."""
    link = await post(plug, RESET, {"reset_token": token}, headers=PAGE)
    field = await post(plug, "/auth/password/register", {"email": token}, headers=PAGE)

    assert (_inputs(link)["reset_token"], _is_page(link)) == (token, True)
    assert (_inputs(field)["email"], "<script" in field.text) == (token, False)


async def test_program_gets_no_page(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """Without HTML in Accept the phase answers in text or JSON."""
    token = {"reset_token": "x" * 43, "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}

    assert (await post(plug, RESET, token)).text == "Access denied"
    assert (await ask(plug, "POST", RESET, json=token)).json()["code"] == "invalid_token"


async def test_outage_keeps_the_link_valid(tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """FT-1: the form says to try again, and the link still works afterwards."""
    await register(auth)
    await post(plug, "/auth/password/reset_request", {"email": EMAIL})
    form = {"reset_token": mailed_token(auth), "password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
    await execute(tmp_path, "ALTER TABLE asgi_auth_tokens RENAME TO gone")
    refused = await post(plug, RESET, form, headers=PAGE)
    await execute(tmp_path, "ALTER TABLE gone RENAME TO asgi_auth_tokens")

    assert (refused.status, refused["retry-after"], _is_page(refused)) == (503, "1", True)
    assert "Nothing was changed. Try again in a few seconds." in refused.text
    assert (await post(plug, RESET, form, headers=PAGE)).status == 200


async def test_cross_site_form_is_rejected_with_a_page(plug: AuthPlug[User]) -> None:
    """CF-1: the form is rejected before it is read, so the page does not contain the token."""
    headers = {"accept": "text/html", "sec-fetch-site": "cross-site"}
    answer = await post(plug, RESET, {"reset_token": "secret-token"}, headers=headers)

    assert (answer.status, _is_page(answer), "secret-token" in answer.text) == (403, True, False)


async def test_link_token_is_available_to_an_own_page(auth: LocalAuthentication) -> None:
    """A page that draws the form again needs the token, which ``params`` omits; other phases have no link token."""
    seen = []

    class OwnPage(AuthPlug[User]):
        async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
            seen.append((self.link_token(request), dict(self.params(request))))
            return await super().handle_failure(request, activity, reason)

    plug = OwnPage(auth)
    for path, params in (
        (RESET, {"reset_token": "t", "password": "x"}),
        ("/auth/password/register", {"invitation_token": "t", "email": "a"}),
        ("/auth/password/sign_in", {"reset_token": "t", "email": "a"}),
        ("/auth/password/nothing", {"reset_token": "t"}),
    ):
        await post(plug, path, params)

    assert seen == [("t", {}), ("t", {"email": "a"}), ("", {"reset_token": "t", "email": "a"}), ("", {})]
