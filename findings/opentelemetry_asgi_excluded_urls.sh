#!/usr/bin/env bash
# opentelemetry-instrumentation-asgi 0.66b1 (with -starlette 0.66b1): which requests are left out of the traces.
#
# Expected: the environment variable OTEL_PYTHON_EXCLUDED_URLS, which the documentation of the instrumentations describes
# as the one for all of them, also leaves out what `OpenTelemetryMiddleware` would record.
# Seen: StarletteInstrumentor obeys the variable. The middleware by itself reads no variable, neither this one nor
# OTEL_PYTHON_ASGI_EXCLUDED_URLS. It records the request, and `http.url` holds the whole query.
# What it means: an application that wraps itself with the middleware must give `excluded_urls=`, or a hook that removes
# the query. Otherwise every token of a mailed link is in the traces.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opentelemetry-instrumentation-asgi==0.66b1 opentelemetry-instrumentation-starlette==0.66b1 \
    opentelemetry-sdk==1.45.1 starlette==1.3.1

OTEL_PYTHON_EXCLUDED_URLS=/auth/ OTEL_PYTHON_ASGI_EXCLUDED_URLS=/auth/ "$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
import asyncio

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def application():
    async def reset(request):
        return PlainTextResponse("reset")

    return Starlette(routes=[Route("/auth/reset", reset)])


def instrumented(provider):
    app = application()
    StarletteInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


def recorded(instrument):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = instrument(provider)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/auth/reset", "raw_path": b"/auth/reset", "root_path": "", "query_string": b"token=secret",
        "headers": [(b"host", b"localhost")], "server": ("localhost", 80), "client": ("127.0.0.1", 50000),
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    asyncio.run(app(scope, receive, send))
    urls = [span.attributes["http.url"] for span in exporter.get_finished_spans() if "http.url" in span.attributes]
    return urls or "nothing"


print("StarletteInstrumentor:", recorded(instrumented))
print("middleware:", recorded(lambda provider: OpenTelemetryMiddleware(application(), tracer_provider=provider)))
print(
    "middleware, excluded_urls=:",
    recorded(lambda provider: OpenTelemetryMiddleware(application(), "/auth/", tracer_provider=provider)),
)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
StarletteInstrumentor: nothing
middleware: ['http://localhost/auth/reset?token=secret']
middleware, excluded_urls=: nothing
SEEN
