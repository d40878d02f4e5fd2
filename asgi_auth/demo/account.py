"""The account page: the address, a change of it that waits to be confirmed, and the sessions."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from asgi_auth import User
from asgi_auth.demo.drawing import draw_time
from asgi_auth.pages import button
from asgi_auth.types import Session

_BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac", "Linux")
_WAITING = "We have sent a link to it. Until you open that, the address above stays."


def draw_address(user: User, pending: str | None) -> str:
    """The address in force and, if there is one, that which is to take its place."""
    change = '<a class="button plain" href="/account/address">Change</a>'
    rows = [_row(user.email or "None yet", _confirmed(user.confirmed_at), change)]
    if pending is not None:
        again, cancel = "/auth/confirmation/resend", "/auth/confirmation/cancel"
        which = f"the change to {escape(pending)}"
        acts = button(again, "Send again", unseen=f"for {which}") + button(cancel, "Cancel", unseen=which)
        rows.append(_row(pending, _WAITING, f'<div class="acts">{acts}</div>', badge="Not confirmed yet"))
    return f'<h2>Your address</h2>\n<ul class="rows">{"".join(rows)}</ul>'


def _row(address: str, text: str, acts: str, *, badge: str = "") -> str:
    mark = f' <span class="badge waits">{badge}</span>' if badge else ""
    return f'<li><div><strong>{escape(address)}</strong>{mark}<p class="soft">{text}</p></div>{acts}</li>'


def _confirmed(at: datetime | None) -> str:
    return "Not confirmed" if at is None else f"Confirmed {draw_time(at)}"


def draw_sessions(sessions: Sequence[Session], current: Session) -> str:
    """The list of sessions, this one first and marked, each other one with a button to end it."""
    others = [session for session in sessions if session.id != current.id]
    rows = [_session(current, '<span class="badge">This session</span>')]
    for session in others:
        which = f"the session of {escape(device_name(session.label))}, signed in {draw_time(session.created_at)}"
        rows.append(_session(session, button(f"/account/end/{session.id}", "End", unseen=which)))
    more = button("/account/end_others", "End all other sessions") if others else ""
    return f'<h2>Your sessions</h2>\n<ul class="rows">{"".join(rows)}</ul>\n{more}'


def _session(session: Session, act: str) -> str:
    times = f"Signed in {draw_time(session.created_at)}<br>Last seen {draw_time(session.last_seen_at)}"
    kept = f"<br>Kept until {draw_time(session.expires_at)}" if session.remembered else ""
    device = escape(device_name(session.label))
    return f'<li><div><strong>{device}</strong><p class="soft">{times}{kept}</p></div>{act}</li>'


def device_name(label: str) -> str:
    """What people call the device that a User-Agent describes; the label itself where it is none of a browser."""
    browser = next((name for mark, name in _BROWSERS.items() if mark in label), None)
    system = next((name for name in _SYSTEMS if name in label), "another system")
    return f"{browser} on {system}" if browser else label or "Unknown device"
