"""The pages that the plug draws by itself, and their addresses."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from asgi_auth.authentication import Authentication
from asgi_auth.pages import form_page, message_page, view_page
from asgi_auth.phases import Form, View
from asgi_auth.protocol.return_to import safe_return_to
from asgi_auth.types import EMPTY, Activity
from asgi_auth.web.answers import draw
from asgi_auth.web.incoming import Incoming
from asgi_auth.web.routing import Routing


class PlugPages:
    """Draws the forms, views and messages of one plug."""

    def __init__(self, auth: Authentication[Any], routing: Routing) -> None:
        self._auth, self._routing = auth, routing

    def message(self, title: str, text: str, *, status: int = 200) -> Response:
        """A page that says one thing."""
        return draw(message_page(title, text, app_name=self._auth.app_name, status=status))

    def view(self, view: View, activity: Activity) -> Response:
        """Something to look at, with what can be done about it."""
        forms = [(form, self._routing.path(form.action or activity)) for form in view.forms]
        return draw(view_page(view, [*self._registrations(view), *forms], app_name=self._auth.app_name))

    def of_factor(self, factors: Iterable[str], incoming: Incoming) -> str | None:
        """Where a person shows one of these factors, and goes on from; None: on no page of the library."""
        pages = (
            self._routing.path(Activity(name, phase.name))
            for (name, _), phase in self._auth.routes.items()
            if name in factors and phase.who == "pending" and phase.page
        )
        page = next(pages, None)
        wanted = safe_return_to(incoming.return_to, allowed=self._auth.allowed_return_to)
        return page if page is None or wanted is None else f"{page}?{urlencode({'return_to': wanted})}"

    def _registrations(self, view: View) -> list[tuple[Form, str]]:
        """The forms of every registration that a view offers, with where they post to."""
        return [
            (phase.registers, self._routing.path(Activity(name, phase.name)))
            for (name, _), phase in self._auth.routes.items()
            if view.registers and phase.registers is not None and (not view.strategies or name in view.strategies)
        ]

    def form(
        self,
        form: Form,
        activity: Activity,
        sent: Mapping[str, Any],
        *,
        problems: Mapping[str, str] = EMPTY,
        status: int = 200,
    ) -> Response:
        """The page of *form*; the token of the mailed link, in *sent* by query or form, goes on in it."""
        token = sent.get(form.token) if form.token is not None else None
        page = form_page(
            form,
            action=self._routing.path(activity),
            token=token if isinstance(token, str) else "",
            return_to=safe_return_to(sent.get("return_to"), allowed=self._auth.allowed_return_to) or "",
            app_name=self._auth.app_name,
            problems=problems,
            status=status,
        )
        return draw(page)
