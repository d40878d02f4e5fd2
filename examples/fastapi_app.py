"""FastAPI with bearer tokens: the guard is a dependency, and /docs shows a lock where it is used.

From the root of the repository:

    AUTH_SECRET=$(python -m asgi_auth secret) uvicorn --app-dir examples fastapi_app:app

    curl localhost:8000/auth/password/register -H 'Accept: application/json' -d email=you@mail.example.org \
        -d password='violet harbour pendulum' -d password_confirmation='violet harbour pendulum'

Put the token of the answer into the "Authorize" box of http://localhost:8000/docs.
Accounts are kept in fastapi.db in the current directory.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from asgi_auth import Authentication, AuthPlug, BearerUserMiddleware, User, require
from asgi_auth.stores import SQLiteStore
from asgi_auth.strategies import Password

auth = Authentication(
    store=SQLiteStore("fastapi.db"),
    secret=os.environ["AUTH_SECRET"],
    base_url="http://localhost:8000",
    strategies=[Password()],
)

app = FastAPI(title="Notes", lifespan=auth.lifespan)
app.add_middleware(BearerUserMiddleware, auth=auth)
app.mount("/auth", AuthPlug(auth))

SignedIn = Annotated[User, Depends(require())]
"""The signed-in user; 401 for an anonymous client. ``require("admin")`` would require a scope as well."""


@app.get("/me")
async def me(user: SignedIn) -> dict[str, str | None]:
    """The signed-in user."""
    return {"id": user.id, "email": user.email}


@app.get("/health")
async def health() -> dict[str, str]:
    """Open to all clients: no lock in /docs."""
    return {"status": "ok"}
