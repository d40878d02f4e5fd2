import os

from asgi_auth import Authentication, AuthPlug, BearerUserMiddleware, SessionUserMiddleware
from asgi_auth.senders import ConsoleSender
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password, Resettable
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Mount, Route

auth = Authentication(
    store=SQLiteStore("app.db"),
    secret=os.environ["AUTH_SECRET"],  # python -m asgi_auth secret
    base_url="http://localhost:8000",
    strategies=[Password(resettable=Resettable(sender=ConsoleSender()))],
)

class AppAuth(AuthPlug):
    async def handle_success(self, request, activity, user, token):
        response = RedirectResponse(self.return_to(request, default="/me"), status_code=303)
        self.store_in_session(response, token)
        return response

@requires("authenticated")
async def me(request):
    return JSONResponse({"email": request.user.email})

app = Starlette(
    routes=[Mount("/auth", AppAuth(auth)), Route("/me", me)],
    middleware=[Middleware(SessionUserMiddleware, auth=auth), Middleware(BearerUserMiddleware, auth=auth)],
    lifespan=auth.lifespan,
)
