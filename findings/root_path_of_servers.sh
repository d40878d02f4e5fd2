#!/usr/bin/env bash
# uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.9, gunicorn 27.0.1, daphne 4.2.3, with Starlette 1.10.0: the effect of
# the option for the root path on the path that an application sees.
#
# Expected: `path` includes `root_path` with every server, as ASGI requires.
# Seen: only uvicorn adds the prefix to `path`, even if the path already has it. The other servers pass the path on
# unchanged. Starlette finds the routes of the application in both cases, but the routes of a Mount only if `path` has
# the prefix. The last column shows the answer to a proxy that keeps the prefix.
# What it means: the proxy must strip the prefix for uvicorn, and keep it for the other servers.
set -euo pipefail

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3 starlette==1.10.0
cd "$folder"
cat >application.py <<'PYTHON'
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route


async def show(request):
    return PlainTextResponse(request.scope["path"])


app = Starlette(routes=[Route("/top", show), Mount("/mount", routes=[Route("/inner", show)])])
PYTHON

ask() {
    curl -s --unix-socket "$1.sock" -w ' %{http_code}' "http://localhost$2" | sed 's/^Not Found //'
}

start() {
    local name=$1
    shift
    "$folder/venv/bin/python" -m "$name" "$@" application:app >"$name.log" 2>&1 &
    for _ in $(seq 200); do
        ask "$name" /top >/dev/null 2>&1 && break
        sleep 0.1
    done
    echo "$name | $(ask "$name" /top) | $(ask "$name" /mount/inner) | $(ask "$name" /app/mount/inner)" | tee -a seen
}

start uvicorn --uds uvicorn.sock --root-path /app
start hypercorn --bind unix:hypercorn.sock --root-path /app
start granian --interface asgi --uds granian.sock --url-path-prefix /app
start gunicorn --worker-class asgi --no-control-socket --bind unix:gunicorn.sock --root-path /app
start daphne --unix-socket daphne.sock --root-path /app
diff seen - <<'SEEN'
uvicorn | /app/top 200 | /app/mount/inner 200 | 404
hypercorn | /top 200 | 404 | /app/mount/inner 200
granian | /top 200 | 404 | /app/mount/inner 200
gunicorn | /top 200 | 404 | /app/mount/inner 200
daphne | /top 200 | 404 | /app/mount/inner 200
SEEN
