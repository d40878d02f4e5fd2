"""In which language a user is spoken to."""

from typing import Any

import pytest

from asgi_auth import localization, messages
from asgi_auth.errors import ConfigurationError
from asgi_auth.localization import ChooseLocale, Localization
from asgi_auth.messages import Message, Translate

HELLO = Message("hello", "Hello")


@pytest.fixture(autouse=True)
def four_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has these, whatever catalogues there are."""
    for module in (localization, messages):
        monkeypatch.setattr(module, "languages", lambda: frozenset({"en", "de", "fr", "pt"}))


def marked(message: Message, locale: str) -> str:
    """A translation that can be seen."""
    return f"{message.key} in {locale}"


def of_request(locale: ChooseLocale | None, *accept: str, translate: Translate | None = None) -> str:
    """The language of an answer."""
    return Localization(translate, locale).of_request("request", accept, "user")


def test_browser_chooses_by_default() -> None:
    """Accept-Language decides, among the languages that there are; English if none fits."""
    assert of_request(None, "sv, de-AT;q=0.8") == "de"
    assert of_request(None, "sv") == "en"
    assert of_request(None) == "en"


def test_function_chooses_before_the_browser() -> None:
    """It is given the request and the user. None leaves it to the browser."""
    given: list[tuple[Any, Any]] = []

    def choose(connection: Any, user: Any) -> str | None:
        given.append((connection, user))
        return "fr-CA" if len(given) == 1 else None

    assert of_request(choose, "de") == "fr-CA"
    assert of_request(choose, "de") == "de"
    assert given == [("request", "user")] * 2


@pytest.mark.parametrize("chosen", ["", "de DE", 'de"', "<b>", "de--AT", "fourteenlettrs", 5, b"fr", True])
def test_what_is_no_language_tag_counts_as_none(chosen: Any) -> None:
    """RD-4: such as a value that users may set; no page has it in its ``lang``."""
    assert of_request(lambda connection, user: chosen, "de") == "de"
    assert of_request(lambda connection, user: chosen, "de", translate=marked) == "de"


def test_underscore_is_a_hyphen() -> None:
    """Babel and POSIX write ``pt_BR``; HTML has ``pt-BR``."""
    assert of_request(lambda connection, user: "pt_BR") == "pt-BR"


def test_language_that_nobody_speaks_counts_as_none() -> None:
    """An English page does not say that it is Swedish, or it would be read out as Swedish."""
    assert of_request(lambda connection, user: "sv", "de") == "de"
    assert of_request(lambda connection, user: "en-GB", "de") == "en-GB"


def test_language_of_the_application_counts() -> None:
    """A translation of its own may have any language."""
    assert of_request(lambda connection, user: "sv-FI", "de", translate=marked) == "sv-FI"


def test_mail_is_in_the_language_of_its_user() -> None:
    """There is no request to ask; without an answer the language of the one that led to the mail."""
    given: list[tuple[Any, Any]] = []

    def choose(connection: Any, user: Any) -> str | None:
        given.append((connection, user))
        return None if user is None else "fr"

    assert Localization(None, choose).of_mail("ada", "de") == "fr"
    assert Localization(None, choose).of_mail(None, "de") == "de"
    assert Localization(None, None).of_mail("ada", "de") == "de"
    assert given == [(None, "ada"), (None, None)]


def test_say_translates_messages_alone() -> None:
    """By the application's function, or in English where there is no catalogue; a plain text stays as it is."""
    assert Localization(marked, None).say(HELLO, "de") == "hello in de"
    assert Localization(marked, None).say("Hello", "de") == "Hello"
    assert Localization(None, None).say(HELLO, "sv") == "Hello"


async def slow(*_: Any) -> str:
    return ""  # pragma: no cover  # is refused before anybody calls it


@pytest.mark.parametrize("name", ["translate", "locale"])
@pytest.mark.parametrize("function", ["de", slow], ids=["no function", "async"])
def test_functions_are_plain(name: str, function: Any) -> None:
    """Anything else is refused at start, by name."""
    options: dict[str, Any] = {"translate": None, "locale": None, name: function}

    with pytest.raises(ConfigurationError, match=name):
        Localization(options["translate"], options["locale"])
