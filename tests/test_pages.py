"""The parts that pages are made of."""

import base64
import hashlib
import re

import pytest

from asgi_auth.errors import ConfigurationError
from asgi_auth.pages import button, form_body, form_page, links, message_page, page
from asgi_auth.phases import Form, FormField

NAME = FormField(name="name", label="Your name")


def test_policy_allows_the_one_stylesheet_of_the_page() -> None:
    """CF-8: the hash in the policy is that of what is between the style tags; nothing else may be loaded."""
    answer = message_page("Done", "a < b", app_name="App & Co")
    style = re.search(r"<style>(.*?)</style>", answer.html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def test_message_page_escapes_its_text() -> None:
    """Title, text and name of the application are text."""
    html = message_page("1 < 2", "a < b", app_name="App & Co").html

    assert "<title>1 &lt; 2 - App &amp; Co</title>" in html
    assert "<p>a &lt; b</p>" in html
    assert '<header><p class="brand">App &amp; Co</p></header>' in html


@pytest.mark.parametrize(("status", "title"), [(200, "Hello - App"), (399, "Hello - App"), (400, "Error: Hello - App")])
def test_page_tells_a_failure_first(status: int, title: str) -> None:
    """Whoever listens to pages hears the title before anything else."""
    assert f"<title>{title}</title>" in page("Hello", "", app_name="App", status=status).html


def test_form_page_without_a_token_hides_nothing() -> None:
    """A form that is not behind a mailed link has no hidden field."""
    html = form_page(Form(title="Hello", fields=(NAME,)), action="/x", token="t", app_name="App").html

    assert 'type="hidden"' not in html
    assert '<form method="post" action="/x" novalidate>' in html


def test_form_page_says_what_is_wrong_with_the_link() -> None:
    """A token that is missing is nothing to type in: the message is about the link, else about the fields."""
    form = Form(title="Hello", token="t", fields=(NAME,))
    incomplete = form_page(
        form, action="/x", token="", app_name="App", problems={"t": "This field is required."}, status=422
    )
    refused = form_page(form, action="/x", token="<b>", app_name="App", problems={"name": "is odd"}, status=422)

    assert 'role="alert">This link is not complete. Please ask for a new one.<' in incomplete.html
    assert 'role="alert">Some fields need another look.<' in refused.html
    assert '<input type="hidden" name="t" value="&lt;b&gt;">' in refused.html


def test_form_body_without_anything_is_a_button() -> None:
    """No text, no field, no problem: what is left is one button."""
    html = form_body(Form(title="Hello", button="Go < on"), action="/x")

    assert html == (
        '<form method="post" action="/x" novalidate>\n'
        '<button class="main-act" type="submit">Go &lt; on</button>\n</form>'
    )


def test_form_body_draws_values_but_no_password() -> None:
    """What is no text is left out, as is what was typed into a password field."""
    secret = FormField(name="secret", label="Secret", type="password")
    form = Form(title="Hello", fields=(NAME, secret))

    assert 'value="&quot;&lt;b&gt;"' in form_body(form, action="/x", values={"name": '"<b>'})
    assert "value=" not in form_body(form, action="/x", values={"name": 5, "secret": "abc"})


def test_form_body_ties_the_message_to_its_field() -> None:
    """By id, so that it is read out with the field; a message is text."""
    html = form_body(Form(title="Hello", fields=(NAME,)), action="/x", problems={"name": "<b> is odd"})

    assert 'aria-invalid="true" aria-describedby="name-problem" autofocus>' in html
    assert '<p class="problem" id="name-problem">Your name &lt;b&gt; is odd.</p>' in html


def test_field_with_an_inputmode_is_sent_as_typed() -> None:
    """AC-6: the domain of an address stays as it is typed, and no phone capitalises or corrects the rest."""
    address = FormField(name="email", label="Address", autocomplete="username", inputmode="email")
    html = form_body(Form(title="Hello", fields=(address, NAME)), action="/x")

    assert (
        '<input id="email" name="email" type="text" autocomplete="username" inputmode="email" autocapitalize="none"'
        ' autocorrect="off" spellcheck="false" required>'
    ) in html
    assert '<input id="name" name="name" type="text" autocomplete="off" required>' in html


@pytest.mark.parametrize("kind", ["email", "EMAIL"])
def test_field_refuses_the_type_that_rewrites_addresses(kind: str) -> None:
    """AC-6: Chromium sends ``faß.example`` of such a field as ``fass.example``."""
    with pytest.raises(ConfigurationError, match=r"type of the field 'mail' must not be 'email'.*inputmode='email'"):
        FormField(name="mail", label="Address", type=kind)


def test_links_and_button_escape() -> None:
    """Addresses and texts are text."""
    assert links({"/?a&b": "a & b"}) == '<ul class="links"><li><a href="/?a&amp;b">a &amp; b</a></li></ul>'
    assert button("/a&b", "End", unseen="it") == (
        '<form method="post" action="/a&amp;b">'
        '<button class="plain" type="submit">End<span class="unseen"> it</span></button></form>'
    )


def test_button_posts_what_nobody_sees() -> None:
    """What a button is about goes along in hidden fields, escaped."""
    assert button("/end", "End", unseen="this", hidden={"id": '"1'}) == (
        '<form method="post" action="/end"><input type="hidden" name="id" value="&quot;1">'
        '<button class="plain" type="submit">End<span class="unseen"> this</span></button></form>'
    )


def test_everything_is_escaped() -> None:
    """RD-4: titles, texts, labels, names, values and messages, wherever they come from."""
    evil = "<script>alert('x')</script>\"onload=\""
    field = FormField(name=evil, label=evil, type=evil, inputmode=evil)
    form = Form(title=evil, text=evil, token=evil, fields=(field,), button=evil)
    pages = [
        form_page(form, action=evil, token=evil, app_name=evil, problems={evil: evil}, status=422),
        message_page(evil, evil, app_name=evil),
    ]
    box = form_body(Form(title="", fields=(FormField(name="a", label=evil, type="checkbox"),)), action="/")
    body = form_body(form, action=evil, hidden={evil: evil}, values={evil: evil}, problem=evil, problems={evil: evil})
    for html in (*(each.html for each in pages), body, box, links({evil: evil}), button(evil, evil)):
        assert "alert(" in html
        assert "<script" not in html
        assert "'x'" not in html
        assert 'onload="' not in html
