"""Message: English text that can be said in another language."""

import copy
import gettext
import json
import pickle
from pathlib import Path

import pytest

from asgi_auth import messages
from asgi_auth.messages import Message, direction_of, language_of, languages, said, speak, translate

COUNTED = ("wait", "Wait {count} second.", "Wait {count} seconds.")
GERMAN = {
    ("greeting", "Hello {name}"): "Hallo {name}",
    ("wait", "Wait {count} second.", 0): "Warte {count} Sekunde.",
    ("wait", "Wait {count} second.", 1): "Warte {count} Sekunden.",
}


class Catalogue(gettext.NullTranslations):
    """German, without a file."""

    def pgettext(self, context: str, message: str) -> str:
        return GERMAN.get((context, message), message)

    def npgettext(self, context: str, msgid1: str, msgid2: str, n: int) -> str:
        return GERMAN[context, msgid1, int(n != 1)]


@pytest.fixture
def in_german(monkeypatch: pytest.MonkeyPatch) -> None:
    """German is one of the languages."""
    monkeypatch.setattr(messages, "languages", lambda: frozenset({"en", "de"}))
    monkeypatch.setattr(
        messages, "_catalogue", lambda language: Catalogue() if language == "de" else gettext.NullTranslations()
    )


def test_message_is_its_english_text() -> None:
    """Code that knows nothing of messages sees text, with the values in it."""
    message = Message("mail.subject", "Your account at {app_name}", app_name="Zoo")

    assert message == "Your account at Zoo"
    assert isinstance(message, str)
    assert json.dumps(message) == '"Your account at Zoo"'
    assert (message.key, message.text, message.plural) == ("mail.subject", "Your account at {app_name}", None)
    assert message.values == {"app_name": "Zoo"}


def test_message_without_values_may_hold_braces() -> None:
    """Only a message with values has places for them."""
    assert Message("a", "{") == "{"
    assert Message("a", "{").fill("}") == "}"


@pytest.mark.parametrize(("count", "text"), [(0, "Wait 0 seconds."), (1, "Wait 1 second."), (2, "Wait 2 seconds.")])
def test_message_plural_goes_by_count(count: int, text: str) -> None:
    """English has one form for 1, another for everything else."""
    assert Message(*COUNTED, count=count) == text


def test_message_value_may_be_named_as_a_parameter() -> None:
    """The names of the parameters are no names of values."""
    assert Message("a", "{key} {text} {plural}", key=1, text=2, plural=3) == "1 2 3"


def test_message_fill_needs_every_name() -> None:
    """A translation that names a value which the message lacks is an error, not a gap."""
    with pytest.raises(KeyError, match="nobody"):
        Message("a", "{name}", name="x").fill("{nobody}")


def test_message_given_keeps_what_it_has() -> None:
    """Further values are added, or replace those of the same name."""
    message = Message("a", "{x} {y}", x=1, y=2).given(y=3)

    assert (message, message.values) == ("1 3", {"x": 1, "y": 3})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_message_survives_a_pickle(protocol: int) -> None:
    """Whole: an error with messages may come from another process."""
    message = Message(*COUNTED, count=Message("two", "2"))
    copied = pickle.loads(pickle.dumps(message, protocol))  # noqa: S301  # made here

    assert isinstance(copied, Message)
    assert (copied, copied.key, copied.text, copied.plural) == ("Wait 2 seconds.", *COUNTED)
    assert copied.values["count"].key == "two"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_message_copies(copied: type) -> None:
    """Whole, too."""
    message = copied(Message("a", "{x}", x=[1]))

    assert (type(message), message.key, message.values) == (Message, "a", {"x": [1]})


@pytest.mark.usefixtures("in_german")
def test_translate_says_it_by_the_catalogue() -> None:
    """By key and English text; the region of the language does not matter."""
    assert translate(Message("greeting", "Hello {name}", name="Ada"), "de-AT") == "Hallo Ada"
    assert translate(Message(*COUNTED, count=1), "de") == "Warte 1 Sekunde."
    assert translate(Message(*COUNTED, count=5), "de") == "Warte 5 Sekunden."


@pytest.mark.usefixtures("in_german")
def test_translate_says_it_in_english_otherwise() -> None:
    """A text that the catalogue lacks, and a language that there is none for."""
    assert translate(Message("other", "Hello {name}", name="Ada"), "de") == "Hello Ada"
    assert translate(Message("greeting", "Hello {name}", name="Ada"), "sv") == "Hello Ada"
    assert translate(Message(*COUNTED, count=1), "sv") == "Wait 1 second."
    assert translate(Message(*COUNTED, count=5), "en") == "Wait 5 seconds."


def test_catalogues_are_files_of_gettext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A language is a folder with a catalogue; any other file there is none."""
    catalogue = tmp_path / "xx" / "LC_MESSAGES" / "asgi_auth.mo"
    catalogue.parent.mkdir(parents=True)
    catalogue.write_bytes(_compiled("greeting\x04Hello {name}", "Tere {name}"))
    (tmp_path / "yy").mkdir()
    (tmp_path / "asgi_auth.pot").write_text("")
    monkeypatch.setattr(messages, "LOCALES", tmp_path)
    for cached in (languages, messages._catalogue):
        cached.cache_clear()
    try:
        assert languages() == {"en", "xx"}
        assert translate(Message("greeting", "Hello {name}", name="Ada"), "xx") == "Tere Ada"
        assert translate(Message("other", "Bye"), "xx") == "Bye"
        assert translate(Message("greeting", "Hello {name}", name="Ada"), "yy") == "Hello Ada"
    finally:
        for cached in (languages, messages._catalogue):
            cached.cache_clear()


def _compiled(msgid: str, text: str) -> bytes:
    """A catalogue with one entry, as GNU gettext lays it out: a header of seven numbers, two tables, the texts."""
    source, target = msgid.encode(), text.encode()
    numbers = [0x950412DE, 0, 1, 28, 36, 0, 44, len(source), 44, len(target), 44 + len(source) + 1]
    return b"".join(number.to_bytes(4, "little") for number in numbers) + source + b"\0" + target + b"\0"


def test_languages_without_catalogues_are_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was built without its catalogues works."""
    monkeypatch.setattr(messages, "LOCALES", tmp_path / "nothing")

    assert languages.__wrapped__() == {"en"}


@pytest.mark.usefixtures("in_german")
@pytest.mark.parametrize(
    ("locale", "language"), [("de", "de"), ("DE-at", "de"), ("en-GB", "en"), ("sv", "en"), ("", "en"), ("deu", "en")]
)
def test_language_of_is_the_first_part(locale: str, language: str) -> None:
    """English where there is no catalogue."""
    assert language_of(locale) == language


@pytest.mark.parametrize(
    ("locale", "direction"),
    [("ar", "rtl"), ("AR-EG", "rtl"), ("he", "rtl"), ("ur-PK", "rtl"), ("en", "ltr"), ("", "ltr")],
)
def test_direction_of_is_that_of_the_script(locale: str, direction: str) -> None:
    """As ``dir`` of HTML has it."""
    assert direction_of(locale) == direction


def shouting(message: Message, locale: str) -> str:
    """A translation that can be seen."""
    return f"{locale}:{message.fill(message.text.upper().replace('{NAME}', '{name}'))}"


def test_speak_translates_the_values_as_well() -> None:
    """A message may stand in another one; a plain text stays as it is."""
    message = Message("a", "hello {name}", name=Message("b", "you"))

    assert speak(message, "xx", shouting) == "xx:HELLO xx:YOU"
    assert speak(message.given(name="Ada"), "xx", shouting) == "xx:HELLO Ada"
    assert speak("hello", "xx", shouting) == "hello"


def test_speak_names_the_message_that_has_no_translation() -> None:
    """A function that forgets to return a text is told what to return."""
    with pytest.raises(TypeError, match=r"translate returned NoneType for 'a'.*messages\.translate"):
        speak(Message("a", "hello"), "xx", lambda message, locale: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("no"), "no"), (ValueError(Message("a", "no")), "no"), (ValueError(5), "5"), (ValueError(), "")],
)
def test_said_is_what_the_error_was_raised_with(error: ValueError, text: str) -> None:
    """Text as it is, anything else as text."""
    assert said(error) == text


def test_said_keeps_the_message() -> None:
    """With its key, so that it can be translated."""
    message = Message("a", "no")

    assert said(ValueError(message)) is message
