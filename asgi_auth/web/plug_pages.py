"""The pages of the plug, and the links between them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from asgi_auth.authentication import Authentication
from asgi_auth.errors import (
    AuthenticationFailedError,
    AuthError,
    NotFreshError,
    RateLimitedError,
    RouteNotFoundError,
    UnavailableError,
    ValidationError,
)
from asgi_auth.messages import Message
from asgi_auth.pages import Context, Drawn, origin_of
from asgi_auth.phases import Form, Phase, View
from asgi_auth.protocol.return_to import safe_return_to
from asgi_auth.types import EMPTY, Activity
from asgi_auth.web.answers import draw
from asgi_auth.web.incoming import Incoming
from asgi_auth.web.routing import ACCOUNT, SIGN_OUT, Routing

_INCOMPLETE = Message("form.incomplete_link", "This link is incomplete. Ask for a new one.")
_BUSY = Message("form.busy", "The service is busy at the moment. Nothing was changed. Try again in a few seconds.")
_SECONDS = Message(
    "form.wait_seconds",
    "Too many attempts. Try again in {count} second.",
    "Too many attempts. Try again in {count} seconds.",
    count=1,
)
_MINUTES = Message(
    "form.wait_minutes",
    "Too many attempts. Try again in {count} minute.",
    "Too many attempts. Try again in {count} minutes.",
    count=1,
)
_HOURS = Message(
    "form.wait_hours",
    "Too many attempts. Try again in {count} hour.",
    "Too many attempts. Try again in {count} hours.",
    count=1,
)
_UNITS = ((_HOURS, 3600), (_MINUTES, 60), (_SECONDS, 1))
TO_ACCOUNT = Message("link.account", "Your account")
CONTINUE = Message("link.continue", "Continue")
_START = Message("link.start", "Start page")
_SIGN_OUT_FORM = Form(title="", button=Message("button.sign_out", "Sign out"), action=SIGN_OUT)


class PlugPages:
    """Draws the forms, views and messages of one plug."""

    def __init__(self, auth: Authentication[Any], routing: Routing) -> None:
        self._auth, self._routing, self._pages = auth, routing, auth.pages
        self.account_path = auth.pages.account or routing.path(ACCOUNT)
        self._form_action = tuple(dict.fromkeys(filter(None, map(origin_of, sorted(auth.allowed_return_to)))))

    def context(self, incoming: Incoming) -> Context:
        """The context that all parts of the page share."""
        user = incoming.known.user if incoming.is_signed_in else None
        return Context(self._auth.app_name, incoming.locale, incoming.say, self._form_action, user)

    # --- pages

    def message(
        self, title: str, text: str, incoming: Incoming, *, status: int = 200, links: Mapping[str, str] = EMPTY
    ) -> Response:
        """A page with one message and links to the next pages."""
        context = self.context(incoming)
        parts = [self._pages.message(text, context)] if text else []
        parts += [self._pages.links(links, context)] if links else []
        return draw(self._pages.page(title, "\n".join(parts), context, status=status))

    def failure(self, reason: AuthError, incoming: Incoming, *, links: Mapping[str, str]) -> Response:
        """A page that says what was refused, and what the user can do now."""
        fields = " ".join(map(incoming.say, reason.fields.values()))
        advice = _wait(reason) if isinstance(reason, RateLimitedError) else reason.detail or reason.advice
        if isinstance(reason, RouteNotFoundError):
            links = {self._pages.home: _START}
        return self.message(reason.title, fields or advice, incoming, status=reason.status, links=links)

    def form(
        self, form: Form, activity: Activity, incoming: Incoming, values: Mapping[str, Any], reason: AuthError | None
    ) -> Response:
        """The page of *form*. Hidden fields pass on the token of the mailed link and ``return_to``."""
        context = self.context(incoming)
        drawn = self._drawn(form, activity, incoming, values=values, reason=reason)
        parts = [self._pages.form(drawn, context)]
        links = self._links_of(activity, incoming) if form.token is None else {}
        parts += [self._pages.links(links, context)] if links else []
        status = 200 if reason is None else reason.status
        page = self._pages.page(
            form.title, "\n".join(parts), context, status=status, holds_token=form.token is not None
        )
        return draw(page)

    def view(
        self,
        view: View,
        activity: Activity,
        incoming: Incoming,
        *,
        failed: Activity | None = None,
        reason: AuthError | None = None,
    ) -> Response:
        """The page of a view, with its forms.

        Args:
            view: The view to show.
            activity: The activity of the view.
            incoming: The request.
            failed: The activity whose form was refused and is drawn again.
            reason: Why it was refused; None: no form was refused.
        """
        context, parts, number = self.context(incoming), list[str](), 0
        offered = {posts_to for _, posts_to in self._forms_of(view, activity)}
        if reason is not None and failed is not None and failed not in offered:
            told = " ".join(map(incoming.say, reason.fields.values())) or reason.title  # no such form any more
            parts.append(self._pages.message(told, context, kind="problem"))
        for section in (view, *view.parts):
            if section is not view and section.title:
                parts.append(self._pages.heading(section.title, context))
            drawn = list[Drawn]()
            for form, posts_to in self._forms_of(section, activity):
                again = reason if posts_to == failed and form.fields else None
                drawn.append(self._of_view(form, posts_to, incoming, view=section, number=number, reason=again))
                number += 1
            parts.append(self._pages.view(section, drawn, context))
        status = 200 if reason is None else reason.status
        page = self._pages.page(view.title, "\n".join(parts), context, status=status, holds_token=bool(view.token))
        return draw(page)

    def _of_view(
        self, form: Form, posts_to: Activity, incoming: Incoming, *, view: View, number: int, reason: AuthError | None
    ) -> Drawn:
        values = EMPTY if reason is None else incoming.shown
        drawn = self._drawn(form, posts_to, incoming, values=values, reason=reason)
        hidden = {name: text for name, text in drawn.hidden.items() if name == "return_to"}
        token = {} if form.token is None else {form.token: view.token}
        look = "main-act" if form.fields or (view.token and not number) else "plain"
        prefix = f"{number}-" if number else ""
        return drawn._replace(hidden=hidden | token, look=look, prefix=prefix)

    def _forms_of(self, view: View, activity: Activity) -> Iterator[tuple[Form, Activity]]:
        """The forms that a view offers, each with the activity that it posts to."""
        for (name, _), phase in self._auth.routes.items():
            offered = not view.strategies or name in view.strategies
            if view.registers and offered and phase.registers is not None:
                yield phase.registers, Activity(name, phase.name)
            if view.signs_in and _is_sign_in(phase) and phase.form is not None:
                token = next((form.token for form in view.forms if form.token is not None), None)
                yield replace(phase.form, title="", text="", token=token), Activity(name, phase.name)
        for form in view.forms:
            yield form, form.action or activity

    def _drawn(
        self, form: Form, activity: Activity, incoming: Incoming, *, values: Mapping[str, Any], reason: AuthError | None
    ) -> Drawn:
        hidden = {} if form.token is None else {form.token: incoming.token_of(form)}
        if return_to := self.return_to(incoming):
            hidden["return_to"] = return_to
        return Drawn(
            form,
            self._routing.path(form.action or activity),
            hidden=hidden,
            values=values,
            problem="" if reason is None else self._problem(form, reason, incoming),
            problems=EMPTY if reason is None else reason.fields,
        )

    def _problem(self, form: Form, reason: AuthError, incoming: Incoming) -> str:
        """The error above the form: about the credentials, the link, parameters without a field, or the fields."""
        if isinstance(reason, ValidationError):
            if form.token in reason.fields:
                return _INCOMPLETE
            seen = {field.name for field in form.fields}
            unseen = [text for name, text in reason.fields.items() if name not in seen]
            return " ".join(map(incoming.say, unseen)) or reason.title
        if isinstance(reason, RateLimitedError):
            return _wait(reason)
        if isinstance(reason, UnavailableError):
            return _BUSY
        return form.refused or reason.title

    # --- links between pages

    def return_to(self, incoming: Incoming) -> str:
        """The page that the user wanted, if it is allowed (RD-1); empty if there is none."""
        return safe_return_to(incoming.return_to, allowed=self._auth.allowed_return_to) or ""

    def of_factor(self, factors: Iterable[str], incoming: Incoming) -> str | None:
        """The page where the user proves one of these factors; None if the library has no such page."""
        names = frozenset[str | None](factors)
        pages = (
            self._routing.path(activity)
            for activity, phase in self._routes()
            if activity.strategy in names and phase.who == "pending" and phase.page
        )
        return self._going_on(next(pages, None), self.return_to(incoming))

    def way_round(self, incoming: Incoming, reason: AuthError) -> str | None:
        """The page that the user has to visit first, to sign in or to prove a factor again; None if there is none."""
        phase = incoming.phase
        of_link = phase is not None and phase.form is not None and phase.form.token is not None
        needs_session = incoming.activity == ACCOUNT or (phase is not None and phase.who == "session" and not of_link)
        if isinstance(reason, NotFreshError):
            who = "session"
        elif needs_session and isinstance(reason, AuthenticationFailedError) and not incoming.is_signed_in:
            who = "anyone"
        else:
            return None
        pages = (
            self._routing.path(activity) for activity, phase in self._routes() if phase.proves and phase.who == who
        )
        is_page = incoming.activity == ACCOUNT or (phase is not None and phase.page)
        back = self._routing.path(incoming.activity) if is_page else self.account_path
        return self._going_on(next(pages, None), back)

    def _going_on(self, page: str | None, return_to: str) -> str | None:
        return f"{page}?{urlencode({'return_to': return_to})}" if page is not None and return_to else page

    def _routes(self) -> Iterator[tuple[Activity, Phase]]:
        for (name, _), phase in self._auth.routes.items():
            yield Activity(name, phase.name), phase

    def _pages_for(self, who: Iterable[str]) -> Iterator[tuple[Activity, Form]]:
        """The pages that the user can open without a mailed link."""
        for activity, phase in self._routes():
            if phase.page and phase.form is not None and phase.form.token is None and phase.who in who:
                yield activity, phase.form

    def _links_of(self, activity: Activity, incoming: Incoming) -> dict[str, str]:
        """Links from the page of a form to other pages that the user may want."""
        if incoming.phase is not None and incoming.phase.who == "session":
            return {self.account_path: TO_ACCOUNT}
        return self.for_strangers(incoming, but=activity)

    def for_strangers(self, incoming: Incoming, *, but: Activity | None = None) -> dict[str, str]:
        """Links for users who are not signed in. Sign-in pages come first."""
        pages = [(other, form) for other, form in self._pages_for(("anyone", "known")) if other != but]
        pages.sort(key=lambda page: not self._proves(page[0]))
        return_to = self.return_to(incoming)
        return {str(self._going_on(self._routing.path(other), return_to)): form.title for other, form in pages}

    def next_links(self, incoming: Incoming) -> dict[str, str]:
        """Links after a success or a failure, such as to the sign-in page or to a page for another link."""
        return_to, signed_in = self.return_to(incoming), incoming.is_signed_in
        ways: dict[str, str] = {self.account_path: TO_ACCOUNT} if signed_in else self.for_strangers(incoming)
        if return_to or signed_in or not ways:
            ways = {return_to or self._auth.pages.home: CONTINUE, **ways}
        return ways

    # --- the page of the account

    async def account(self, user: Any, name: str) -> View:
        """The view of ``/auth/account``: what the user can do."""
        own = [(activity, form) for activity, form in self._pages_for(("session",)) if not self._proves(activity)]
        parts = [part for hook in self._auth.services.hooks if (part := await hook.account(user)) is not None]
        return View(
            {"subject": self._auth.tokens.subject(self._auth.accounts.user_id(user)), "name": name},
            title=TO_ACCOUNT,
            text=Message("account.signed_in", "You are signed in as {name}.", name=name),
            parts=(
                *parts,
                View({}, links={self._routing.path(activity): form.title for activity, form in own}),
                View({}, forms=(_SIGN_OUT_FORM,)),
            ),
        )

    def _proves(self, activity: Activity) -> bool:
        return self._auth.routes[activity.strategy or "", activity.phase or ""].proves


def _is_sign_in(phase: Phase) -> bool:
    return phase.proves and phase.who == "anyone"


def _wait(reason: RateLimitedError) -> Message:
    """The time to wait, rounded up: ``in 40 seconds``, ``in 3 minutes``."""
    seconds = int(reason.headers.get("Retry-After", "1"))
    message, size = next(unit for unit in _UNITS if seconds > unit[1] or unit[1] == 1)
    return message.given(count=-(-seconds // size))
