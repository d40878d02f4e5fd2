"""Another look: the pages of the library with a template, a stylesheet and a logo of the application.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples restyled:app

then open http://localhost:8000. Accounts are kept in bakery.db in the current directory.
"""

import os
from html import escape

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from asgi_auth import Authentication, AuthPlug, Pages, SessionUserMiddleware, require
from asgi_auth.pages import Context
from asgi_auth.senders import ConsoleSender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable

TEMPLATE = """<!doctype html>
<html lang="$lang" dir="$dir">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
$head
</head>
<body>
<header>$header<p class="motto">Bread since 1924</p></header>
$content
</body>
</html>
"""

CSS = """
:root { --page: #fffaf3; --card: #fffaf3; --text: #2c2018; --soft: #6b5646; --accent: #8f3a12; --edge: #8d7868;
  font-family: Charter, Georgia, serif }
@media (prefers-color-scheme: dark) { :root { --page: #1d1712; --card: #1d1712; --text: #f3e9dd; --soft: #c4b09c;
  --accent: #f0a878; --on-accent: #2a1408; --edge: #8d7868 } }
body { display: grid; grid-template-columns: minmax(16rem, 2fr) 3fr; min-height: 100vh }
header { position: sticky; top: 0; height: 100vh; flex-flow: column; align-items: flex-start; padding: 2.5rem;
  border: 0; background: #4a2412; color: #fff4e6 }
.brand { font-size: 1.75rem; white-space: nowrap }
.logo { max-height: 3.5rem }
.motto { margin: 0; font-style: italic }
main { border: 0; align-self: center }
button, input { border-radius: 0 }
@media (max-width: 45rem) {
  body { display: block }
  header { position: static; height: auto; flex-flow: wrap; align-items: center; padding: 1rem }
  .brand { font-size: 1.25rem }
  .logo { max-height: 2rem }
}
"""

LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 32">
<path fill="#f0a878" d="M6 30a6 6 0 0 1-3-11C1 8 12 2 24 2s23 6 21 17a6 6 0 0 1-3 11z"/>
<path stroke="#4a2412" stroke-width="3" stroke-linecap="round" d="m14 10 4 9m5-11 4 9m5-9 4 8"/>
</svg>"""

auth = Authentication(
    store=SQLiteStore("bakery.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    app_name="Crumb & Crust",
    strategies=[Password(resettable=Resettable(sender=ConsoleSender()))],
    pages=Pages(template=TEMPLATE, css=CSS, logo="/logo.svg"),
)


async def logo(request: Request) -> Response:
    """The image that the pages show; their Content-Security-Policy allows it."""
    return Response(LOGO, media_type="image/svg+xml")


@require(redirect="/auth/password/sign_in")
async def home(request: Request) -> Response:
    """A page of the application in the same look. ``require`` redirects to the library's sign-in page first."""
    content = f'<p>Good morning, {escape(request.user.email)}.</p><p><a href="/auth/account">Your account</a></p>'
    page = auth.pages.page("Today: rye and walnut", content, Context(auth.app_name))
    return HTMLResponse(page.html, page.status, headers=page.headers)


app = Starlette(
    routes=[Route("/", home), Route("/logo.svg", logo), Mount("/auth", AuthPlug(auth))],
    middleware=[Middleware(SessionUserMiddleware, auth=auth)],
    lifespan=auth.lifespan,
)
