"""The look of all pages, those of the library included: a menu at the top, and where the mails are."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asgi_auth.pages import Context, Pages
from asgi_auth.types import EMPTY

APP_NAME = "asgi_auth demo"
SIGN_IN = "/auth/password/sign_in"
REGISTER = "/auth/password/register"
_MAILS = '<p class="mails soft" lang="en" dir="ltr">The demo prints its mails in the terminal that runs it.</p>'


class DemoPages(Pages):
    """Draws the pages."""

    def __init__(self) -> None:
        super().__init__(account="/account", css=".mails { margin-top: 1.5rem; font-size: .875rem }")

    def header(self, context: Context) -> str:
        """The name of the demo, and a menu for who is signed in or for who is not."""
        if context.user is None:
            menu = f'<a href="{SIGN_IN}">Sign in</a><a href="{REGISTER}">Create an account</a>'
        else:
            sign_out = self.act(context, "/auth/sign_out", "Sign out")
            menu = f'<a href="/account">Account</a><a href="/invitations">Invitations</a>{sign_out}'
        return f'{super().header(context)}<nav aria-label="Main" lang="en" dir="ltr">{menu}</nav>'

    def layout(self, title: str, content: str, context: Context, **parts: Any) -> str:
        """The whole document; every page says where the mails are."""
        return super().layout(title, f"{content}\n{_MAILS}", context, **parts)

    def act(
        self, context: Context, action: str, text: str, *, unseen: str = "", hidden: Mapping[str, str] = EMPTY
    ) -> str:
        """A form of one button. *unseen*: what only screen readers add to its name."""
        fields = "".join(self.hide(hidden))
        return f'<form method="post" action="{action}">{fields}{self.button(text, context, unseen=unseen)}</form>'


def draw_time(at: datetime) -> str:
    """An instant, as HTML, in the time zone of this machine: the demo and its users are on the same one."""
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{say_time(at)}</time>'


def say_time(at: datetime) -> str:
    """An instant as text, as ``draw_time`` shows it."""
    local = at.astimezone()
    return f"{local.day} {local:%b %Y, %H:%M %Z}"
