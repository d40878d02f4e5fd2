"""The parts that pages are made of."""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.pages import Context, Drawn, Page, Pages, origin_of
from asgi_auth.phases import Form, FormField, View

NAME = FormField(name="name", label="Your name")
SECRET = FormField(name="secret", label="Secret", type="password")
HOME = Context("App & Co")
PAGES = Pages()
WHOLE = "$lang $dir $title $head $header $content"


def draw(*fields: FormField, pages: Pages = PAGES, context: Context = HOME, **drawn: Any) -> str:
    """A form with these fields."""
    return pages.form(Drawn(Form(title="Hello", fields=fields), "/x", **drawn), context)


def policy(pages: Pages, context: Context = HOME) -> dict[str, str]:
    """The Content-Security-Policy of a page: its sources by directive."""
    directives = pages.page("Hello", "", context).headers["Content-Security-Policy"].split("; ")
    parts = [directive.split(" ", 1) for directive in directives]
    assert len({name for name, _ in parts}) == len(parts)  # browsers ignore a second directive of the same name
    return {name: sources for name, sources in parts}


def hash_of_style(page: Page) -> str:
    """The hash of the content of the style element, as a browser computes it."""
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert style is not None
    digest = hashlib.sha256(style[1].replace("\r\n", "\n").replace("\r", "\n").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


# --- a whole page


def test_policy_allows_the_one_stylesheet_of_the_page() -> None:
    """CF-8: the policy has the hash of the content of the style element; nothing else may be loaded."""
    page = PAGES.page("Done", "", HOME)

    assert page.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src {hash_of_style(page)}; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )


@pytest.mark.parametrize("only_css", [False, True], ids=["added", "alone"])
@pytest.mark.parametrize("css", ["", "h1 { color: red }\n", "a {}\r\nb {}\rc {}"], ids=["none", "lf", "crlf"])
def test_policy_allows_the_stylesheet_of_the_application(css: str, only_css: bool) -> None:
    """CF-8: also with line ends of Windows: browsers normalise them before they compute the hash."""
    page = Pages(css=css, only_css=only_css).page("Done", "", HOME)

    assert f"style-src {hash_of_style(page)};" in page.headers["Content-Security-Policy"]
    assert ("--accent" in page.html) is not only_css


def test_policy_lets_forms_lead_to_listed_origins() -> None:
    """Chromium blocks a redirect after a form whose origin is not in form-action."""
    context = HOME._replace(form_action=("https://a.example", "app:"))

    assert policy(PAGES, context)["form-action"] == "'self' https://a.example app:"
    assert policy(Pages(policy={"form-action": "https://b.example"}), context)["form-action"] == (
        "'self' https://b.example https://a.example app:"
    )


def test_policy_has_the_sources_of_the_application() -> None:
    """CF-8: the application's sources are added to those of the page; everything else stays forbidden."""
    given = policy(Pages(policy={"style-src": "'self'", "script-src-elem": "'self' https://cdn.example"}))

    assert given["style-src"].endswith("=' 'self'")
    assert given["script-src-elem"] == "'self' https://cdn.example"
    assert (given["default-src"], given["frame-ancestors"], given["base-uri"]) == ("'none'", "'none'", "'none'")


@pytest.mark.parametrize(
    ("directive", "sources"),
    [
        ("img-src", "'self'; frame-ancestors *"),
        ("img-src", "'self', default-src *"),
        ("img-src", ""),
        ("img-src", " 'self'"),
        ("img-src", "'self'\n"),
        ("default-src", "'self'"),
        ("frame-ancestors", "*"),
        ("base-uri", "*"),
        ("img-src x", "'self'"),
    ],
)
def test_policy_accepts_only_sources(directive: str, sources: str) -> None:
    """CF-8: a value that ends a directive or the policy is refused, and so is a directive that the page sets."""
    with pytest.raises(ConfigurationError, match=rf"policy\['{directive}'\] must be sources"):
        Pages(policy={directive: sources})


@pytest.mark.parametrize(
    ("logo", "source"),
    [
        ("/logo.svg", "'self'"),
        ("https://cdn.example/logo.svg", "https://cdn.example"),
        ("data:image/svg+xml,%3Csvg/%3E", "data:"),
    ],
)
def test_policy_allows_the_logo(logo: str, source: str) -> None:
    """img-src has the origin of the logo; without a logo no image is allowed."""
    pages = Pages(logo=logo)

    assert policy(pages)["img-src"] == source
    assert f'<img class="logo" src="{logo}" alt="">' in pages.header(HOME)
    assert "img-src" not in policy(PAGES)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("/x", ""),
        ("x", ""),
        ("//a.example/x", ""),
        ("https://a.example:8443/x?y#z", "https://a.example:8443"),
        ("HTTP://a.example", "http://a.example"),
        ("https://user:secret@a.example/", "https://a.example"),
        ("https://[::1]:8000/", "https://[::1]:8000"),
        ("https:", ""),
        ("https://a.example;frame-ancestors", ""),
        ("https://a.example,x", ""),
        ("https://[", ""),
        ("com.example.app:/done", "com.example.app:"),
        ("data:text/plain,x", "data:"),
    ],
)
def test_origin_of_is_a_source_for_a_policy(url: str, origin: str) -> None:
    """The origin, or the scheme if the scheme has no hosts; never text that would end the policy (CF-8)."""
    assert origin_of(url) == origin


def test_page_is_not_cached() -> None:
    """TK-21, RD-4: caches store no page and browsers do not guess its type."""
    headers = PAGES.page("Done", "", HOME).headers

    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


@pytest.mark.parametrize(("holds_token", "referrer"), [(False, "same-origin"), (True, "strict-origin")])
def test_referrer_policy_hides_the_token(holds_token: bool, referrer: str) -> None:
    """TK-21: the Referer of a page with a token never contains its URL, not even to our own server."""
    assert PAGES.page("Done", "", HOME, holds_token=holds_token).headers["Referrer-Policy"] == referrer


def test_page_escapes_its_texts() -> None:
    """Title and name of the application are escaped; the content is HTML."""
    html = PAGES.page("1 < 2", "<b>c</b>", HOME).html

    assert "<title>1 &lt; 2 - App &amp; Co</title>" in html
    assert "<main>\n<h1>1 &lt; 2</h1>\n<b>c</b>\n</main>" in html
    assert '<header><a class="brand" href="/">App &amp; Co</a></header>' in html


def test_page_uses_the_given_header() -> None:
    """A given header replaces the default one; an empty header is a header, too."""
    assert "<header><nav></nav></header>" in PAGES.page("Hello", "", HOME, header="<nav></nav>").html
    assert "<header></header>" in PAGES.page("Hello", "", HOME, header="").html


def test_wide_page_has_its_class() -> None:
    """A wide page has the class wide."""
    assert '<main class="wide">' in PAGES.page("Hello", "", HOME, wide=True).html


@pytest.mark.parametrize(("status", "title"), [(200, "Hello - App"), (399, "Hello - App"), (400, "Error: Hello - App")])
def test_title_begins_with_the_error(status: int, title: str) -> None:
    """The title of a page with an error begins with Error: screen readers read the title first."""
    page = PAGES.page("Hello", "", Context("App"), status=status)

    assert f"<title>{title}</title>" in page.html
    assert page.status == status


@pytest.mark.parametrize(("locale", "start"), [("de-AT", 'lang="de-AT" dir="ltr"'), ("ar", 'lang="ar" dir="rtl"')])
def test_page_has_language_and_direction(locale: str, start: str) -> None:
    """The html element has lang and dir."""
    assert f"<html {start}>" in PAGES.page("Hello", "", Context("App", locale)).html


def test_every_text_is_translated_once() -> None:
    """Titles, texts, labels, buttons, links and problems are translated once; values and names are not."""
    context = Context("App", "xx", lambda text: f"<{text}>")
    form = Form(title="Title", text="Text", fields=(NAME,), button="Go")
    drawn = Drawn(form, "/", values={"name": "v"}, problem="Bad", problems={"name": "Odd"})
    view = View({}, title="View", text="Look", links={"/y": "There"})
    html = PAGES.page("Top", PAGES.view(view, [drawn], context), context, status=400).html

    assert "<title>&lt;Error: &lt;Top&gt;&gt; - App</title>" in html
    for text in ("Top", "Title", "Text", "Go", "Bad", "Odd", "Look", "There", "Your name"):
        assert f">&lt;{text}&gt;<" in html
    assert 'value="v"' in html


# --- options


def test_template_is_the_whole_page() -> None:
    """Each part stands at its placeholder; ``$$`` is a dollar sign."""
    pages = Pages(template="$$5 [$lang|$dir|$title|$header|$content]$head", css="h1 {}", only_css=True, home="/start")
    html = pages.page("Hello", "<p>$title</p>", Context("App", "ar")).html

    assert html == (
        '$5 [ar|rtl|Hello - App|<a class="brand" href="/start">App</a>|<main>\n<h1>Hello</h1>\n<p>$title</p>\n</main>]'
        "<style>h1 {}</style>"
    )


def test_template_may_have_a_header_of_its_own() -> None:
    """A template without $header has only its own header."""
    html = Pages(template=WHOLE.replace("$header", "<header>Mine</header>")).page("Hello", "", HOME).html

    assert "<header>Mine</header>" in html
    assert 'class="brand"' not in html


@pytest.mark.parametrize(
    "template",
    [
        "",
        WHOLE.replace("$lang", ""),
        WHOLE.replace("$dir", ""),
        WHOLE.replace("$title", ""),
        WHOLE.replace("$head", ""),  # also turns $header into $er
        WHOLE.replace("$content", ""),
        f"{WHOLE} $other",
        f"{WHOLE} $",
    ],
)
def test_template_without_a_required_part_is_refused(template: str) -> None:
    """A template without language, direction, title, stylesheet or content is refused at start."""
    with pytest.raises(ConfigurationError, match=r"each of \$content, \$dir, \$head, \$lang, \$title"):
        Pages(template=template)


def test_template_must_be_text() -> None:
    """A Path is refused, and the error says to read the file."""
    template: Any = Path("page.html")

    with pytest.raises(ConfigurationError, match="template must be text; read a file"):
        Pages(template=template)


def test_css_must_not_end_its_element() -> None:
    """RD-4: after ``</style>`` the rest of the stylesheet would be HTML."""
    with pytest.raises(ConfigurationError, match="css must not hold '</'"):
        Pages(css="</style>")


def test_extra_head_is_in_the_head() -> None:
    """extra_head is HTML and not escaped."""
    assert "</style><meta name=x>\n</head>" in Pages(extra_head="<meta name=x>").page("Hello", "", HOME).html


# --- forms


def test_form_without_anything_is_a_button() -> None:
    """A form without text, fields and problems is one button."""
    drawn = Drawn(Form(title="Hello", button="Go < on"), "/x?a&b")

    assert PAGES.form(drawn, HOME) == (
        '<form method="post" action="/x?a&amp;b" novalidate>\n'
        '<button class="main-act" type="submit">Go &lt; on</button>\n</form>'
    )


def test_form_has_the_given_hidden_values() -> None:
    """Hidden values are escaped; a form without them has no hidden field."""
    assert '<input type="hidden" name="t" value="&lt;b&gt;">' in draw(NAME, hidden={"t": "<b>"})
    assert 'type="hidden"' not in draw(NAME)


def test_form_begins_with_the_problem() -> None:
    """The problem has the role alert: screen readers read it at once."""
    html = PAGES.form(Drawn(Form(title="Hello", text="Please"), "/x", problem="This < that"), HOME)

    assert html.startswith('<p class="problem notice" role="alert">This &lt; that</p>\n<p>Please</p>\n<form')


def test_form_draws_values_but_no_password() -> None:
    """Values that are not text, and values of a password field, are left out."""
    assert 'value="&quot;&lt;b&gt;"' in draw(NAME, values={"name": '"<b>'})
    assert "value=" not in draw(NAME, SECRET, values={"name": 5, "secret": "abc"})


def test_form_ties_the_message_to_its_field() -> None:
    """aria-describedby refers to the message, so that it is read out with the field; the message is escaped."""
    html = draw(NAME, problems={"name": "<b> is odd"}, prefix="2-")

    assert '<label for="2-name">Your name</label>\n<input id="2-name" name="name" type="text"' in html
    assert 'aria-invalid="true" aria-describedby="2-name-problem" autofocus>' in html
    assert '<p class="problem" id="2-name-problem">&lt;b&gt; is odd</p>' in html
    assert "aria-" not in draw(NAME)


def test_form_gives_the_focus_to_the_first_problem() -> None:
    """The first field with a problem, in the order of the page, has autofocus; without a problem no field has it."""
    html = draw(NAME, SECRET, problems={"secret": "wrong", "name": "wrong"})

    assert html.count("autofocus") == 1
    assert html.index("autofocus") < html.index('id="secret"')
    assert "autofocus" not in draw(NAME, SECRET, problems={"elsewhere": "wrong"})


def test_field_is_required_unless_it_is_optional() -> None:
    """The attribute is for screen readers: the browser itself checks nothing (``novalidate``)."""
    assert " required>" in draw(NAME)
    assert "required" not in draw(FormField(name="a", label="A", optional=True))


def test_checkbox_stays_ticked_and_shows_its_problem() -> None:
    """The label follows the box; a problem is shown like that of any other field."""
    box = FormField(name="terms", label="I agree", type="checkbox")

    assert draw(box, values={"terms": "on"}).splitlines()[1] == (
        '<div class="check"><input id="terms" name="terms" type="checkbox" checked required>'
        '<label for="terms">I agree</label></div>'
    )
    html = draw(box, problems={"terms": "Please agree."})
    assert 'type="checkbox" required aria-invalid="true" aria-describedby="terms-problem" autofocus>' in html
    assert '</div>\n<p class="problem" id="terms-problem">Please agree.</p>' in html


def test_shown_field_is_not_sent() -> None:
    """A password manager finds the user name; the field has no name, so it is not sent."""
    field = FormField(name="email", label="Address", autocomplete="username", shown="a&b@mail.example.org")

    assert draw(field, problems={"email": "wrong"}).splitlines()[1:3] == [
        '<label for="email">Address</label>',
        '<input id="email" type="text" value="a&amp;b@mail.example.org" autocomplete="username" dir="auto" readonly>',
    ]


def test_field_with_an_inputmode_is_sent_as_typed() -> None:
    """AC-6: browsers send the address as it is typed; phones do not capitalise or correct it."""
    address = FormField(name="email", label="Address", autocomplete="username", inputmode="email")
    html = draw(address, NAME)

    assert (
        '<input id="email" name="email" type="text" autocomplete="username" dir="ltr" inputmode="email"'
        ' autocapitalize="none" autocorrect="off" spellcheck="false" required>'
    ) in html
    assert '<input id="name" name="name" type="text" autocomplete="off" dir="auto" required>' in html


@pytest.mark.parametrize("kind", ["email", "EMAIL"])
def test_field_refuses_the_type_that_rewrites_addresses(kind: str) -> None:
    """AC-6: Chromium sends ``faß.example`` as ``fass.example`` if the type is email."""
    with pytest.raises(ConfigurationError, match=r"type of the field 'mail' must not be 'email'.*inputmode='email'"):
        FormField(name="mail", label="Address", type=kind)


# --- the other parts


def test_view_has_its_text_its_forms_and_its_links() -> None:
    """Text, forms and links follow in this order; a form without a title has no heading."""
    first, second = Drawn(Form(title="One"), "/1"), Drawn(Form(title=""), "/2", look="plain")
    html = PAGES.view(View({}, text="Look", links={"/y": "There"}), [first, second], HOME)

    assert re.findall(r"<(?:p|h2|form|button|ul)\b[^>]*>", html) == [
        "<p>",
        "<h2>",
        '<form method="post" action="/1" novalidate>',
        '<button class="main-act" type="submit">',
        '<form method="post" action="/2" novalidate>',
        '<button class="plain" type="submit">',
        '<ul class="links">',
    ]
    assert PAGES.view(View({}), [], HOME) == ""


def test_links_and_button_escape() -> None:
    """Links and buttons escape URLs and texts."""
    assert PAGES.links({"/?a&b": "a & b"}, HOME) == (
        '<ul class="links"><li><a href="/?a&amp;b">a &amp; b</a></li></ul>'
    )
    assert PAGES.button("End", HOME, unseen="it") == (
        '<button class="plain" type="submit">End<span class="unseen"> it</span></button>'
    )


@pytest.mark.parametrize(
    ("kind", "html"),
    [
        ("text", "<p>a &lt; b</p>"),
        ("notice", '<p class="notice" role="status">a &lt; b</p>'),
        ("problem", '<p class="problem notice" role="alert">a &lt; b</p>'),
    ],
)
def test_message_has_a_role(kind: Any, html: str) -> None:
    """A notice is a status and a problem an alert, so that screen readers read them at once."""
    assert PAGES.message("a < b", HOME, kind=kind) == html


def test_part_can_be_overridden() -> None:
    """A subclass replaces a part wherever a page uses it."""

    class Own(Pages):
        def button(self, text: str, context: Context, *, look: str = "plain", unseen: str = "") -> str:
            return f"<input type=submit value={text}>"

        def links(self, links: Any, context: Context) -> str:
            return "<nav></nav>"

        def head(self, context: Context) -> str:
            return f"{super().head(context)}<!-- own -->"

    pages = Own()
    view = View({}, forms=(Form(title="", button="Go"),), links={"/": "x"})
    content = pages.view(view, [Drawn(view.forms[0], "/x")], HOME)
    html = pages.page("Hello", content, HOME).html

    assert "<input type=submit value=Go>\n</form>\n<nav></nav>" in html
    assert "</style><!-- own -->" in html


def evil_parts(evil: str) -> dict[str, Callable[[], str]]:
    """Every part, with *evil* in each place for a text."""
    context = Context(evil, evil)
    field = FormField(name=evil, label=evil, type=evil, inputmode=evil, autocomplete=evil)
    form = Form(title=evil, text=evil, token=evil, fields=(field,), button=evil)
    box = FormField(name=evil, label=evil, type="checkbox")
    shown = FormField(name=evil, label=evil, shown=evil, autocomplete=evil)
    texts = {evil: evil}
    full = Drawn(form, evil, hidden=texts, values=texts, problem=evil, problems=texts, prefix=evil, look=evil)
    view = View({}, title=evil, text=evil, links=texts)
    return {
        "page": lambda: PAGES.page(evil, "", context, status=422).html,
        "header": lambda: Pages(logo=evil, home=evil).header(context),
        "form": lambda: PAGES.form(full, context),
        "checkbox": lambda: PAGES.form(full._replace(form=Form(title=evil, fields=(box,))), context),
        "shown": lambda: PAGES.form(full._replace(form=Form(title=evil, fields=(shown,))), context),
        "view": lambda: PAGES.view(view, [full], context),
        "links": lambda: PAGES.links(texts, context),
        "button": lambda: PAGES.button(evil, context, look=evil, unseen=evil),
        "message": lambda: PAGES.message(evil, context),
    }


@pytest.mark.parametrize("part", evil_parts(""))
def test_everything_is_escaped(part: str) -> None:
    """RD-4: every part escapes titles, texts, labels, names, values and messages."""
    html = evil_parts("<script>alert('x')</script>\"onload=\"")[part]()

    assert "alert(" in html
    assert "<script" not in html
    assert "'x'" not in html
    assert 'onload="' not in html
