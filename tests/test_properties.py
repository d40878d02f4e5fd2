"""Any request gets a hardened answer with a status under 500, and signs in no user without valid credentials."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_auth.web.plug import AuthPlug
from tests.asgi import FORM_TYPE, Answer, Exchange, make_scope, site, whoami
from tests.support import EMAIL, PASSWORD, make_auth, register

PHASES = ["register", "sign_in", "sign_in_with_token", "reauthenticate", "reset_request", "reset"]
FIELDS = ["email", "password", "password_confirmation", "token", "reset_token", "remember_me", "return_to"]

methods = st.sampled_from(["GET", "HEAD", "POST", "POST", "POST", "PUT", "OPTIONS", "TRACE", "", "é"])
known_paths = st.sampled_from([*(f"/auth/password/{phase}".encode() for phase in PHASES), b"/auth/sign_out", b"/"])
raw_paths = known_paths | st.binary(max_size=30) | st.binary(max_size=20).map(b"/auth/".__add__)
names = st.sampled_from(
    b"host cookie authorization accept content-type content-length origin sec-fetch-site user-agent".split()
)
telling = st.sampled_from(
    b"localhost|user_session=a|Bearer a|Bearer|text/html|application/json|application/x-www-form-urlencoded|null"
    b"|http://localhost:8000|cross-site|same-origin|99999999999999999999999|q=,;;=|\xff".split(b"|")
)
headers = st.lists(st.tuples(names, telling | st.binary(max_size=40)), max_size=6)
values = st.sampled_from([EMAIL, PASSWORD, "true", "/", "x" * 43]) | st.text(max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | values,
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
json_bodies = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), json_values, max_size=6)
forms = st.lists(st.tuples(st.sampled_from(FIELDS), values), max_size=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Answer]]:
    """Serve one request of a site whose loop and database exist for the whole module."""
    auth = make_auth(Path(tmp_path_factory.mktemp("properties")))
    app = site(auth, AuthPlug(auth, app=whoami))

    async def serve(scope: dict[str, Any], body: bytes) -> Answer:
        exchange = Exchange(app, scope, [body])
        await exchange.task
        return exchange.answer

    with asyncio.Runner() as runner:
        runner.run(register(auth))
        yield lambda scope, body: runner.run(serve(scope, body))
        runner.run(auth.close())


def _check(answer: Answer) -> None:
    assert 200 <= answer.status < 500
    for name, value in answer.headers:
        assert not set(name + value) & set("\r\n\0")
    if answer["content-type"] != "application/json" or answer["cache-control"] is not None:
        assert answer["cache-control"] == "no-store"
    assert (answer.status == 401) == (answer["www-authenticate"] is not None) or answer.status == 400
    assert (answer.status == 405) == (answer["allow"] is not None)


@settings(max_examples=1000)
@given(methods, raw_paths, st.binary(max_size=20), headers, st.binary(max_size=60))
@example("GET", b"/", b"", [], b"")
@example("POST", b"/auth/sign_out", b"", [], b"")
def test_any_request(
    run: Callable[..., Answer],
    method: str,
    raw_path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    """Any method, path, query, headers and body give a hardened answer and start no session."""
    scope = make_scope(method, raw_path.decode("utf-8", "replace"), query=query, raw_path=raw_path)
    scope["headers"] = [(b"host", b"localhost"), *headers]
    answer = run(scope, body)

    _check(answer)
    assert answer["set-cookie"] is None or "Max-Age=0" in answer["set-cookie"]


@settings(max_examples=400)
@given(st.sampled_from(PHASES), json_bodies)
def test_any_json(run: Callable[..., Answer], phase: str, params: dict[str, Any]) -> None:
    """Any JSON values in any field give a hardened answer; sign-in succeeds only with the right credentials."""
    body = json.dumps(params).encode("utf-8", "surrogatepass")
    answer = run(make_scope("POST", f"/auth/password/{phase}", {"content-type": "application/json"}), body)

    _check(answer)
    right = params.get("email") == EMAIL and params.get("password") == PASSWORD and phase == "sign_in"
    assert (answer.status == 200) <= (right or phase in ("reset_request", "register"))


@settings(max_examples=400)
@given(st.sampled_from(PHASES), forms, st.sampled_from(["text/html", "application/json", "*/*"]))
@example("sign_in", [("email", "a"), ("email", "b")], "*/*")
@example("sign_in", [("email", "a")], "*/*")
def test_any_form(run: Callable[..., Answer], phase: str, pairs: list[tuple[str, str]], accept: str) -> None:
    """Any fields in any order give a hardened answer; a repeated field is 400."""
    body = urlencode(pairs, errors="replace").encode()
    answer = run(make_scope("POST", f"/auth/password/{phase}", {"content-type": FORM_TYPE, "accept": accept}), body)

    _check(answer)
    if len({name for name, _ in pairs}) < len(pairs):
        assert answer.status == 400
