"""JinjaPages: parts of the pages as Jinja templates. Requires the extra ``jinja``."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from asgi_auth.errors import ConfigurationError
from asgi_auth.pages import Context, Drawn, Pages
from asgi_auth.phases import FormField, View

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
    from markupsafe import Markup
except ModuleNotFoundError as exc:
    raise ConfigurationError(f"JinjaPages needs {exc.name}: pip install 'asgi-auth[jinja]'") from exc

PARTS = ("layout", "head", "header", "view", "form", "field", "button", "message", "links")
"""The parts that a template may draw: ``layout.html`` draws the layout, and so on."""


class JinjaPages(Pages):
    """Draws each part of a page by the template of its name, such as ``form.html``. Without one ``Pages`` draws it.

    A template gets the arguments of the method of its name, ``context``, ``say``, which translates a text, and
    ``pages``, whose methods draw the other parts. Their results are HTML. Every other value is escaped.

    Args:
        templates: A directory, or the application's own ``Environment`` with autoescape.
        folder: The folder of the templates below that, such as ``auth``.
        options: The options of ``Pages``.

    Raises:
        ConfigurationError: there is no such directory, or no such template in it; a template is broken; the environment
            does not escape, or is async; or *options* are invalid.
    """

    def __init__(self, templates: str | PathLike[str] | Environment, *, folder: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._environment = _environment_of(templates)
        self._names = dict[str, str]()
        for part in PARTS:
            name = f"{folder}/{part}.html" if folder else f"{part}.html"
            if self._has(name):
                self._names[part] = name
        if not self._names:
            where = folder or "templates"
            raise ConfigurationError(f"pages: there is no template in {where}: call one {PARTS[0]}.html, for example")
        if "layout" in self._names and options.get("template") is not None:
            raise ConfigurationError("pages: give template or layout.html, not both")

    def _has(self, name: str) -> bool:
        """Whether this template exists. Raises ConfigurationError if it is broken or does not escape."""
        try:
            self._environment.get_template(name)
        except TemplateNotFound:
            return False
        except TemplateSyntaxError as exc:
            raise ConfigurationError(f"pages: {name}, line {exc.lineno}: {exc.message}") from exc
        escapes = self._environment.autoescape
        if not (escapes(name) if callable(escapes) else escapes):
            raise ConfigurationError(f"pages: the Environment must escape {name}: give it autoescape=True")
        return True

    def _draw(self, part: str, context: Context, /, **arguments: Any) -> Markup:
        template = self._environment.get_template(self._names[part])
        return Markup(template.render(arguments, context=context, say=context.say, pages=self))  # noqa: S704  # HTML

    # --- the parts

    def layout(
        self, title: str, content: str, context: Context, *, header: str, is_error: bool = False, wide: bool = False
    ) -> str:
        content, header = _html(content), _html(header)
        if "layout" not in self._names:
            return super().layout(title, content, context, header=header, is_error=is_error, wide=wide)
        arguments = {"title": title, "content": content, "header": header, "is_error": is_error, "wide": wide}
        return self._draw("layout", context, **arguments)

    def head(self, context: Context) -> str:
        return self._draw("head", context) if "head" in self._names else _html(super().head(context))

    def header(self, context: Context) -> str:
        return self._draw("header", context) if "header" in self._names else _html(super().header(context))

    def view(self, view: View, forms: Sequence[Drawn], context: Context) -> str:
        if "view" not in self._names:
            return _html(super().view(view, forms, context))
        return self._draw("view", context, view=view, forms=forms)

    def form(self, drawn: Drawn, context: Context) -> str:
        if "form" not in self._names:
            return _html(super().form(drawn, context))
        return self._draw("form", context, drawn=drawn)

    def fields(self, drawn: Drawn, context: Context) -> list[str]:
        return [*map(_html, super().fields(drawn, context))]

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
        arguments = {"html_id": html_id, "value": value, "problem": problem, "focus": focus}
        if "field" not in self._names:
            return _html(super().field(field, context, **arguments))
        if field.type == "password":  # a template must never show a typed password again
            arguments["value"] = None
        return self._draw("field", context, field=field, **arguments)

    def button(self, text: str, context: Context, *, look: str = "plain", unseen: str = "") -> str:
        if "button" not in self._names:
            return _html(super().button(text, context, look=look, unseen=unseen))
        return self._draw("button", context, text=text, look=look, unseen=unseen)

    def message(self, text: str, context: Context, *, kind: Literal["text", "notice", "problem"] = "text") -> str:
        if "message" not in self._names:
            return _html(super().message(text, context, kind=kind))
        return self._draw("message", context, text=text, kind=kind)

    def links(self, links: Mapping[str, str], context: Context) -> str:
        if "links" not in self._names:
            return _html(super().links(links, context))
        return self._draw("links", context, links=links)

    def hide(self, hidden: Mapping[str, str]) -> list[str]:
        return [*map(_html, super().hide(hidden))]


def _html(drawn: str) -> Markup:
    """Mark the HTML of a part, so that a template does not escape it again."""
    return Markup(drawn)  # noqa: S704  # HTML, in which the part has escaped every text


def _environment_of(templates: str | PathLike[str] | Environment) -> Environment:
    if not isinstance(templates, Environment):
        directory = Path(templates)
        if not directory.is_dir():
            raise ConfigurationError(f"pages: there is no directory {str(directory)!r}")
        return Environment(loader=FileSystemLoader(directory), autoescape=True, undefined=StrictUndefined)
    if templates.is_async:
        raise ConfigurationError("pages: the Environment must not have enable_async=True; give one of its own")
    return templates
