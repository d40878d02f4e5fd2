"""JinjaPages: each part of a page by a template, if there is one."""

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
    """Templates in memory, by part."""
    return Environment(loader=DictLoader({f"{name}.html": text for name, text in templates.items()}), autoescape=True)


def jinja(**templates: str) -> JinjaPages:
    """Pages with these templates."""
    return JinjaPages(environment(**templates))


def whole(pages: Pages) -> str:
    """A page that has every part."""
    return pages.page("Top & bottom", pages.view(VIEW, [FORM], HOME), HOME, status=422).html


def test_part_without_a_template_is_that_of_the_library() -> None:
    """To the letter, with nothing escaped twice: here nothing draws what the one template is for."""
    assert whole(jinja(links="")).replace("\n\n</main>", "") == whole(Pages()).replace(
        '\n<ul class="links"><li><a href="/?a&amp;b">a &amp; b</a></li></ul>\n</main>', ""
    )


@pytest.mark.parametrize("part", PARTS)
def test_template_may_draw_a_part_as_the_library_does(part: str, tmp_path: Path) -> None:
    """A template that hands on what the library draws changes nothing: all of it is HTML, none of it escaped."""

    class Handing(JinjaPages):
        def library(self, name: str) -> Any:
            """The part as it is without a template."""
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


def test_templates_draw_a_page_of_their_own() -> None:
    """RD-4: every text is escaped, what other parts have drawn is not; each is drawn by its own template again."""
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


def test_head_of_the_library_can_stand_in_a_layout() -> None:
    """CF-8: with its stylesheet, which the policy allows."""
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
    """It has escaped its texts already."""
    templates = environment(head=f"{{{{ pages.{call} }}}}")
    templates.globals.update(look=VIEW, filled=FORM, name=NAME, evil=EVIL)
    drawn = eval(f"Pages().{call}", {**templates.globals, "Pages": Pages, "context": HOME})  # noqa: S307  # from above

    assert JinjaPages(templates).head(HOME) == drawn


def test_content_and_header_of_a_layout_are_html() -> None:
    """Whoever has drawn them, as text or as markup."""
    page = jinja(layout="{{ header }}{{ content }}").page("Hello", "<p>&amp;</p>", HOME, header="<nav></nav>")

    assert page.html == "<nav></nav><p>&amp;</p>"


def test_template_can_translate() -> None:
    """By ``say``, as the library does."""
    pages = jinja(message="{{ say(text) }}")
    german = Context("App", "de", lambda text: "Tür & Tor" if isinstance(text, Message) else text)

    assert pages.message(Message("a", "Door"), german) == "Tür &amp; Tor"


def test_template_never_sees_a_password() -> None:
    """Whatever it draws, what was typed there does not come back."""
    pages = jinja(field="{{ field.name }}={{ value }}")
    secret = FormField(name="secret", label="Secret", type="password")

    assert pages.fields(FORM._replace(form=Form(title="", fields=(secret,)), values={"secret": "s3"}), HOME) == [
        "secret=None"
    ]


def test_templates_are_in_a_directory(tmp_path: Path) -> None:
    """A path or its text; what a template misspells is an error, not a gap."""
    (tmp_path / "button.html").write_text("<button>{{ text }}{{ other }}</button>")

    for directory in (tmp_path, str(tmp_path)):
        with pytest.raises(Exception, match="'other' is undefined"):
            JinjaPages(directory).button("Go", HOME)


def test_templates_may_be_in_a_folder_of_it() -> None:
    """So that one environment has those of the application, too: a layout may extend the application's own."""
    templates = {"base.html": "[{% block body %}{% endblock %}]", "layout.html": "not this one"}
    templates["auth/layout.html"] = "{% extends 'base.html' %}{% block body %}{{ title }}{% endblock %}"
    pages = JinjaPages(Environment(loader=DictLoader(templates), autoescape=select_autoescape()), folder="auth")

    assert pages.page("Hello", "", HOME).html == "[Hello]"


def test_options_are_those_of_pages() -> None:
    """The other parts keep them."""
    assert 'href="/start"' in JinjaPages(environment(button=""), home="/start").header(HOME)


def refused(match: str, templates: Any, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match=match):
        JinjaPages(templates, **options)


def test_mistakes_are_found_at_start(tmp_path: Path) -> None:
    """Each with what to do."""
    refused("there is no directory '.*nowhere'", tmp_path / "nowhere")
    refused("there is no template in templates: call one layout.html", tmp_path)
    refused("there is no template in auth:", environment(layout=""), folder="auth")
    refused(r"form\.html, line 2: ", environment(form="\n{% if %}"))
    refused("give template or layout.html, not both", environment(layout=""), template="$lang$dir$title $head $content")
    refused("enable_async", Environment(loader=DictLoader({"layout.html": ""}), autoescape=True, enable_async=True))


@pytest.mark.parametrize("escapes", [False, select_autoescape(["xml"])], ids=["never", "another kind"])
def test_templates_must_escape(escapes: Any) -> None:
    """RD-4: Jinja's own default is not to."""
    environment = Environment(loader=DictLoader({"form.html": ""}), autoescape=escapes)  # noqa: S701  # what must be refused

    refused("the Environment must escape form.html: give it autoescape=True", environment)


def test_without_jinja_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Jinja the error says what to install."""
    monkeypatch.delitem(sys.modules, "asgi_auth.frameworks.jinja")
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(ConfigurationError, match=r"needs jinja2: pip install 'asgi-auth\[jinja\]'"):
        import_module("asgi_auth.frameworks.jinja")
