"""The path behind the mount, for every way of mounting."""

from collections.abc import Callable, MutableMapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, Router, asgi
from quart import Quart
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_auth.protocol.paths import mount_advice, mount_prefixes, public_path, split_path, wrapped_prefixes

SIGN_IN = ("password", "sign_in")


@pytest.mark.parametrize(
    ("raw_path", "segments"),
    [
        (b"/auth/password/sign_in", ("password", "sign_in")),
        (b"/auth/password/sign_in/", ("password", "sign_in")),
        (b"/auth/sign_out", ("sign_out",)),
        (b"/auth/sign_out/", ("sign_out",)),
        (b"/auth/password/reset?token=a/b//c%2f", ("password", "reset")),
        (b"/auth/password/reset/?token", ("password", "reset")),
        (b"/auth/Password/SIGN_IN", ("Password", "SIGN_IN")),
        (b"/auth/a.b~c-d_e/x..y", ("a.b~c-d_e", "x..y")),
        (b"/auth/auth/request", ("auth", "request")),
    ],
)
def test_split_path(raw_path: bytes, segments: tuple[str, ...]) -> None:
    """RP-6: one or two segments are valid, with one slash at the end; the query is removed and the case is kept."""
    assert split_path(raw_path, ["/auth"]) == segments


@pytest.mark.parametrize(
    "raw_path",
    [
        b"",
        b"/",
        b"*",
        b"/auth",
        b"/auth/",
        b"/auth?/password/sign_in",
        b"/authx/password/sign_in",
        b"/xauth/password/sign_in",
        b"/AUTH/password/sign_in",
        b"auth/password/sign_in",
        b"/auth/password/sign_in/more",
        b"/auth/password/sign_in//",
        b"/auth//password/sign_in",
        b"/auth/password//sign_in",
        b"//auth/password/sign_in",
        b"/auth/./sign_in",
        b"/auth/../sign_in",
        b"/auth/password/.",
        b"/auth/password/..",
        b"/auth/password/../sign_out",
        b"/auth/x/../password/sign_in",
        b"/x/../auth/password/sign_in",
        b"/auth/%2e/sign_in",
        b"/auth/%2e%2e/auth/password/sign_in",
        b"/auth/password%2fsign_in",
        b"/auth/pass%77ord/sign_in",
        b"/%61uth/password/sign_in",
        b"/auth/password/sign_in%00",
        b"/auth/password/sign_in%3f",
        b"/auth/password/sign_in\x00",
        b"/auth/password/sign_in\n",
        b"/auth/password/sign_in;x",
        b"/auth;x/password/sign_in",
        b"/auth/password/sign_in#x",
        b"/auth/password\\sign_in",
        b"/auth/pass word/sign_in",
        b"/auth/p\xc3\xa4ssword/sign_in",
        b"/auth/password@evil.example/sign_in",
        b"http://localhost/auth/password/sign_in",
        b"//evil.example/auth/password/sign_in",
        b"@evil.example/auth/password/sign_in",
    ],
    ids=repr,
)
def test_split_path_refuses(raw_path: bytes) -> None:
    """RP-6, HT-4: each path has only one spelling."""
    assert split_path(raw_path, ["/auth"]) is None


@pytest.mark.parametrize(
    ("raw_path", "prefixes", "segments"),
    [
        (b"/password/sign_in", [""], SIGN_IN),
        (b"/password/sign_in", [], None),
        (b"/api/auth/password/sign_in", ["/api/auth", "/auth", ""], SIGN_IN),
        (b"/auth/password/sign_in", ["/api/auth", "/auth", ""], SIGN_IN),
        (b"/auth/auth/auth", ["/auth/auth", "/auth", ""], ("auth",)),
        (b"/b%C3%BCcher/auth/password/sign_in", ["/bücher/auth"], SIGN_IN),
        (b"/\xed\xa0\x80/password/sign_in", ["/\ud800"], None),
    ],
)
def test_split_path_removes_the_first_prefix(
    raw_path: bytes, prefixes: list[str], segments: tuple[str, ...] | None
) -> None:
    """The first matching prefix is removed, as whole segments, in the encoding of browsers."""
    assert split_path(raw_path, prefixes) == segments


@given(st.binary(), st.lists(st.text()))
def test_split_path_never_raises(raw_path: bytes, prefixes: list[str]) -> None:
    """Any bytes give segments that need no encoding, or None."""
    segments = split_path(raw_path, prefixes)

    assert segments is None or all(segment and segment.isascii() for segment in segments)


SEGMENT = st.from_regex(r"[a-z][a-z0-9_.~-]{0,9}", fullmatch=True)


@given(st.lists(SEGMENT, min_size=1, max_size=2), st.lists(SEGMENT, max_size=2), st.sampled_from(["", "/", "?a=/b"]))
def test_split_path_round_trip(segments: list[str], mount: list[str], end: str) -> None:
    """Joined segments are split into the same segments."""
    prefix = "".join(f"/{segment}" for segment in mount)
    raw_path = (prefix + "/" + "/".join(segments) + end).encode()

    assert split_path(raw_path, mount_prefixes(prefix, "", prefix)) == tuple(segments)


# what servers and frameworks were seen to give: raw_path, root_path, app_root_path, mount_path
SEEN = [
    (b"/auth", "/auth", "", "/auth"),  # Starlette, FastAPI
    (b"/auth", "/auth", "", "/auth/"),
    (b"/v1/auth", "/v1/auth", "", "/auth"),  # nested mounts
    (b"/v1/auth", "/v1/auth", "", "/v1/auth"),
    (b"/acme/auth", "/acme/auth", "", "/auth"),  # Mount("/{tenant}/auth")
    (b"/auth", "/api/auth", "/api", "/auth"),  # FastAPI(root_path="/api") behind a proxy that strips
    (b"/auth", "/api/auth", "/api", "/api/auth"),
    (b"/api/auth", "/api/auth", "/api", "/auth"),  # ... that does not, and uvicorn --root-path /api
    (b"/api/auth", "/api/auth", "/api", "/api/auth"),
    (b"/api/auth", "/api/auth", "/api/", "/api/auth"),
    (b"/auth", "", "", "/auth"),  # Litestar, around Quart, bare ASGI
    (b"/v1/auth", "", "", "/v1/auth"),
    (b"/lit/auth", "/lit", "", "/auth"),  # Litestar below a Starlette mount
    (b"/lit/auth", "/lit", "", "/lit/auth"),
    (b"/api/auth", "/api", "", "/auth"),  # Litestar or bare ASGI under uvicorn --root-path /api
    (b"/api/auth", "/api", "", "/api/auth"),
    (b"/auth", "/api", "", "/api/auth"),  # a server that is told /api but does not add it
    (b"/auth", "/api", "", "/auth"),
    (b"/api/lit/auth", "/api/lit", "/api", "/auth"),  # all of it
    (b"/api/lit/auth", "/api/lit", "/api", "/lit/auth"),
    (b"/api/lit/auth", "/api/lit", "/api", "/api/lit/auth"),
    (b"/lit/auth", "/api/lit", "/api", "/lit/auth"),
    (b"/a/a", "/a", "", "/a/a"),
    (b"", "", "", ""),  # Host routing
    (b"", "", "", "/auth"),  # a dispatcher that strips raw_path, too
    (b"", "/auth", "", "/auth"),
    (b"/login", "/login", "", "/auth"),  # mounted elsewhere than configured
    (b"/apiary/auth", "/apiary/auth", "/api", "/auth"),
]


@pytest.mark.parametrize(("raw_path", "root_path", "app_root_path", "mount_path"), SEEN)
def test_mount_prefixes_find_the_mount(raw_path: bytes, root_path: str, app_root_path: str, mount_path: str) -> None:
    """RP-6: the same two segments under every way of mounting."""
    prefixes = mount_prefixes(root_path, app_root_path, mount_path)

    assert split_path(raw_path + b"/password/sign_in", prefixes) == ("password", "sign_in")
    assert split_path(raw_path + b"/sign_out", prefixes) == ("sign_out",)


def test_mount_prefixes_do_not_mistake_a_strategy_for_the_mount() -> None:
    """A strategy may have the same name as the mount."""
    assert mount_prefixes("/auth", "", "/auth") == ("/auth", "")
    assert split_path(b"/auth/auth/request", mount_prefixes("/auth", "", "/auth")) == ("auth", "request")
    assert split_path(b"/auth/auth/request", mount_prefixes("", "", "/auth")) == ("auth", "request")


@pytest.mark.parametrize(
    ("path", "root_path", "app_root_path", "public"),
    [
        ("/me", "", None, "/me"),
        ("/me", "/app", None, "/app/me"),  # hypercorn and others, told /app; the proxy strips it
        ("/app/me", "/app", None, "/app/me"),  # uvicorn; and the others where the proxy keeps it
        ("/app", "/app", None, "/app"),
        ("/", "/app", None, "/app/"),
        ("/apple", "/app", None, "/app/apple"),
        ("/me", "/app/", None, "/app/me"),
        ("/admin/me", "/app/admin", "/app", "/app/admin/me"),  # inside of one of Starlette's mounts
        ("/admin/me", "/admin", "", "/admin/me"),
        ("/me", "/admin", None, "/admin/me"),  # a dispatcher that strips the path
    ],
)
def test_public_path(path: str, root_path: str, app_root_path: str | None, public: str) -> None:
    """RD-1: the path that the browser requested, as far as the server knows it."""
    assert public_path(path, root_path, app_root_path) == public


@pytest.mark.parametrize(
    ("root_path", "mount_path", "prefixes"),
    [
        ("", "/auth", ("/auth",)),
        ("/app", "/app/auth", ("/app/auth", "/app/app/auth", "/auth")),
        ("/app/", "/auth", ("/auth", "/app/auth")),
        ("/auth", "/auth", ("/auth", "/auth/auth")),  # not all that a dispatcher has at /auth
    ],
)
def test_wrapped_prefixes(root_path: str, mount_path: str, prefixes: tuple[str, ...]) -> None:
    """RP-6: a plug in front of an application finds its own paths whatever the server and the proxy do."""
    assert wrapped_prefixes(root_path, mount_path) == prefixes


@pytest.mark.parametrize(
    ("mounted", "root_path", "app_root_path", "mount_path", "advice"),
    [
        ("/auth", "/auth", "", "/auth", None),
        ("/app/auth", "/app/auth", "/app", "/app/auth", None),  # uvicorn
        ("/auth", "/app/auth", "/app", "/app/auth", None),  # hypercorn and others
        ("/auth", "/app", None, "/app/auth", None),  # the same, around an application
        ("/app/auth", "", None, "/auth", None),  # a proxy may add it
        ("", "", None, "/auth", None),
        ("", "/auth", None, "/auth", None),
        (
            "/login",
            "/login",
            "",
            "/auth",
            "mount_path: links go to /auth, but the plug is at /login: give the same to both",
        ),
        (
            *("/app/auth", "/app/auth", "/app", "/auth"),
            "mount_path: the server has root_path /app, and links go to /auth: give mount_path='/app/auth'",
        ),
        (
            *("/auth", "/app/auth", "/app/", "/auth"),
            "mount_path: the server has root_path /app, and links go to /auth: give mount_path='/app/auth'",
        ),
        (
            *("/app/app/auth", "/app", None, "/app/auth"),
            "root_path: the server adds /app, and the proxy keeps it: do not give it to the server",
        ),
        (
            *("/auth", "/auth", "", "/app/auth"),
            "root_path: links go to /app/auth, and requests come to /auth. If a proxy cuts /app off, give the server "
            "root_path /app, or return_to of require(redirect=...) lacks it",
        ),
    ],
)
def test_mount_advice(
    mounted: str, root_path: str, app_root_path: str | None, mount_path: str, advice: str | None
) -> None:
    """The advice for each mistake names the setting that fixes it."""
    assert mount_advice(mounted, root_path, app_root_path, mount_path) == advice


# the frameworks themselves


class Probe:
    """Records the scope."""

    def __init__(self) -> None:
        self.scope: MutableMapping[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = dict(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _bare(probe: Probe) -> Any:
    return probe


def _starlette(probe: Probe) -> Any:
    return Starlette(routes=[Mount("/auth", probe)])


def _starlette_nested(probe: Probe) -> Any:
    return Starlette(routes=[Mount("/v1", routes=[Mount("/auth", probe)])])


def _fastapi(probe: Probe) -> Any:
    app = FastAPI()
    app.mount("/auth", probe)
    return app


def _fastapi_with_root_path(probe: Probe) -> Any:
    app = _fastapi(probe)
    app.root_path = "/api"  # as FastAPI(root_path=…), which newer ones warn of
    return app


def _fastapi_nested(probe: Probe) -> Any:
    app = FastAPI()
    app.mount("/v1", _fastapi(probe))
    return app


def _litestar_handler(probe: Probe) -> Any:
    async def serve(scope: Any, receive: Any, send: Any) -> None:  # Litestar copies handlers, and objects with them
        await probe(scope, receive, send)

    return asgi("/auth", is_mount=True, copy_scope=True)(serve)


def _litestar(probe: Probe) -> Any:
    return Litestar([_litestar_handler(probe)])


def _litestar_router(probe: Probe) -> Any:
    return Litestar([Router("/v1", route_handlers=[_litestar_handler(probe)])])


def _litestar_in_starlette(probe: Probe) -> Any:
    return Starlette(routes=[Mount("/lit", _litestar(probe))])


def _quart(probe: Probe) -> Any:
    app = Quart(__name__)
    app.asgi_app = probe  # type: ignore[method-assign]  # as Quart's documentation wraps middleware
    return app


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("build", "url", "mount_path"),
    [
        (_bare, "/auth", "/auth"),
        (_starlette, "/auth", "/auth"),
        (_starlette_nested, "/v1/auth", "/auth"),
        (_fastapi, "/auth", "/auth"),
        (_fastapi_with_root_path, "/auth", "/auth"),
        (_fastapi_nested, "/v1/auth", "/v1/auth"),
        (_litestar, "/auth", "/auth"),
        (_litestar_router, "/v1/auth", "/v1/auth"),
        (_litestar_in_starlette, "/lit/auth", "/lit/auth"),
        (_quart, "/auth", "/auth"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_frameworks_mount_as_expected(
    build: Callable[[Probe], Any], url: str, mount_path: str, root_path: str
) -> None:
    """The frameworks behave as the table above says, with and without a root path of the server."""
    probe = Probe()
    transport = httpx.ASGITransport(build(probe), root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.get(f"{root_path}{url}/password/sign_in?a=/b")

    prefixes = mount_prefixes(probe.scope["root_path"], probe.scope.get("app_root_path", ""), mount_path)
    assert split_path(probe.scope["raw_path"], prefixes) == ("password", "sign_in")
