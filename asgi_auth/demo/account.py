"""The account page: who is signed in, the address, a change of it that waits, the password, and the sessions."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from asgi_auth import User
from asgi_auth.demo.pages import DemoPages, draw_time, say_time
from asgi_auth.pages import Context
from asgi_auth.types import Session

_BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac", "Linux")


class AccountPage:
    """Draws the page for the user of *context*."""

    def __init__(self, pages: DemoPages, context: Context) -> None:
        self._pages, self._context, self._user = pages, context, context.user

    def draw(self, pending: str | None, sessions: Sequence[Session], current: Session) -> str:
        """All of it. *pending*: the address that is to take the place of the one in force; None: no change waits."""
        who = f"<p>You are signed in as <strong>{escape(self._user.display_name)}</strong>.</p>"
        return f"{who}\n{self._address(pending)}\n{self._password()}\n{self._sessions(sessions, current)}"

    def _address(self, pending: str | None) -> str:
        user: User = self._user
        change = '<a class="button plain" href="/auth/confirmation/change_email">Change</a>'
        rows = [_row(escape(user.email or "None yet"), _confirmed(user.confirmed_at), change)]
        if pending is not None:
            which = f"the change to {pending}"
            again = self._act("/auth/confirmation/resend", "Send again", f"the link for {which}")
            cancel = self._act("/auth/confirmation/cancel", "Cancel", which)
            address = f'{escape(pending)}</strong> <strong class="badge waits">Not confirmed yet'
            waits = "Open the link in the mail to this address. Until then, the address above stays."
            rows.append(_row(address, waits, f'<div class="acts">{again}{cancel}</div>'))
        return _rows("Your address", rows)

    def _password(self) -> str:
        """There is a page to choose one for people with a link, which proves that the mail is read by them."""
        hidden = {"email": self._user.email or ""}
        act = self._pages.act(self._context, "/auth/password/reset_request", "Change", unseen="password", hidden=hidden)
        return _rows("Your password", [_row("Password", "We send you a link to choose another one.", act)])

    def _sessions(self, sessions: Sequence[Session], current: Session) -> str:
        others = [session for session in sessions if session.id != current.id]
        rows = [_session(current, '<span class="badge">This session</span>')]
        for session in others:
            which = f"the session of {device_name(session.label)}, signed in {say_time(session.created_at)}"
            rows.append(_session(session, self._act(f"/account/end/{session.id}", "End", which)))
        more = self._act("/account/end_others", "End all other sessions") if others else ""
        return f"{_rows('Your sessions', rows)}\n{more}"

    def _act(self, action: str, text: str, unseen: str = "") -> str:
        return self._pages.act(self._context, action, text, unseen=unseen)


def _rows(title: str, rows: Sequence[str]) -> str:
    return f'<h2>{title}</h2>\n<ul class="rows">{"".join(rows)}</ul>'


def _row(name: str, text: str, act: str) -> str:
    return f'<li><div><strong>{name}</strong><p class="soft">{text}</p></div>{act}</li>'


def _session(session: Session, act: str) -> str:
    times = f"Signed in {draw_time(session.created_at)}<br>Last seen {draw_time(session.last_seen_at)}"
    kept = f"<br>Kept until {draw_time(session.expires_at)}" if session.remembered else ""
    return _row(escape(device_name(session.label)), times + kept, act)


def _confirmed(at: datetime | None) -> str:
    return "Not confirmed" if at is None else f"Confirmed {draw_time(at)}"


def device_name(label: str) -> str:
    """The name of the device that a User-Agent describes; the label itself if it is not from a browser."""
    browser = next((name for mark, name in _BROWSERS.items() if mark in label), None)
    system = next((name for name in _SYSTEMS if name in label), "another system")
    return f"{browser} on {system}" if browser else label or "Unknown device"
