#!/usr/bin/env bash
# Starlette 1.3.1, starlette.testclient.TestClient: where a websocket with a relative address goes.
#
# Expected: `TestClient(app, base_url="https://site.example").websocket_connect("/hello")` goes to wss://site.example/hello,
# as `get("/hello")` of the same client goes to https://site.example/hello.
# Seen: it goes to ws://testserver/hello, whatever `base_url` is. A cookie that the client got by `get` is not sent with the
# handshake, because the host is another one, and a `Secure` cookie would not be sent to ws:// in any case.
# What it means: a test of a websocket behind a session cookie sees an anonymous user. Give the whole address.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q starlette==1.3.1 httpx==0.28.1

"$folder/venv/bin/python" -W ignore - >"$folder/seen" <<'PYTHON'
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient


async def page(request):
    response = PlainTextResponse(str(request.url))
    response.set_cookie("session", "1", secure=True)
    return response


async def hello(websocket):
    await websocket.accept()
    await websocket.send_json([str(websocket.url), list(websocket.cookies)])
    await websocket.close()


app = Starlette(routes=[Route("/page", page), WebSocketRoute("/hello", hello)])
client = TestClient(app, base_url="https://site.example")
print("get:", client.get("/page").text)
for address in ("/hello", "wss://site.example/hello"):
    with client.websocket_connect(address) as websocket:
        print(address, *websocket.receive_json())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
get: https://site.example/page
/hello ws://testserver/hello []
wss://site.example/hello wss://site.example/hello ['session']
SEEN
