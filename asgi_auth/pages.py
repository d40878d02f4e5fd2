"""The plug's own pages: plain HTML, no scripts, nothing from elsewhere, in no frame (CF-8).

An application may build its pages of the same parts; the demo does.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from asgi_auth.errors import ValidationError
from asgi_auth.phases import Form, FormField, View
from asgi_auth.types import EMPTY

STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; --page: #f3f5f9; --card: #fff; --text: #18202e;
  --soft: #536075; --line: #d5dce6; --edge: #74829a; --accent: #1d4ed8; --on-accent: #fff; --bad: #b3261e;
  --bad-back: #fdeeec; --good: #14603a; --good-back: #e5f4ea; --wait: #7a4a00; --wait-back: #fdf0d9 }
@media (prefers-color-scheme: dark) { :root { --page: #10151e; --card: #19212e; --text: #e7ecf4; --soft: #a6b2c5;
  --line: #303c50; --edge: #7b8aa3; --accent: #8fb4ff; --on-accent: #0c1a36; --bad: #ffb4ab; --bad-back: #3b1f20;
  --good: #8fdcb0; --good-back: #16301f; --wait: #f0c577; --wait-back: #372a12 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere }
header { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .25rem 1rem;
  padding: .75rem 1.25rem; background: var(--card); border-bottom: 1px solid var(--line) }
nav { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1.25rem }
.brand { margin: 0; padding: .5rem 0; font-weight: 700; color: inherit; text-decoration: none }
main { width: min(100% - 2rem, 27rem); margin: clamp(1rem, 6vw, 5rem) auto 2rem; padding: clamp(1.25rem, 6vw, 2rem);
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem }
main.wide { width: min(100% - 2rem, 44rem) }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem }
h2 { font-size: 1.125rem; line-height: 1.25; margin: 2rem 0 .25rem }
p { margin: 0 0 1rem }
a { color: var(--accent) }
nav a { padding: .5rem 0 }
label { display: block; font-weight: 600; margin: 1rem 0 .25rem }
input { width: 100%; font: inherit; padding: .6rem .75rem; color: inherit; background: var(--card);
  border: 1px solid var(--edge); border-radius: .4rem }
input[aria-invalid=true] { border: 2px solid var(--bad) }
.check { display: flex; align-items: center; gap: .6rem; margin: 1rem 0 0 }
.check label { font-weight: 400; margin: 0 }
.check input { flex: none; width: 1.25rem; height: 1.25rem; margin: 0; accent-color: var(--accent) }
button, .button { display: inline-block; font: inherit; font-weight: 600; text-align: center; text-decoration: none;
  padding: .6rem 1rem; border: 1px solid transparent; border-radius: .4rem; background: var(--accent);
  color: var(--on-accent); cursor: pointer }
button:hover, .button:hover { filter: brightness(1.1) }
header button { padding: .35rem .75rem }
main > form + form { margin-top: .75rem }
.main-act { width: 100%; margin-top: 1.5rem }
.plain { background: transparent; border-color: var(--edge); color: var(--accent) }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.problem { color: var(--bad); margin: .25rem 0 0 }
.notice { margin: 0 0 1rem; padding: .6rem .75rem; border-left: .25rem solid; border-radius: .25rem;
  color: var(--good); background: var(--good-back) }
.problem.notice { color: var(--bad); background: var(--bad-back) }
.soft { color: var(--soft); margin: 0 }
.links { margin: 1.5rem 0 0; padding: 1rem 0 0; border-top: 1px solid var(--line); list-style: none }
.links a { display: inline-block; padding: .25rem 0 }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0 }
.rows { margin: 0 0 .5rem; padding: 0; list-style: none }
.rows li { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .75rem 1.5rem;
  padding: 1rem 0 }
.rows li + li { border-top: 1px solid var(--line) }
.rows .soft { font-size: .875rem }
.rows div { flex: 1 1 16rem }
.rows .acts { flex: none; display: flex; flex-wrap: wrap; gap: .75rem }
.badge { padding: .1rem .5rem; border-radius: 1rem; font-size: .875rem; font-weight: 600; white-space: nowrap;
  color: var(--good); background: var(--good-back) }
.badge.waits { color: var(--wait); background: var(--wait-back) }
.badge.over { color: var(--soft); background: var(--page) }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
TOKEN_PAGE_POLICY = "strict-origin"
"""Of a page whose address holds a token: not even our own server is told the address by the form that it posts."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_TOKEN_PAGE_HEADERS = {**_HEADERS, "Referrer-Policy": TOKEN_PAGE_POLICY}


class Page(NamedTuple):
    """A page, and what its answer must have; ``web.answers.draw`` makes the response."""

    html: str
    status: int
    headers: Mapping[str, str]


_AS_TYPED = ' autocapitalize="none" autocorrect="off" spellcheck="false"'


def page(
    title: str,
    body: str,
    *,
    app_name: str,
    status: int = 200,
    header: str | None = None,
    wide: bool = False,
    holds_token: bool = False,
) -> Page:
    """A whole page, which no cache keeps.

    Args:
        title: The heading, and what the browser calls the page.
        body: HTML; whoever makes it has escaped it.
        app_name: The second half of the browser's title.
        status: Of the answer; one of 400 and more is told first in the browser's title.
        header: HTML above the content; None: the name of the application.
        wide: For more than a form.
        holds_token: True for a page whose address may hold a token.
    """
    shown = header if header is not None else f'<p class="brand">{escape(app_name)}</p>'
    prefix, kind = "Error: " if status >= 400 else "", ' class="wide"' if wide else ""
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{prefix}{escape(title)} - {escape(app_name)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<header>{shown}</header>\n<main{kind}>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return Page(html, status, _TOKEN_PAGE_HEADERS if holds_token else _HEADERS)


def message_page(title: str, text: str, *, app_name: str, status: int = 200) -> Page:
    """A page that says one thing."""
    return page(title, f"<p>{escape(text)}</p>", app_name=app_name, status=status)


def form_page(
    form: Form,
    *,
    action: str,
    token: str,
    app_name: str,
    return_to: str = "",
    problems: Mapping[str, str] = EMPTY,
    status: int = 200,
) -> Page:
    """The page behind a mailed link.

    Args:
        form: What to ask.
        action: The path that the form posts to: without a query, so that no later URL or Referer has the token.
        token: Carried on in a hidden field.
        app_name: For the title.
        return_to: Where to go afterwards, carried on in a hidden field; empty: nowhere.
        problems: Messages by field, after a refused attempt.
        status: 200, or that of the refusal.
    """
    problem = _problem(form, problems)
    hidden = _hidden(form, token) | ({"return_to": return_to} if return_to else {})
    body = form_body(form, action=action, hidden=hidden, problem=problem, problems=problems)
    return page(form.title, body, app_name=app_name, status=status, holds_token=True)


def _hidden(form: Form, token: str) -> dict[str, str]:
    return {} if form.token is None else {form.token: token}


def _problem(form: Form, problems: Mapping[str, str]) -> str:
    """What is wrong as a whole: with the link, with what the form has no field for, or with its fields."""
    if form.token in problems:
        return "This link is not complete. Please ask for a new one."
    unseen = problems.keys() - {field.name for field in form.fields}
    general = [_sentence(name.capitalize(), problems[name]) for name in problems if name in unseen]
    return " ".join(general) or (f"{ValidationError.title}." if problems else "")


def view_page(view: View, forms: Sequence[tuple[Form, str]], *, app_name: str) -> Page:
    """The page of something to look at.

    Args:
        view: What to say, and the token that goes on in the forms.
        forms: What can be done about it, each with the path that it posts to; the first is what most people want.
        app_name: For the title.
    """
    parts = [f"<p>{escape(view.text)}</p>"] if view.text else []
    for number, (form, action) in enumerate(forms):
        parts += [f"<h2>{escape(form.title)}</h2>"] if form.title else []
        look = "plain" if number and not form.fields else "main-act"
        hidden = _hidden(form, view.token)
        parts.append(form_body(form, action=action, hidden=hidden, prefix=f"{number}-" if number else "", look=look))
    parts += [links(view.links)] if view.links else []
    return page(view.title, "\n".join(parts), app_name=app_name, holds_token=True)


def form_body(
    form: Form,
    *,
    action: str,
    hidden: Mapping[str, str] = EMPTY,
    values: Mapping[str, Any] = EMPTY,
    problem: str = "",
    problems: Mapping[str, str] = EMPTY,
    prefix: str = "",
    look: str = "main-act",
) -> str:
    """A form as HTML. Browsers check nothing by themselves, so that every message is one of ours and can be read out.

    Args:
        form: What to ask.
        action: The path that the form posts to.
        hidden: Fields that nobody sees.
        values: What was sent before, to be drawn again; never into a field for a password.
        problem: What is wrong as a whole; empty: nothing.
        problems: What is wrong with a field, by its name. The first such field gets the focus.
        prefix: Of the ids, where a page has several forms.
        look: Of the button, a class of the stylesheet.
    """
    parts = [f'<p class="problem notice" role="alert">{escape(problem)}</p>'] if problem else []
    parts += [f"<p>{escape(form.text)}</p>"] if form.text else []
    parts.append(f'<form method="post" action="{escape(action)}" novalidate>')
    parts += _hide(hidden)
    first = next((field.name for field in form.fields if field.name in problems), None)
    for field in form.fields:
        problem, focus = problems.get(field.name, ""), field.name == first
        parts.append(_input(field, values.get(field.name), problem, focus=focus, prefix=prefix))
    parts.append(f'<button class="{look}" type="submit">{escape(form.button)}</button>\n</form>')
    return "\n".join(parts)


def links(links: Mapping[str, str]) -> str:
    """A list of links as HTML, each text by its address."""
    items = "".join(f'<li><a href="{escape(url)}">{escape(text)}</a></li>' for url, text in links.items())
    return f'<ul class="links">{items}</ul>'


def button(action: str, text: str, *, unseen: str = "", hidden: Mapping[str, str] = EMPTY) -> str:
    """A button that posts *hidden* to *action*, as HTML; *unseen* is HTML that only screen readers add to its name."""
    more = f'<span class="unseen"> {unseen}</span>' if unseen else ""
    label = f'<button class="plain" type="submit">{escape(text)}{more}</button>'
    return f'<form method="post" action="{escape(action)}">{"".join(_hide(hidden))}{label}</form>'


def _hide(hidden: Mapping[str, str]) -> list[str]:
    return [f'<input type="hidden" name="{escape(name)}" value="{escape(text)}">' for name, text in hidden.items()]


def _input(field: FormField, value: object, problem: str, *, focus: bool, prefix: str) -> str:
    name = escape(field.name)
    html_id = prefix + name
    label = f'<label for="{html_id}">{escape(field.label)}</label>'
    start = f'<input id="{html_id}" name="{name}" type="{escape(field.type)}"'
    if field.type == "checkbox":
        return f'<div class="check">{start}{" checked" if value else ""}>{label}</div>'
    shown = f' value="{escape(value)}"' if isinstance(value, str) and field.type != "password" else ""
    marks = ' aria-invalid="true"' + f' aria-describedby="{html_id}-problem"' + " autofocus" * focus if problem else ""
    message = escape(_sentence(field.label, problem))
    hint = f'\n<p class="problem" id="{html_id}-problem">{message}</p>' if problem else ""
    mode = "" if field.inputmode is None else f' inputmode="{escape(field.inputmode)}"{_AS_TYPED}'
    return f'{label}\n{start} autocomplete="{escape(field.autocomplete)}"{mode}{shown} required{marks}>{hint}'


def _sentence(label: str, problem: str) -> str:
    """A message is a sentence of its own or, as in ``is needed``, the end of one about the field."""
    sentence = problem if problem[:1].isupper() else f"{label} {problem}"
    return sentence if sentence.endswith(".") else f"{sentence}."
