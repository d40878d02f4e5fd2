"""The plug's own pages: plain HTML, no scripts, nothing from elsewhere, in no frame (CF-8)."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from starlette.responses import HTMLResponse, Response

from asgi_auth.types import EMPTY, Form, FormField

STYLE = (
    ":root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}"
    "body{margin:0;display:grid;min-height:100vh;place-items:center;background:Canvas;color:CanvasText}"
    "main{box-sizing:border-box;width:min(100%,26rem);padding:2rem 1.5rem}"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}"
    "label{display:block;font-weight:600;margin:1rem 0 .25rem}"
    "input{box-sizing:border-box;width:100%;font:inherit;padding:.6rem .7rem;border:1px solid GrayText;"
    "border-radius:.4rem;background:Field;color:FieldText}"
    "input[aria-invalid=true]{border-color:#c62828;border-width:2px}"
    "button{font:inherit;font-weight:600;width:100%;margin-top:1.5rem;padding:.7rem;border:0;border-radius:.4rem;"
    "background:#1d4ed8;color:#fff;cursor:pointer}"
    ":focus-visible{outline:3px solid #60a5fa;outline-offset:2px}"
    ".problem{color:#c62828;margin:.25rem 0 0}"
    "@media(prefers-color-scheme:dark){.problem{color:#ff8a80}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(title: str, body: str, *, app_name: str, status: int = 200) -> Response:
    """A whole page. *body* is HTML; whoever makes it has escaped it."""
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - {escape(app_name)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return HTMLResponse(html, status, headers={"Content-Security-Policy": POLICY})


def message_page(title: str, text: str, *, app_name: str, status: int = 200) -> Response:
    """A page that says one thing."""
    return page(title, f"<p>{escape(text)}</p>", app_name=app_name, status=status)


def form_page(
    form: Form,
    *,
    action: str,
    token: str,
    app_name: str,
    problems: Mapping[str, str] = EMPTY,
    status: int = 200,
) -> Response:
    """The page behind a mailed link.

    Args:
        form: What to ask.
        action: The path that the form posts to: without a query, so that no later URL or Referer has the token.
        token: Carried on in a hidden field.
        app_name: For the title.
        problems: Messages by field, after a refused attempt.
        status: 200, or that of the refusal.
    """
    parts = [f"<p>{escape(form.text)}</p>"] if form.text else []
    asked = {field.name for field in form.fields}
    parts += [f'<p class="problem" role="alert">{escape(m)}</p>' for name, m in problems.items() if name not in asked]
    parts.append(f'<form method="post" action="{escape(action)}">')
    if form.token is not None:
        parts.append(f'<input type="hidden" name="{escape(form.token)}" value="{escape(token)}">')
    parts += [_input(field, problems.get(field.name)) for field in form.fields]
    parts.append(f'<button type="submit">{escape(form.button)}</button>\n</form>')
    return page(form.title, "\n".join(parts), app_name=app_name, status=status)


def _input(field: FormField, problem: str | None) -> str:
    name = escape(field.name)
    invalid = f' aria-invalid="true" aria-describedby="{name}-problem"' if problem else ""
    hint = f'\n<p class="problem" id="{name}-problem">{escape(field.label)} {escape(problem)}</p>' if problem else ""
    return (
        f'<label for="{name}">{escape(field.label)}</label>\n'
        f'<input id="{name}" name="{name}" type="{escape(field.type)}" autocomplete="{escape(field.autocomplete)}" '
        f"required{invalid}>{hint}"
    )
