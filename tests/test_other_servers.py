"""Every supported server: the behaviour that the library relies on and ``docs/running.md`` describes."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.other_servers import KINDS, Kind, server_process
from tests.served import real_auth
from tests.servers import say_hello
from tests.support import BASE_URL, EMAIL, credentials, register, registration

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.mark.parametrize("uds", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("kind", KINDS)
async def test_server_signs_people_in(kind: Kind, uds: bool, tmp_path: Path) -> None:
    """A client registers, reads its user and signs in, on a loopback port and on a UNIX socket."""
    async with (
        server_process(kind, "tests.served_apps:by_application", directory=tmp_path, uds=uds) as server,
        server.client() as client,
    ):
        registered = await client.post("/auth/password/register", data=registration())
        me = await client.get("/me")
        signed_in = await client.post("/auth/password/sign_in", data=credentials())

    assert (registered.status_code, me.json()["email"], signed_in.status_code) == (200, EMAIL, 200)


@pytest.mark.parametrize("kind", KINDS)
async def test_server_refuses_and_opens_websockets(kind: Kind, tmp_path: Path) -> None:
    """WS-1: no credential or another site's cookie is refused; a bearer token and our site's cookie are accepted."""
    async with (
        server_process(kind, "tests.served_apps:by_application", directory=tmp_path) as server,
        server.client() as client,
    ):
        registered = await client.post(
            "/auth/password/register", data=registration(), headers={"Accept": "application/json"}
        )
        await client.post("/auth/password/sign_in", data=credentials())
        bearer = {"Authorization": f"Bearer {registered.json()['token']}"}
        cookie = {"Cookie": f"user_session={client.cookies['user_session']}", "Origin": BASE_URL}
        tries: tuple[dict[str, str], ...] = ({}, {**cookie, "Origin": "https://mail.example.net"}, bearer, cookie)
        said = [await say_hello(f"{server.url}/mine", headers) for headers in tries]

    assert said == [403, 403, EMAIL, EMAIL]


UNAVAILABLE: Mapping[Kind, int] = {"uvicorn": 503, "hypercorn": 503, "granian": 503, "gunicorn": 403, "daphne": 403}
"""The status of such a handshake: 403 if the server does not send the application's answer."""


@pytest.mark.parametrize("kind", KINDS)
async def test_server_refuses_a_websocket_whose_credential_cannot_be_checked(kind: Kind, tmp_path: Path) -> None:
    """The handshake is refused with the status that the server supports, and the server logs no traceback."""
    (tmp_path / "app.db").mkdir()
    (tmp_path / "other").mkdir()
    other = real_auth(tmp_path / "other")
    _, token = await register(other)
    await other.close()

    async with server_process(kind, "tests.served_apps:without_lifespan", directory=tmp_path) as server:
        said = await say_hello(f"{server.url}/stay", {"Authorization": f"Bearer {token}"})
        await server.stop()

    assert said == UNAVAILABLE[kind]
    assert "a credential could not be checked: sqlite: SQLITE_CANTOPEN" in server.printed()
    assert "Traceback" not in server.printed()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gunicorn"])
async def test_stop_with_an_open_websocket_closes_the_store(kind: Kind, tmp_path: Path) -> None:
    """The database has no log left. Gunicorn is left out: it waits for the client and skips the lifespan."""
    async with (
        server_process(kind, "tests.served_apps:staying", directory=tmp_path) as server,
        server.client() as client,
    ):
        registered = await client.post(
            "/auth/password/register", data=registration(), headers={"Accept": "application/json"}
        )
        await client.aclose()
        bearer = {"Authorization": f"Bearer {registered.json()['token']}"}
        async with connect(f"{server.url.replace('http', 'ws', 1)}/stay", additional_headers=bearer, proxy=None) as ws:
            assert await ws.recv() == EMAIL
            await server.stop()

    assert sorted(os.listdir(tmp_path)) == ["app.db", f"{kind}.log"], server.printed()
