"""Forms that an application draws itself with ``handle_form``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from asgi_auth.errors import AuthError
from asgi_auth.phases import Form
from asgi_auth.types import Activity, User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import PAGE, ask, post
from tests.support import EMAIL, LocalAuthentication, mailed_token, make_auth, register

pytestmark = pytest.mark.anyio

RESET = "/auth/password/reset"
REGISTER = "/auth/password/register"


class Seen(NamedTuple):
    """The arguments of one call of ``handle_form``."""

    path: str
    token: str
    return_to: str
    values: dict[str, Any]
    fields: dict[str, str]


class OwnForms(AuthPlug[User]):
    """Records every call of ``handle_form`` and draws no form."""

    def __init__(self, auth: LocalAuthentication) -> None:
        super().__init__(auth)
        self.seen: list[Seen] = []

    async def handle_form(
        self, request: Request, activity: Activity, form: Form, values: Mapping[str, Any], reason: AuthError | None
    ) -> Response:
        fields = {} if reason is None else dict(reason.fields)
        path, return_to = self.path(form.action or activity), self.return_to(request, default="")
        self.seen.append(Seen(path, self.link_token(request), return_to, dict(values), fields))
        return PlainTextResponse("mine", 200 if reason is None else reason.status)


async def test_own_form_gets_the_token_of_the_link(auth: LocalAuthentication) -> None:
    """TK-21: the token is in the query of the link; the form gets it and posts to a path without it."""
    await register(auth)
    await auth.strategy("password").reset_request({"email": EMAIL})
    token, plug = mailed_token(auth), OwnForms(auth)

    opened = await ask(plug, "GET", RESET, query=f"reset_token={token}".encode(), headers=PAGE)
    refused = await post(plug, RESET, {"reset_token": token, "password": "abc"}, headers=PAGE)

    assert (opened.status, opened.text, refused.status) == (200, "mine", 422)
    assert [(seen.path, seen.token, seen.values) for seen in plug.seen] == [(RESET, token, {})] * 2
    assert plug.seen[0].fields == {}
    assert set(plug.seen[1].fields) == {"password", "password_confirmation"}


async def test_own_form_is_drawn_again_with_the_sent_values(auth: LocalAuthentication) -> None:
    """The form gets the values without passwords, a message for each field and ``return_to``."""
    plug = OwnForms(auth)
    await ask(plug, "GET", REGISTER, query=b"return_to=/me", headers=PAGE)
    sent = {"email": "no address", "password": "abc", "password_confirmation": "abd", "return_to": "/me"}
    await post(plug, REGISTER, sent, headers=PAGE)

    first, again = plug.seen
    assert first == Seen(REGISTER, "", "/me", {}, {})
    assert (again.path, again.token, again.return_to) == (REGISTER, "", "/me")
    assert again.values == {"email": "no address", "return_to": "/me"}
    assert set(again.fields) == {"email", "password", "password_confirmation"}


async def test_own_page_uses_the_language_of_the_answer(tmp_path: Path) -> None:
    """A message is translated and the application's own text is not; the page can get its language."""
    auth = make_auth(tmp_path, translate=lambda message, locale: f"{message.key} in {locale}", locale=lambda *_: "sv")

    class OwnFailure(AuthPlug[User]):
        async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
            return PlainTextResponse(
                f"{self.locale(request)}: {self.say(request, reason.title)}, {self.say(request, 'x')}"
            )

    answer = await ask(OwnFailure(auth), "GET", "/auth/nothing/here")

    assert answer.text == "sv: error.not_found in sv, x"
