"""The language of pages and mails."""

from typing import Any

import pytest

from asgi_auth import localization, messages
from asgi_auth.errors import ConfigurationError
from asgi_auth.localization import ChooseLocale, Localization
from asgi_auth.messages import Message, Translate

HELLO = Message("hello", "Hello")


@pytest.fixture(autouse=True)
def four_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has these languages, independent of its catalogues."""
    for module in (localization, messages):
        monkeypatch.setattr(module, "languages", lambda: frozenset({"en", "de", "fr", "pt"}))


def marked(message: Message, locale: str) -> str:
    """A translation that shows its key and its language."""
    return f"{message.key} in {locale}"


def of_request(locale: ChooseLocale | None, *accept: str, translate: Translate | None = None) -> str:
    """The language of an answer."""
    return Localization(translate, locale).of_request("request", accept, "user")


def test_browser_chooses_by_default() -> None:
    """Accept-Language selects one of the available languages; English if none matches."""
    assert of_request(None, "sv, de-AT;q=0.8") == "de"
    assert of_request(None, "sv") == "en"
    assert of_request(None) == "en"


def test_function_chooses_before_the_browser() -> None:
    """The function receives the request and the user. If it returns None, the browser chooses."""
    given: list[tuple[Any, Any]] = []

    def choose(connection: Any, user: Any) -> str | None:
        given.append((connection, user))
        return "fr-CA" if len(given) == 1 else None

    assert of_request(choose, "de") == "fr-CA"
    assert of_request(choose, "de") == "de"
    assert given == [("request", "user")] * 2


@pytest.mark.parametrize("chosen", ["", "de DE", 'de"', "<b>", "de--AT", "fourteenlettrs", 5, b"fr", True])
def test_invalid_language_tag_is_ignored(chosen: Any) -> None:
    """RD-4: an invalid tag, for example one that users can set, is ignored; no page has it in its ``lang``."""
    assert of_request(lambda connection, user: chosen, "de") == "de"
    assert of_request(lambda connection, user: chosen, "de", translate=marked) == "de"


def test_underscore_becomes_a_hyphen() -> None:
    """Babel and POSIX write ``pt_BR``; HTML requires ``pt-BR``."""
    assert of_request(lambda connection, user: "pt_BR") == "pt-BR"


def test_language_without_a_catalogue_is_ignored() -> None:
    """An English page must not claim to be Swedish: a screen reader would read it as Swedish."""
    assert of_request(lambda connection, user: "sv", "de") == "de"
    assert of_request(lambda connection, user: "en-GB", "de") == "en-GB"


def test_language_of_the_applications_translation_is_accepted() -> None:
    """The application's own translation may use any language."""
    assert of_request(lambda connection, user: "sv-FI", "de", translate=marked) == "sv-FI"


def test_mail_is_in_the_language_of_its_user() -> None:
    """A mail has no request. If the function returns None, the mail has the language of the request that caused it."""
    given: list[tuple[Any, Any]] = []

    def choose(connection: Any, user: Any) -> str | None:
        given.append((connection, user))
        return None if user is None else "fr"

    assert Localization(None, choose).of_mail("ada", "de") == "fr"
    assert Localization(None, choose).of_mail(None, "de") == "de"
    assert Localization(None, None).of_mail("ada", "de") == "de"
    assert given == [(None, "ada"), (None, None)]


def test_say_translates_only_messages() -> None:
    """The application's function translates a message; without a catalogue it is English. A plain text is unchanged."""
    assert Localization(marked, None).say(HELLO, "de") == "hello in de"
    assert Localization(marked, None).say("Hello", "de") == "Hello"
    assert Localization(None, None).say(HELLO, "sv") == "Hello"


async def slow(*_: Any) -> str:
    return ""  # pragma: no cover  # is refused before it is called


@pytest.mark.parametrize("name", ["translate", "locale"])
@pytest.mark.parametrize("function", ["de", slow], ids=["no function", "async"])
def test_functions_must_be_plain(name: str, function: Any) -> None:
    """Other values and async functions are refused at start; the message names the option."""
    options: dict[str, Any] = {"translate": None, "locale": None, name: function}

    with pytest.raises(ConfigurationError, match=name):
        Localization(options["translate"], options["locale"])
