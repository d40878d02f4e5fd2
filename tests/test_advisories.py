"""Published defects of similar systems, each with a test that would have found it.

Each test is named after its advisory. Tests for strategies that do not exist yet are added with the strategies.
"""

import asyncio
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.keys import derive_key, key_id
from asgi_auth.types import User
from asgi_auth.web.plug import AuthPlug
from tests.asgi import BROWSER, Answer, ask, post, seen_user, site, start, tables
from tests.support import (
    BASE_URL,
    EMAIL,
    NEW_PASSWORD,
    OTHER_EMAIL,
    OTHER_SECRET,
    PASSWORD,
    SECRET,
    LocalAuthentication,
    credentials,
    mailed_token,
    make_auth,
    register,
    registration,
)

pytestmark = pytest.mark.anyio

NEW = {"password": NEW_PASSWORD, "password_confirmation": NEW_PASSWORD}
SIGN_IN, RESET = "/auth/password/sign_in", "/auth/password/reset"
PHASES = ("register", "sign_in", "sign_in_with_token", "reauthenticate", "reset_request", "reset")
PATHS = [*(f"/auth/password/{phase}" for phase in PHASES), "/auth/sign_out"]


@pytest.fixture
def plug(auth: LocalAuthentication) -> AuthPlug[User]:
    """A plug with its defaults."""
    return AuthPlug(auth)


async def _sign_in_token(auth: LocalAuthentication) -> str:
    _, token = await auth.strategy("password").sign_in(credentials(), token_type="sign_in")
    return str(token)


async def _reset_token(auth: LocalAuthentication, email: str = EMAIL) -> str:
    await auth.strategy("password").reset_request({"email": email})
    return mailed_token(auth)


def _statuses(answers: list[Answer]) -> list[int]:
    return sorted(answer.status for answer in answers)


# --- races ----------------------------------------------------------------------------------------------------------


async def test_cve_2026_82761_parallel_redemptions_make_one_session(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """AshAuthentication: a token was verified first and revoked after the commit, so all requests succeeded."""
    await register(auth)
    token, before = await _sign_in_token(auth), len(tables(tmp_path)["asgi_auth_sessions"])
    redeem = partial(post, plug, "/auth/password/sign_in_with_token", {"token": token})
    answers = await asyncio.gather(*(redeem() for _ in range(20)))

    assert _statuses(answers) == [200] + [401] * 19
    assert len(tables(tmp_path)["asgi_auth_sessions"]) == before + 1


async def test_ghsa_392p_2q2v_4372_parallel_resets_set_one_password(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """Better Auth: two redemptions of one code both worked."""
    await register(auth)
    token = await _reset_token(auth)
    words = ["violet harbour", "copper meadow", "silver canyon", "marble thicket"]
    forms = [
        {"reset_token": token, "password": f"{w} pendulum", "password_confirmation": f"{w} pendulum"} for w in words
    ]
    answers = await asyncio.gather(*(post(plug, RESET, form) for form in forms))
    works = [await post(plug, SIGN_IN, credentials(password=form["password"])) for form in forms]

    assert _statuses(answers) == [200, 401, 401, 401]
    assert [answer.status == 200 for answer in answers] == [answer.status == 200 for answer in works]


async def test_cve_2025_46336_a_racing_request_revives_no_session(auth: LocalAuthentication) -> None:
    """rack-session: a slow request wrote back the session that a sign-out had deleted."""
    _, token = await register(auth)
    auth.clock.advance(timedelta(minutes=2))  # so that the slow requests record the use of the session
    app, cookie = site(auth), f"user_session={token.cookie}"
    slow = [start(app, "GET", "/", cookie=cookie) for _ in range(20)]
    await asyncio.gather(post(app, "/auth/sign_out", cookie=cookie), *(exchange.task for exchange in slow))

    assert await seen_user(app, cookie=cookie) is None


# --- revocation -----------------------------------------------------------------------------------------------------


async def test_cve_2026_86533_sign_out_ends_the_cookie(auth: LocalAuthentication) -> None:
    """AshAuthentication: revoked sessions stayed valid in one storage mode. This test also signs in remembered."""
    await register(auth)
    app = site(auth)
    for remember in ("", "on"):
        answer = await post(app, SIGN_IN, {**credentials(), "remember_me": remember}, headers=BROWSER)
        cookie = f"user_session={answer.cookie('user_session')}"
        assert await seen_user(app, cookie=cookie) is not None
        await post(app, "/auth/sign_out", cookie=cookie)
        assert await seen_user(app, cookie=cookie) is None


async def test_cve_2025_4754_sign_out_ends_the_bearer_token(auth: LocalAuthentication) -> None:
    """AshAuthentication Phoenix: the token stayed valid after the log-out."""
    _, token = await register(auth)
    app = site(auth)
    await post(app, "/auth/sign_out", cookie=f"user_session={token.cookie}")

    assert await seen_user(app, bearer=str(token)) is None


async def test_ghsa_2vg6_77g8_24mp_deletion_ends_all_credentials(auth: LocalAuthentication) -> None:
    """Better Auth: sessions outlived the user."""
    user, token = await register(auth)
    app, sign_in, reset = site(auth), await _sign_in_token(auth), await _reset_token(auth)
    await auth.accounts.delete(user.id)

    assert await seen_user(app, cookie=f"user_session={token.cookie}") is None
    assert await seen_user(app, bearer=str(token)) is None
    assert (await post(app, "/auth/password/sign_in_with_token", {"token": sign_in})).status == 401
    assert (await post(app, RESET, {"reset_token": reset, **NEW})).status == 401


async def test_cve_2025_65430_deactivation_ends_all_tokens(auth: LocalAuthentication) -> None:
    """django-allauth: tokens of deactivated users still worked."""
    user, token = await register(auth)
    app, sign_in, reset = site(auth), await _sign_in_token(auth), await _reset_token(auth)
    await auth.accounts.disable(user.id)

    assert await seen_user(app, bearer=str(token)) is None
    assert (await post(app, "/auth/password/sign_in_with_token", {"token": sign_in})).status == 401
    assert (await post(app, RESET, {"reset_token": reset, **NEW})).status == 401
    await auth.accounts.enable(user.id)
    assert await seen_user(app, bearer=str(token)) is None
    assert (await post(app, RESET, {"reset_token": reset, **NEW})).status == 401


async def test_cve_2015_8314_devices_are_signed_out_separately(auth: LocalAuthentication) -> None:
    """Devise: all devices shared one remember cookie, so a single device could not be signed out."""
    await register(auth)
    remembered = {**credentials(), "remember_me": True}
    (_, first), (_, second) = [await auth.strategy("password").sign_in(remembered) for _ in range(2)]
    app = site(auth)
    await post(app, "/auth/sign_out", cookie=f"user_session={first.cookie}")

    assert first.cookie != second.cookie
    assert await seen_user(app, cookie=f"user_session={first.cookie}") is None
    assert await seen_user(app, cookie=f"user_session={second.cookie}") is not None


async def test_cve_2025_64708_an_expiry_is_exact(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """authentik: a token was usable for minutes after its expiry, until the next clean-up."""
    await register(auth)
    for wait, status in ((59, 200), (60, 401), (61, 401)):
        token = await _sign_in_token(auth)
        auth.clock.advance(timedelta(seconds=wait))
        assert (await post(plug, "/auth/password/sign_in_with_token", {"token": token})).status == status
    for wait, status in ((3601, 401), (3600, 401), (3599, 200)):
        form = {"reset_token": await _reset_token(auth), **NEW}
        auth.clock.advance(timedelta(seconds=wait))
        assert (await post(plug, RESET, form)).status == status


# --- one kind of token as another -----------------------------------------------------------------------------------


async def test_cve_2026_110862_each_consumer_accepts_only_its_kind_of_token(auth: LocalAuthentication) -> None:
    """Better Auth, Auth.js (CVE-2023-48309): one kind of token was accepted as another."""
    _, access = await register(auth)
    app = site(auth)
    issued = {
        "bearer": str(access),
        "cookie": access.cookie,
        "secret": access.cookie.partition(".")[0],
        "sign_in": await _sign_in_token(auth),
        "reset": await _reset_token(auth),
        "session id": access.session.id,
    }

    async def consume(kind: str, token: str) -> bool:
        if kind == "bearer":
            return await seen_user(app, bearer=token) is not None
        if kind == "cookie":
            return await seen_user(app, cookie=f"user_session={token}") is not None
        path, field = {"sign_in": (PATHS[2], "token"), "reset": (RESET, "reset_token")}[kind]
        return (await post(app, path, {field: token, **NEW})).status == 200

    for consumer in ("bearer", "cookie", "sign_in", "reset"):
        for kind, token in issued.items():
            assert await consume(consumer, token) == (kind == consumer), (kind, consumer)


async def test_cve_2026_27840_no_part_of_a_token_works(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """Zitadel: a truncated token was valid."""
    _, access = await register(auth)
    token, app = await _sign_in_token(auth), site(auth)
    for part in (token[:-1], token[1:], token + "A", "A" + token, token.upper(), token + "=", f" {token}"):
        assert (await post(plug, "/auth/password/sign_in_with_token", {"token": part})).status == 401
    bearer = str(access)
    for part in (bearer[:-1], bearer[1:], bearer + "A", bearer + "=", bearer + ".", bearer.rpartition(".")[0] + "."):
        assert await seen_user(app, bearer=part) is None
    assert (await post(plug, "/auth/password/sign_in_with_token", {"token": token})).status == 200


@pytest.mark.parametrize("blank", ["", " ", "\t", "\n", "\0", None, [], {}, 0, False], ids=repr)
async def test_cve_2019_16109_a_blank_token_matches_nothing(
    auth: LocalAuthentication, plug: AuthPlug[User], blank: Any
) -> None:
    """Devise: a blank token matched a blank column."""
    await register(auth)
    for path, field in ((PATHS[2], "token"), (RESET, "reset_token")):
        answer = await ask(plug, "POST", path, json={field: blank, **NEW})
        assert answer.status in (401, 422)
        assert answer["set-cookie"] is None


async def test_cve_2013_0233_types_are_checked(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """Devise: the database compared a number, a list or an object that was sent as a token or an address."""
    await register(auth)
    right: dict[str, Any] = {"email": EMAIL, "password": PASSWORD, "token": "x", "reset_token": "x", **NEW}
    for path in PATHS[:5]:
        for field in right:
            for odd in (0, [EMAIL], {"$ne": ""}, True):
                answer = await ask(plug, "POST", path, json={**right, field: odd})
                assert answer.status in (200, 401, 422)
                assert "token" not in answer.json() or field not in ("email", "password")


# --- JOSE -----------------------------------------------------------------------------------------------------------

KEY = derive_key(SECRET.encode(), "access_token", "user")


def _forge(token: str, *, key: bytes = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """*token* with other claims and header parameters, signed with *key*."""
    parameters = {"typ": "JWT", "alg": "HS256", "kid": key_id(KEY), **(header or {})}
    signed = f"{_part(parameters)}.{_part({**json.loads(_decoded(token)), **claims})}"
    mac = hmac.digest(key, signed.encode(), parameters["alg"].replace("HS", "sha"))
    return f"{signed}.{_base64(mac)}"


def _decoded(token: str) -> bytes:
    return urlsafe_b64decode(token.split(".")[1] + "==")


def _base64(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


async def test_cve_2026_27962_the_header_selects_no_key(auth: LocalAuthentication) -> None:
    """Authlib, also CVE-2024-37568 and CVE-2025-59420: ``jwk`` or ``none`` accepted, ``crit`` ignored."""
    user, token = await register(auth)
    app, good, own = site(auth), str(token), secrets.token_bytes(32)
    payload = good.split(".")[1]
    assert await seen_user(app, bearer=_forge(good)) == user.id
    jwk = {"kty": "oct", "k": urlsafe_b64encode(own).decode()}
    forged = [
        _forge(good, key=own),
        _forge(good, key=own, header={"jwk": jwk}),
        _forge(good, key=own, header={"kid": key_id(own), "jku": "http://localhost/keys"}),
        _forge(good, header={"crit": ["x"], "x": 1}),
        _forge(good, header={"kid": "' OR 1=1--"}),
        _forge(good, header={"kid": ""}),
        _forge(good, header={"alg": "HS512"}),
        *(f"{_part({'alg': alg, 'kid': key_id(KEY)})}.{payload}." for alg in ("none", "None", "nOnE", "")),
        f"{_part({'kid': key_id(KEY)})}.{payload}.",
        json.dumps({"payload": payload, "signatures": []}),
    ]
    for bearer in forged:
        assert await seen_user(app, bearer=bearer) is None


async def test_cve_2024_53861_the_issuer_is_compared_whole(auth: LocalAuthentication) -> None:
    """PyJWT: a part of the issuer was accepted. This test also checks audience and subject."""
    user, token = await register(auth)
    other, _ = await register(auth, OTHER_EMAIL)
    app, audience = site(auth), f"{BASE_URL}/user"
    claims: list[dict[str, Any]] = [
        *({"iss": iss} for iss in (BASE_URL[:-1], BASE_URL + "/", BASE_URL[1:], "", [BASE_URL], None)),
        *({"aud": aud} for aud in (audience + "s", audience[:-1], [audience], [audience, "x"], "", None)),
        *({"sub": sub} for sub in (f"user?id={other.id}", f"staff?id={user.id}", user.id, "", None)),
        *({"purpose": purpose} for purpose in ("reset", "", None, True)),
        *({"exp": exp} for exp in (0, "9999999999", True, None, 10**400)),
    ]
    for changed in claims:
        assert await seen_user(app, bearer=_forge(str(token), **changed)) is None, changed
    assert await seen_user(app, bearer=_forge(str(token))) == user.id


@pytest.mark.parametrize(
    "secret", ["", b"", [], [SECRET, ""], "x" * 31, "changeme" * 8, "0" * 64, "secret" * 10], ids=repr
)
def test_cve_2026_114616_empty_and_default_secrets_are_refused(tmp_path: Path, secret: Any) -> None:
    """Authlib (empty HMAC keys), Kratos CVE-2026-33503 (a public default secret): refused at the start."""
    with pytest.raises(ConfigurationError, match="secret"):
        make_auth(tmp_path, secret=secret)


async def test_ghsa_xmf8_cvqr_rfgj_malformed_authorization_is_anonymous(auth: LocalAuthentication) -> None:
    """Auth.js: a malformed bearer header crashed the request."""
    app = site(auth)
    for value in (
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer \xff",
        "bearer a b",
        "Bearer " + "a" * 9000,
        "Bearer a,b",
        "%00",
    ):
        assert await seen_user(app, headers={"authorization": value}) is None


async def test_cve_2026_40372_altered_cookie_is_anonymous(auth: LocalAuthentication) -> None:
    """ASP.NET (MAC not verified), rack-session CVE-2026-39324 (fallback to plain decoding). Here: anonymous."""
    _, token = await register(auth)
    app = site(auth)
    foreign = make_auth(Path(auth.store._file.path).parent, secret=OTHER_SECRET).sessions  # type: ignore[attr-defined]
    secret = token.cookie.partition(".")[0]
    for at in range(len(token.cookie)):
        for bit in (1, 2, 4, 8, 16, 32):
            flipped = token.cookie[:at] + chr(ord(token.cookie[at]) ^ bit) + token.cookie[at + 1 :]
            assert await seen_user(app, cookie=f"user_session={flipped}") is None
    for cookie in (foreign._sign(secret), secret, f"{secret}.", f"{secret}.{'A' * 43}"):
        assert await seen_user(app, cookie=f"user_session={cookie}") is None


def test_cve_2024_8796_secrets_have_256_bits(tmp_path: Path) -> None:
    """devise-two-factor: generated secrets were too short."""
    auth = make_auth(tmp_path)
    token = auth.tokens.make("reset", account=None, lifetime=timedelta(hours=1)).token

    assert len(token) == 43  # base64url of 32 bytes


# --- methods, paths and media types ---------------------------------------------------------------------------------


async def test_ghsa_3988_q8q7_p787_fetching_a_mailed_link_changes_nothing(
    tmp_path: Path, auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """AshAuthentication: mail scanners confirmed accounts by following links."""
    await register(auth)
    await _reset_token(auth)
    link, before = urlsplit(auth.sender.messages[-1][2]["url"]), tables(tmp_path)
    for method in ("GET", "HEAD", "OPTIONS", "GET"):
        answer = await ask(plug, method, link.path, query=link.query.encode())
        assert answer["set-cookie"] is None

    assert tables(tmp_path) == before


async def test_cve_2026_82469_other_methods_return_no_credential(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """Rodauth (a token for any method), Flask-Security PYSEC-2021-91 (a token for a cross-site GET)."""
    _, token = await register(auth)
    for path in PATHS:
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post"):
            answer = await ask(plug, method, path, json=credentials(), cookie=f"user_session={token.cookie}")
            assert answer["set-cookie"] is None
            assert "eyJ" not in answer.text


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; x=application/json",
        "application/jsonx",
        "xapplication/json",
        "application/json+x",
        "application/json text/plain",
        "text/plain,application/json",
        "multipart/form-data;a=application/json",
    ],
)
async def test_cve_2026_82468_whole_media_type_is_compared(
    auth: LocalAuthentication, plug: AuthPlug[User], content_type: str
) -> None:
    """Rodauth (any type that contains ``application/json``), FastAPI CVE-2021-32677 (JSON in text/plain)."""
    await register(auth)
    body = json.dumps(credentials()).encode()

    assert (await ask(plug, "POST", SIGN_IN, body=body, headers={"content-type": content_type})).status == 415


@pytest.mark.parametrize("path", ["//auth/password/sign_in", "/auth//password/sign_in", "/auth/password%2fsign_in"])
async def test_ghsa_x732_6j76_qmhm_paths_are_not_normalised(
    auth: LocalAuthentication, plug: AuthPlug[User], path: str
) -> None:
    """Better Auth: another spelling of a path avoided disabled routes and limits."""
    await register(auth)

    assert (await post(plug, "/auth/password/sign_in", credentials(), raw_path=path.encode())).status == 404


@pytest.mark.parametrize("wanted", ["//evil.example", "/\\evil.example", "/%5cevil.example", "https://a@evil.example"])
async def test_cve_2026_82467_return_to_is_local(auth: LocalAuthentication, plug: AuthPlug[User], wanted: str) -> None:
    """Rodauth, Better Auth CVE-2024-56734, Flask-Security CVE-2023-49438: fixed incompletely several times."""
    request = start(plug, "POST", "/auth/sign_out", data={"return_to": wanted})
    await request.task

    assert request.answer["location"] is None
    assert plug.return_to(_with_params(wanted)) == "/"


def _with_params(wanted: str) -> Request:
    params = {"return_to": wanted}
    return Request({"type": "http", "query_string": b"", "headers": [], "asgi_auth.params": params})


async def test_cve_2026_40295_failures_never_redirect_to_the_referer(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """Devise: a time-out redirected the browser to a foreign Referer."""
    await register(auth)
    headers = {"referer": "https://evil.example/", "accept": "text/html"}
    for path in (*PATHS, "/auth/nothing"):
        for data in ({}, credentials(password=NEW_PASSWORD), {"token": "x", "reset_token": "x", **NEW}):
            answer = await post(plug, path, data, headers=headers)
            assert answer["location"] is None
            assert "evil.example" not in answer.text


# --- accounts -------------------------------------------------------------------------------------------------------


async def test_cve_2026_76949_two_credentials_are_not_mixed(auth: LocalAuthentication) -> None:
    """AshAuthentication: a planted second cookie swapped accounts."""
    (alice, first), (_, second) = await register(auth), await register(auth, OTHER_EMAIL)
    app, own = site(auth), f"user_session={first.cookie}"
    planted = [
        f"{name}={second.cookie}" for name in ("user_remember", "user_pending", "remember_me", "__Host-user_session")
    ]

    assert await seen_user(app, cookie="; ".join([own, *planted])) == alice.id
    assert await seen_user(app, cookie="; ".join(planted)) is None
    assert await seen_user(app, cookie=own, bearer=str(second)) == alice.id


async def test_cve_2025_61928_body_cannot_select_the_user(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """Better Auth: an id in the body replaced authentication."""
    user, _ = await register(auth)
    named = {"userId": user.id, "user_id": user.id, "id": user.id, "sub": f"user?id={user.id}", "user": {"id": user.id}}
    for path in PATHS[:-1]:
        answer = await ask(plug, "POST", path, json={**named, **NEW})
        assert answer.status == (401 if path.endswith("reauthenticate") else 422)
    assert (await post(plug, SIGN_IN, credentials())).status == 200


async def test_cve_2026_18963_no_new_password_without_the_mailbox(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """Keycloak: one path skipped the proof of the mailbox. Here no request without the token changes the password."""
    _, token = await register(auth)
    await post(plug, "/auth/password/reset_request", {"email": EMAIL})
    others = {"email": EMAIL, "token": token.cookie, "sid": token.session.id, **NEW}
    for form in (others, {**others, "reset_token": token.session.id}, {**others, "reset_token": str(token)}):
        await post(plug, RESET, form, cookie=f"user_session={token.cookie}", bearer=str(token))
    await post(plug, "/auth/password/register", {"email": EMAIL, **NEW})

    assert (await post(plug, SIGN_IN, credentials())).status == 200


async def test_ghsa_qq9h_g4jm_xgf3_reset_ends_a_planted_password(
    auth: LocalAuthentication, plug: AuthPlug[User]
) -> None:
    """Better Auth: an attacker who registered a victim's address first kept access. Here the owner's reset ends it."""
    _, planted = await register(auth)
    form = {"reset_token": await _reset_token(auth), **NEW}
    assert (await post(plug, RESET, form)).status == 200

    assert (await post(plug, SIGN_IN, credentials())).status == 401
    assert await seen_user(site(auth), bearer=str(planted)) is None
    found = await auth.accounts.find("email", EMAIL)
    assert found is not None
    assert found.account.confirmed_at is not None


@pytest.mark.parametrize(
    "address",
    [
        f"{EMAIL},mallory@evil.example",
        f"mallory@evil.example,{EMAIL}",
        f"{EMAIL};mallory@evil.example",
        f"{EMAIL}\nBcc: mallory@evil.example",
        f'"{EMAIL}" <mallory@evil.example>',
        f'"{EMAIL},mallory"@evil.example',
        f"{EMAIL}@evil.example",
        f"<{EMAIL}>",
        "alice\uff20mail.example.org",
        "alice\ufe6bmail.example.org",
        "alıce@mail.example.org",
    ],
)
async def test_cve_2022_35924_mail_goes_to_one_stored_address(
    auth: LocalAuthentication, plug: AuthPlug[User], address: str
) -> None:
    """Auth.js, also GHSA-5jpx-9hw9-2fx4 (quoted local parts) and CVE-2026-73420 (checked before normalising)."""
    await register(auth)
    await post(plug, "/auth/password/reset_request", {"email": address})

    assert auth.sender.messages == []


async def test_cve_2022_31127_markup_in_an_address_is_text(auth: LocalAuthentication, plug: AuthPlug[User]) -> None:
    """Auth.js: HTML in the address was rendered. Here it is rejected and never returned as markup."""
    for address in ("<a href=//evil.example>x</a>@mail.example.org", "<script>@mail.example.org"):
        for path in PATHS[:5]:
            form = {**registration(address), "token": address, "reset_token": address}
            answer = await post(plug, path, form, headers={"accept": "text/html"})
            assert answer.status in (303, 401, 422)  # 303: redirect to the sign-in
            assert "<a href=//" not in answer.text
            assert "<script" not in answer.text
