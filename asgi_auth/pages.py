"""Pages: draws forms and views as plain HTML, without scripts, in no frame (CF-8). No Starlette.

Each part of a page is a method, for a subclass to override. What a method returns is HTML, so it escapes what it is
given; the texts come translated.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from asgi_auth.errors import ConfigurationError
from asgi_auth.messages import ENGLISH, Message, direction_of
from asgi_auth.page_style import STYLE
from asgi_auth.phases import Form, FormField, View
from asgi_auth.types import EMPTY

TOKEN_PAGE_POLICY = "strict-origin"
"""The Referrer-Policy of a page with a token in its URL. The form that it posts does not send this URL on."""

_ERROR = Message("page.error", "Error: {title}")
_AS_TYPED = ' autocapitalize="none" autocorrect="off" spellcheck="false"'
_PARTS = frozenset({"lang", "dir", "title", "head", "header", "content"})
_OPTIONAL = frozenset({"header"})
_DIRECTIVE = re.compile(r"(?!default-)[a-z-]+-src(-elem|-attr)?|form-action")
_SOURCES = re.compile(r"[^\s;,]+( [^\s;,]+)*")  # a semicolon would end the directive, a comma the policy


class Page(NamedTuple):
    """A page with the status and headers of its response. ``web.answers.draw`` makes the response."""

    html: str
    status: int
    headers: Mapping[str, str]


class Context(NamedTuple):
    """The values that all parts of one page share."""

    app_name: str
    """The name of the application."""
    locale: str = ENGLISH
    """The language of the page."""
    say: Callable[[str], str] = str
    """Returns a text in that language."""
    form_action: tuple[str, ...] = ()
    """Other origins to which a form may redirect."""
    user: Any = None
    """The user who is signed in, for your own ``header``; None: no user is, or this was not looked up."""

    @property
    def direction(self) -> str:
        """``rtl`` if that language is written from right to left, else ``ltr``."""
        return direction_of(self.locale)


class Drawn(NamedTuple):
    """A form, and its values on one page."""

    form: Form
    action: str
    """The path that receives the form, without a query, so that no later URL or Referer has the token."""
    hidden: Mapping[str, str] = EMPTY
    """Hidden fields."""
    values: Mapping[str, Any] = EMPTY
    """The values that the user sent before. A password field never gets one."""
    problem: str = ""
    """The error of the whole form; empty: no error."""
    problems: Mapping[str, str] = EMPTY
    """The error of each field, by its name. The first such field gets the focus."""
    prefix: str = ""
    """The prefix of the ids, if a page has several forms."""
    look: str = "main-act"
    """The class of the button in the stylesheet: ``main-act`` or ``plain``."""


class Pages:
    """Draws the pages of the library. Give one to ``Authentication(pages=…)`` for another look.

    Args:
        template: HTML of a whole page with ``$lang``, ``$dir``, ``$title``, ``$head`` and ``$content``. ``$header`` is
            optional. None: the library's template.
        css: CSS after the library's stylesheet, or with ``only_css`` instead of it.
        only_css: True to leave the library's stylesheet out.
        logo: The URL of an image beside the name of the application; None: no image.
        home: The URL of the link on the name of the application.
        account: The URL of the application's own account page. Users go there after they sign in, and links lead to it.
            None: the library's page ``/auth/account``; after a sign-in a page confirms it.
        extra_head: HTML for ``<head>``.
        policy: Sources of the Content-Security-Policy that *extra_head* and *template* need, by directive, such as
            ``{"style-src": "'self'"}``.

    Raises:
        ConfigurationError: *template* lacks a part, or *policy* has a value that is not a source list.
    """

    def __init__(
        self,
        *,
        template: str | None = None,
        css: str = "",
        only_css: bool = False,
        logo: str | None = None,
        home: str = "/",
        account: str | None = None,
        extra_head: str = "",
        policy: Mapping[str, str] = EMPTY,
    ) -> None:
        self._template = _TEMPLATE if template is None else _checked(template)
        style = css if only_css else f"{STYLE}{css}"
        self._style = style.replace("\r\n", "\n").replace("\r", "\n")  # as browsers read it, so that its hash fits
        if "</" in self._style:
            raise ConfigurationError("pages: css must not hold '</', which would end the style element")
        self.logo, self.home, self.account, self._extra_head = logo, home, account, extra_head
        for directive, sources in policy.items():
            if not (_DIRECTIVE.fullmatch(directive) and _SOURCES.fullmatch(sources)):
                raise ConfigurationError(
                    f"pages: policy[{directive!r}] must be sources of a directive such as 'img-src'"
                )
        self._sources = self._allowed(policy)

    def _allowed(self, policy: Mapping[str, str]) -> dict[str, str]:
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        sources = {"style-src": f"'sha256-{digest}'", "form-action": "'self'"}
        if self.logo is not None:
            sources["img-src"] = origin_of(self.logo) or "'self'"
        for directive, more in policy.items():
            sources[directive] = f"{sources[directive]} {more}" if directive in sources else more
        return sources

    # --- a whole page

    def page(
        self,
        title: str,
        content: str,
        context: Context,
        *,
        status: int = 200,
        header: str | None = None,
        wide: bool = False,
        holds_token: bool = False,
    ) -> Page:
        """A whole page, which no cache stores.

        Args:
            title: The heading, which is also part of the browser's title.
            content: HTML; the caller has escaped it.
            context: The context of the page.
            status: The HTTP status. For an error the browser's title begins with "Error".
            header: HTML above the content; None: ``header``.
            wide: True for more than a form.
            holds_token: True for a page whose URL may hold a token.
        """
        title = context.say(title)
        html = self.layout(
            title,
            content,
            context,
            header=self.header(context) if header is None else header,
            is_error=status >= 400,
            wide=wide,
        )
        policy = TOKEN_PAGE_POLICY if holds_token else "same-origin"
        return Page(html, status, {**self._headers(context.form_action), "Referrer-Policy": policy})

    def _headers(self, form_action: tuple[str, ...]) -> dict[str, str]:
        sources = {**self._sources, "form-action": " ".join((self._sources["form-action"], *form_action))}
        allowed = "; ".join(f"{directive} {values}" for directive, values in sources.items())
        return {
            "Content-Security-Policy": f"default-src 'none'; {allowed}; base-uri 'none'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }

    # --- the parts, for a subclass to override

    def layout(
        self, title: str, content: str, context: Context, *, header: str, is_error: bool = False, wide: bool = False
    ) -> str:
        """The whole document.

        Args:
            title: The heading, translated.
            content: HTML below the heading.
            context: Of the page.
            header: HTML above it.
            is_error: True if the page shows an error.
            wide: True for more than a form.
        """
        kind = ' class="wide"' if wide else ""
        parts = {
            "lang": escape(context.locale),
            "dir": context.direction,
            "title": escape(self.full_title(title, context, is_error=is_error)),
            "head": self.head(context),
            "header": header,
            "content": f"<main{kind}>\n<h1>{escape(title)}</h1>\n{content}\n</main>",
        }
        return self._template.substitute(parts)

    def full_title(self, title: str, context: Context, *, is_error: bool = False) -> str:
        """The browser's title of the page, as text. An error comes first, so that a screen reader says it first."""
        told = context.say(_ERROR.given(title=title)) if is_error else title
        return f"{told} - {context.app_name}"

    def head(self, context: Context) -> str:
        """HTML for ``<head>``: the stylesheet, and what the application adds."""
        return f"<style>{self._style}</style>{self._extra_head}"

    def header(self, context: Context) -> str:
        """HTML above the content: the name of the application."""
        logo = "" if self.logo is None else f'<img class="logo" src="{escape(self.logo)}" alt="">'
        return f'<a class="brand" href="{escape(self.home)}">{logo}{escape(context.app_name)}</a>'

    def view(self, view: View, forms: Sequence[Drawn], context: Context) -> str:
        """A view with its forms and links.

        Args:
            view: The view to draw.
            forms: Its forms. Most users want the first one.
            context: Of the page.
        """
        parts = [self.message(view.text, context)] if view.text else []
        for drawn in forms:
            parts += [self.heading(drawn.form.title, context)] if drawn.form.title else []
            parts.append(self.form(drawn, context))
        parts += [self.links(view.links, context)] if view.links else []
        return "\n".join(parts)

    def form(self, drawn: Drawn, context: Context) -> str:
        """A form. The browser does not validate it: the page shows every error, so that a screen reader can read it."""
        form = drawn.form
        parts = [self.message(drawn.problem, context, kind="problem")] if drawn.problem else []
        parts += [self.message(form.text, context)] if form.text else []
        parts.append(f'<form method="post" action="{escape(drawn.action)}" novalidate>')
        parts += self.hide(drawn.hidden)
        parts += self.fields(drawn, context)
        parts.append(f"{self.button(form.button, context, look=drawn.look)}\n</form>")
        return "\n".join(parts)

    def fields(self, drawn: Drawn, context: Context) -> list[str]:
        """Every field of a form, with its earlier value and its error."""
        problems, fields = drawn.problems, drawn.form.fields
        first = next((field.name for field in fields if field.name in problems), None)
        return [
            self.field(
                field,
                context,
                html_id=drawn.prefix + field.name,
                value=drawn.values.get(field.name),
                problem=problems.get(field.name, ""),
                focus=field.name == first,
            )
            for field in fields
        ]

    def field(
        self,
        field: FormField,
        context: Context,
        *,
        html_id: str,
        value: Any = None,
        problem: str = "",
        focus: bool = False,
    ) -> str:
        """One input with its label.

        Args:
            field: The field.
            context: Of the page.
            html_id: The id of the input.
            value: The value that the user sent before.
            problem: The error; empty: no error.
            focus: True for the first field with an error.
        """
        html_id = escape(html_id)
        label = f'<label for="{html_id}">{escape(context.say(field.label))}</label>'
        if field.shown is not None:  # without a name it is not sent
            shown = f'value="{escape(field.shown)}" autocomplete="{escape(field.autocomplete)}" dir="auto" readonly'
            return f'{label}\n<input id="{html_id}" type="text" {shown}>'
        start = f'<input id="{html_id}" name="{escape(field.name)}" type="{escape(field.type)}"'
        marks = "" if field.optional else " required"
        hint = ""
        if problem:
            marks += f' aria-invalid="true" aria-describedby="{html_id}-problem"{" autofocus" * focus}'
            hint = f'\n<p class="problem" id="{html_id}-problem">{escape(context.say(problem))}</p>'
        if field.type == "checkbox":
            return f'<div class="check">{start}{" checked" if value else ""}{marks}>{label}</div>{hint}'
        return f"{label}\n{start}{_typing(field, value)}{marks}>{hint}"

    def button(self, text: str, context: Context, *, look: str = "plain", unseen: str = "") -> str:
        """A button that sends a form.

        Args:
            text: The text of the button.
            context: Of the page.
            look: A class of the stylesheet.
            unseen: A text that only screen readers add to its name.
        """
        more = f'<span class="unseen"> {escape(context.say(unseen))}</span>' if unseen else ""
        return f'<button class="{escape(look)}" type="submit">{escape(context.say(text))}{more}</button>'

    def heading(self, text: str, context: Context) -> str:
        """The heading of a part of a page."""
        return f"<h2>{escape(context.say(text))}</h2>"

    def message(self, text: str, context: Context, *, kind: Literal["text", "notice", "problem"] = "text") -> str:
        """A paragraph. A screen reader reads a notice or a problem at once."""
        said = escape(context.say(text))
        if kind == "text":
            return f"<p>{said}</p>"
        kinds = {"notice": 'class="notice" role="status"', "problem": 'class="problem notice" role="alert"'}
        return f"<p {kinds[kind]}>{said}</p>"

    def links(self, links: Mapping[str, str], context: Context) -> str:
        """A list of links: each text by its URL."""
        items = (f'<li><a href="{escape(url)}">{escape(context.say(text))}</a></li>' for url, text in links.items())
        return f'<ul class="links">{"".join(items)}</ul>'

    def hide(self, hidden: Mapping[str, str]) -> list[str]:
        """Hidden fields."""
        return [f'<input type="hidden" name="{escape(name)}" value="{escape(text)}">' for name, text in hidden.items()]


def _typing(field: FormField, value: Any) -> str:
    """The attributes of a text input."""
    direction = "ltr" if field.type == "password" or field.inputmode == "email" else "auto"
    mode = "" if field.inputmode is None else f' inputmode="{escape(field.inputmode)}"{_AS_TYPED}'
    shown = f' value="{escape(value)}"' if isinstance(value, str) and field.type != "password" else ""
    return f' autocomplete="{escape(field.autocomplete)}" dir="{direction}"{mode}{shown}'


_TEMPLATE = Template("""<!doctype html>
<html lang="$lang" dir="$dir">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
$head
</head>
<body>
<header>$header</header>
$content
</body>
</html>
""")


def _checked(template: object) -> Template:
    """Return *template* if it has every required part and no unknown one."""
    if not isinstance(template, str):
        raise ConfigurationError("pages: template must be text; read a file with Path(…).read_text('utf-8')")
    made = Template(template)
    if not made.is_valid() or not _PARTS - _OPTIONAL <= set(made.get_identifiers()) <= _PARTS:
        raise ConfigurationError(
            f"pages: template must have each of ${', $'.join(sorted(_PARTS - _OPTIONAL))}, and may have $header; "
            "write $$ for a dollar sign"
        )
    return made


def origin_of(url: str) -> str:
    """The source of *url* in a Content-Security-Policy. Empty for a path, which has our own origin.

    For http and https it is the origin. For any other absolute URL it is the scheme, such as ``data:``.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # such as a missing bracket: browsers reject it, too
        return ""
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}:" if parts.scheme else ""
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return origin if parts.netloc and _SOURCES.fullmatch(origin) else ""
