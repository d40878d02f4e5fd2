"""Message: English text that can be translated."""

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
    """German translations without a file."""

    def pgettext(self, context: str, message: str) -> str:
        return GERMAN.get((context, message), message)

    def npgettext(self, context: str, msgid1: str, msgid2: str, n: int) -> str:
        return GERMAN[context, msgid1, int(n != 1)]


@pytest.fixture
def in_german(monkeypatch: pytest.MonkeyPatch) -> None:
    """German is an available language."""
    monkeypatch.setattr(messages, "languages", lambda: frozenset({"en", "de"}))
    monkeypatch.setattr(
        messages, "_catalogue", lambda language: Catalogue() if language == "de" else gettext.NullTranslations()
    )


def test_message_is_its_english_text() -> None:
    """Code that does not know Message sees a str with the values filled in."""
    message = Message("mail.subject", "Your account at {app_name}", app_name="Zoo")

    assert message == "Your account at Zoo"
    assert isinstance(message, str)
    assert json.dumps(message) == '"Your account at Zoo"'
    assert (message.key, message.text, message.plural) == ("mail.subject", "Your account at {app_name}", None)
    assert message.values == {"app_name": "Zoo"}


def test_message_without_values_may_hold_braces() -> None:
    """Braces are placeholders only in a message with values."""
    assert Message("a", "{") == "{"
    assert Message("a", "{").fill("}") == "}"


@pytest.mark.parametrize(("count", "text"), [(0, "Wait 0 seconds."), (1, "Wait 1 second."), (2, "Wait 2 seconds.")])
def test_message_plural_depends_on_count(count: int, text: str) -> None:
    """English has one form for 1 and another for every other count."""
    assert Message(*COUNTED, count=count) == text


def test_message_value_may_have_the_name_of_a_parameter() -> None:
    """Values may be named key, text and plural: the parameters are positional."""
    assert Message("a", "{key} {text} {plural}", key=1, text=2, plural=3) == "1 2 3"


def test_message_fill_needs_every_name() -> None:
    """KeyError if a translation names a value that the message lacks."""
    with pytest.raises(KeyError, match="nobody"):
        Message("a", "{name}", name="x").fill("{nobody}")


def test_message_given_keeps_what_it_has() -> None:
    """Further values are added, or replace those of the same name."""
    message = Message("a", "{x} {y}", x=1, y=2).given(y=3)

    assert (message, message.values) == ("1 3", {"x": 1, "y": 3})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_message_survives_a_pickle(protocol: int) -> None:
    """A pickle keeps every field: an error with messages may come from another process."""
    message = Message(*COUNTED, count=Message("two", "2"))
    copied = pickle.loads(pickle.dumps(message, protocol))  # noqa: S301  # made here

    assert isinstance(copied, Message)
    assert (copied, copied.key, copied.text, copied.plural) == ("Wait 2 seconds.", *COUNTED)
    assert copied.values["count"].key == "two"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_message_copies(copied: type) -> None:
    """A copy keeps type, key and values."""
    message = copied(Message("a", "{x}", x=[1]))

    assert (type(message), message.key, message.values) == (Message, "a", {"x": [1]})


@pytest.mark.usefixtures("in_german")
def test_translate_uses_the_catalogue() -> None:
    """The catalogue is read by key and English text; the region of the language is ignored."""
    assert translate(Message("greeting", "Hello {name}", name="Ada"), "de-AT") == "Hallo Ada"
    assert translate(Message(*COUNTED, count=1), "de") == "Warte 1 Sekunde."
    assert translate(Message(*COUNTED, count=5), "de") == "Warte 5 Sekunden."


@pytest.mark.usefixtures("in_german")
def test_translate_falls_back_to_english() -> None:
    """The text stays English if the catalogue lacks it or the language has no catalogue."""
    assert translate(Message("other", "Hello {name}", name="Ada"), "de") == "Hello Ada"
    assert translate(Message("greeting", "Hello {name}", name="Ada"), "sv") == "Hello Ada"
    assert translate(Message(*COUNTED, count=1), "sv") == "Wait 1 second."
    assert translate(Message(*COUNTED, count=5), "en") == "Wait 5 seconds."


def test_catalogues_are_files_of_gettext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a catalogue is a language; other files and folders are not."""
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
    """A catalogue with one entry in the format of GNU gettext: a header of seven numbers, two tables, the texts."""
    source, target = msgid.encode(), text.encode()
    numbers = [0x950412DE, 0, 1, 28, 36, 0, 44, len(source), 44, len(target), 44 + len(source) + 1]
    return b"".join(number.to_bytes(4, "little") for number in numbers) + source + b"\0" + target + b"\0"


def test_languages_without_catalogues_are_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was built without catalogues still has English."""
    monkeypatch.setattr(messages, "LOCALES", tmp_path / "nothing")

    assert languages.__wrapped__() == {"en"}


@pytest.mark.usefixtures("in_german")
@pytest.mark.parametrize(
    ("locale", "language"), [("de", "de"), ("DE-at", "de"), ("en-GB", "en"), ("sv", "en"), ("", "en"), ("deu", "en")]
)
def test_language_of_is_the_first_part(locale: str, language: str) -> None:
    """The part before the region, or English if it has no catalogue."""
    assert language_of(locale) == language


@pytest.mark.parametrize(
    ("locale", "direction"),
    [("ar", "rtl"), ("AR-EG", "rtl"), ("he", "rtl"), ("ur-PK", "rtl"), ("en", "ltr"), ("", "ltr")],
)
def test_direction_of_is_that_of_the_script(locale: str, direction: str) -> None:
    """The values of ``dir`` in HTML."""
    assert direction_of(locale) == direction


def shouting(message: Message, locale: str) -> str:
    """Translate to upper case with the locale in front."""
    return f"{locale}:{message.fill(message.text.upper().replace('{NAME}', '{name}'))}"


def test_speak_translates_the_values_as_well() -> None:
    """A message may be a value of another one; a plain str stays unchanged."""
    message = Message("a", "hello {name}", name=Message("b", "you"))

    assert speak(message, "xx", shouting) == "xx:HELLO xx:YOU"
    assert speak(message.given(name="Ada"), "xx", shouting) == "xx:HELLO Ada"
    assert speak("hello", "xx", shouting) == "hello"


def test_speak_names_the_message_without_a_translation() -> None:
    """TypeError if the translate function returns no str; it names the message and the remedy."""
    with pytest.raises(TypeError, match=r"translate returned NoneType for 'a'.*messages\.translate"):
        speak(Message("a", "hello"), "xx", lambda message, locale: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("no"), "no"), (ValueError(Message("a", "no")), "no"), (ValueError(5), "5"), (ValueError(), "")],
)
def test_said_is_the_argument_of_the_error_as_text(error: ValueError, text: str) -> None:
    """A str stays unchanged; other values become a str."""
    assert said(error) == text


def test_said_keeps_the_message() -> None:
    """A Message keeps its key, so that it can be translated."""
    message = Message("a", "no")

    assert said(ValueError(message)) is message
