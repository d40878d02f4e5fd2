"""JinjaPages: a template can draw each part of a page."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from jinja2 import DictLoader, Environment, select_autoescape

from asgi_auth.errors import ConfigurationError
from asgi_auth.frameworks.jinja import PARTS, JinjaPages
from asgi_auth.messages import Message
from asgi_auth.pages import Context, Drawn, Pages
from asgi_auth.phases import Form, FormField, View

HOME = Context("App & Co")
EVIL = '<b>"it\'s"'
NAME = FormField(name="name", label="Your <name>")
FORM = Drawn(
    Form(title="Hello", text="a & b", fields=(NAME,)),
    "/x?a&b",
    hidden={"t": "<t>"},
    values={"name": EVIL},
    problem="Bad & ugly",
    problems={"name": "Odd & even"},
)
VIEW = View({}, title="Look", text="1 < 2", links={"/?a&b": "a & b"})


def environment(**templates: str) -> Environment:
    """Templates in memory, one for each part."""
    return Environment(loader=DictLoader({f"{name}.html": text for name, text in templates.items()}), autoescape=True)


def jinja(**templates: str) -> JinjaPages:
    """Pages with these templates."""
    return JinjaPages(environment(**templates))


def whole(pages: Pages) -> str:
    """A page with every part."""
    return pages.page("Top & bottom", pages.view(VIEW, [FORM], HOME), HOME, status=422).html


def test_part_without_a_template_is_the_librarys() -> None:
    """The other parts are identical to the library's, and nothing is escaped twice. The one template draws nothing."""
    assert whole(jinja(links="")).replace("\n\n</main>", "") == whole(Pages()).replace(
        '\n<ul class="links"><li><a href="/?a&amp;b">a &amp; b</a></li></ul>\n</main>', ""
    )


@pytest.mark.parametrize("part", PARTS)
def test_template_can_return_the_librarys_part(part: str, tmp_path: Path) -> None:
    """A template that returns the library's part changes nothing: the part is HTML and is not escaped again."""

    class Handing(JinjaPages):
        def library(self, name: str) -> Any:
            """The library's method for the part."""
            return getattr(super(JinjaPages, self), name)

    calls = {
        "layout": "title, content, context, header=header, is_error=is_error, wide=wide",
        "head": "context",
        "header": "context",
        "view": "view, forms, context",
        "form": "drawn, context",
        "field": "field, context, html_id=html_id, value=value, problem=problem, focus=focus",
        "button": "text, context, look=look, unseen=unseen",
        "message": "text, context, kind=kind",
        "links": "links, context",
    }
    (tmp_path / f"{part}.html").write_text(f"{{{{ pages.library('{part}')({calls[part]})|safe }}}}")

    assert whole(Handing(tmp_path)) == whole(Pages())


def test_templates_draw_a_whole_page() -> None:
    """RD-4: every text is escaped, the HTML of other parts is not; each part uses its own template."""
    pages = jinja(
        layout="{{ pages.full_title(title, context, is_error=is_error) }}|{{ context.locale }}|{{ context.direction }}|"
        "{{ wide }}|{{ header }}|{{ content }}",
        header="<i>{{ context.app_name }}</i>",
        form="{{ pages.message(drawn.problem, context, kind='problem') }}<form>"
        "{% for each in pages.hide(drawn.hidden) + pages.fields(drawn, context) %}{{ each }}{% endfor %}"
        "{{ pages.button(drawn.form.button, context, look=drawn.look) }}</form>",
        field="<p {{ html_id }}>{{ say(field.label) }}={{ value }} {{ problem }} {{ focus }}</p>",
        button="<button {{ look }}>{{ say(text) }}</button>",
        message="<em>{{ kind }}: {{ text }}</em>",
        view="{{ pages.message(view.text, context) }}{% for each in forms %}{{ pages.form(each, context) }}{% endfor %}"
        "{{ pages.links(view.links, context) }}",
        links="{% for url, text in links.items() %}<a href='{{ url }}'>{{ text }}</a>{% endfor %}",
    )

    assert whole(pages) == (
        "Error: Top &amp; bottom - App &amp; Co|en|ltr|False|<i>App &amp; Co</i>|"
        "<em>text: 1 &lt; 2</em><em>problem: Bad &amp; ugly</em><form>"
        '<input type="hidden" name="t" value="&lt;t&gt;">'
        "<p name>Your &lt;name&gt;=&lt;b&gt;&#34;it&#39;s&#34; Odd &amp; even True</p>"
        "<button main-act>Continue</button></form><a href='/?a&amp;b'>a &amp; b</a>"
    )


def test_head_of_the_library_can_be_part_of_a_layout() -> None:
    """CF-8: the head contains the library's stylesheet, which the policy permits."""
    page = jinja(layout="<head>{{ pages.head(context) }}</head>").page("Hello", "", HOME)

    assert page.html.startswith("<head><style>\n:root {")
    assert "style-src 'sha256-" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "call",
    [
        "header(context)",
        "view(look, [filled], context)",
        "form(filled, context)",
        "field(name, context, html_id='n', value=evil)",
        "button(evil, context)",
        "message(evil, context)",
        "links({evil: evil}, context)",
    ],
)
def test_library_part_in_a_template_is_html(call: str) -> None:
    """A part of the library has escaped its texts, so that the template does not escape them again."""
    templates = environment(head=f"{{{{ pages.{call} }}}}")
    templates.globals.update(look=VIEW, filled=FORM, name=NAME, evil=EVIL)
    drawn = eval(f"Pages().{call}", {**templates.globals, "Pages": Pages, "context": HOME})  # noqa: S307  # from above

    assert JinjaPages(templates).head(HOME) == drawn


def test_content_and_header_of_a_layout_are_html() -> None:
    """A layout does not escape the content and the header, given as text or as markup."""
    page = jinja(layout="{{ header }}{{ content }}").page("Hello", "<p>&amp;</p>", HOME, header="<nav></nav>")

    assert page.html == "<nav></nav><p>&amp;</p>"


def test_template_can_translate() -> None:
    """A template translates with ``say``, like the library."""
    pages = jinja(message="{{ say(text) }}")
    german = Context("App", "de", lambda text: "Tür & Tor" if isinstance(text, Message) else text)

    assert pages.message(Message("a", "Door"), german) == "Tür &amp; Tor"


def test_template_never_sees_a_password() -> None:
    """The value of a password field is None in a template."""
    pages = jinja(field="{{ field.name }}={{ value }}")
    secret = FormField(name="secret", label="Secret", type="password")

    assert pages.fields(FORM._replace(form=Form(title="", fields=(secret,)), values={"secret": "s3"}), HOME) == [
        "secret=None"
    ]


def test_templates_are_read_from_a_directory(tmp_path: Path) -> None:
    """The directory is a path or a string; an undefined name in a template is an error."""
    (tmp_path / "button.html").write_text("<button>{{ text }}{{ other }}</button>")

    for directory in (tmp_path, str(tmp_path)):
        with pytest.raises(Exception, match="'other' is undefined"):
            JinjaPages(directory).button("Go", HOME)


def test_templates_can_be_in_a_folder_of_an_environment() -> None:
    """One environment can have the application's templates, too: a layout can extend one of them."""
    templates = {"base.html": "[{% block body %}{% endblock %}]", "layout.html": "not this one"}
    templates["auth/layout.html"] = "{% extends 'base.html' %}{% block body %}{{ title }}{% endblock %}"
    pages = JinjaPages(Environment(loader=DictLoader(templates), autoescape=select_autoescape()), folder="auth")

    assert pages.page("Hello", "", HOME).html == "[Hello]"


def test_options_of_pages_are_accepted() -> None:
    """The other parts use the options of ``Pages``."""
    assert 'href="/start"' in JinjaPages(environment(button=""), home="/start").header(HOME)


def refused(match: str, templates: Any, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match=match):
        JinjaPages(templates, **options)


def test_mistakes_are_found_at_start(tmp_path: Path) -> None:
    """Each mistake is an error with a remedy."""
    refused("there is no directory '.*nowhere'", tmp_path / "nowhere")
    refused("there is no template in templates: call one layout.html", tmp_path)
    refused("there is no template in auth:", environment(layout=""), folder="auth")
    refused(r"form\.html, line 2: ", environment(form="\n{% if %}"))
    refused("give template or layout.html, not both", environment(layout=""), template="$lang$dir$title $head $content")
    refused("enable_async", Environment(loader=DictLoader({"layout.html": ""}), autoescape=True, enable_async=True))


@pytest.mark.parametrize("escapes", [False, select_autoescape(["xml"])], ids=["never", "another kind"])
def test_templates_must_escape(escapes: Any) -> None:
    """RD-4: an environment without escaping is refused; Jinja does not escape by default."""
    environment = Environment(loader=DictLoader({"form.html": ""}), autoescape=escapes)  # noqa: S701  # what must be refused

    refused("the Environment must escape form.html: give it autoescape=True", environment)


def test_without_jinja_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Jinja is not installed, the error names the extra."""
    monkeypatch.delitem(sys.modules, "asgi_auth.frameworks.jinja")
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(ConfigurationError, match=r"needs jinja2: pip install 'asgi-auth\[jinja\]'"):
        import_module("asgi_auth.frameworks.jinja")
