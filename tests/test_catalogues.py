"""Every text of the library is translated into every language."""

import re
from gettext import GNUTranslations
from io import BytesIO
from pathlib import Path

import pytest

from asgi_auth.messages import LOCALES, Message, languages, translate
from tests import catalogues
from tests.catalogues import compiled, messages, path_of, read, updated

LANGUAGES = ["ar", "de", "es", "fr", "it", "ja", "nl", "pl", "pt"]
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def _forms(language: str) -> dict[str, list[str]]:
    """Every form of every translation, by key."""
    entries = {str(entry.context): entry.string for entry in read(language) if entry.id}
    return {key: [text] if isinstance(text, str) else list(text or ()) for key, text in entries.items()}


def test_library_has_the_documented_languages() -> None:
    """The documentation promises English and these languages."""
    assert languages() == {"en", *LANGUAGES}
    assert sorted(path.name for path in LOCALES.iterdir()) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language: str) -> None:
    """No key is missing or superfluous, no form is empty, and each entry has the current English text."""
    expected = {key: texts if len(texts) > 1 else texts[0] for key, texts in messages().items()}

    assert {entry.context: entry.id for entry in read(language) if entry.id} == expected
    assert [key for key, forms in _forms(language).items() if not all(form.strip() for form in forms)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_have_the_placeholders(language: str) -> None:
    """Every form has the same placeholders as the English text: a wrong one would change the message or fail."""
    expected = {key: set(_PLACEHOLDER.findall(texts[-1])) for key, texts in messages().items()}
    wrong = [
        key
        for key, forms in _forms(language).items()
        if any(set(_PLACEHOLDER.findall(form)) != expected[key] for form in forms)
    ]
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogue_matches_its_source(language: str) -> None:
    """The ``.mo`` file matches the ``.po`` file. If it fails, run ``tox -e catalogues``."""

    def texts(compiled_: bytes) -> dict[object, str]:
        found = GNUTranslations(BytesIO(compiled_))._catalog  # type: ignore[attr-defined]  # there is no other way
        return {key: text for key, text in found.items() if key}

    assert texts(path_of(language, "mo").read_bytes()) == texts(compiled(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_library_finds_every_translation(language: str) -> None:
    """The library finds each translation by its key and its English text."""
    forms = _forms(language)
    for key, (text, *plural) in messages().items():
        names = set(_PLACEHOLDER.findall(" ".join((text, *plural))))
        message = Message(key, text, *plural, **dict.fromkeys(names, 7))
        assert translate(message, language) in [message.fill(form) for form in forms[key]]


@pytest.mark.parametrize(
    ("language", "count", "text"),
    [
        ("de", 1, "Zu viele Versuche. Versuchen Sie es in 1 Minute erneut."),
        ("de", 2, "Zu viele Versuche. Versuchen Sie es in 2 Minuten erneut."),
        ("pl", 3, "Zbyt wiele prób. Spróbuj ponownie za 3 minuty."),
        ("pl", 5, "Zbyt wiele prób. Spróbuj ponownie za 5 minut."),
        ("ja", 1, "試行回数が多すぎます。1 分後にもう一度お試しください。"),
    ],
)
def test_translation_uses_the_plural_form_of_the_language(language: str, count: int, text: str) -> None:
    """Each language has the plural forms that it requires."""
    one, other = messages()["form.wait_minutes"]
    assert translate(Message("form.wait_minutes", one, other, count=count), language) == text


def test_address_stays_in_order_in_arabic() -> None:
    """UAX 9: without the isolate, the full stop would appear before the address."""
    message = Message("account.proven", "{address} is confirmed.", address="alice@mail.example.org")

    assert "\u2068alice@mail.example.org\u2069" in translate(message, "ar")
    assert "\u2068" not in translate(message, "de")


def test_update_keeps_translations() -> None:
    """A new text has an empty translation, so that the test above finds it; existing translations stay."""
    catalogue = updated("de", {"accept.button": "Annehmen"})
    strings = {str(entry.context): entry.string for entry in catalogue if entry.id}

    assert strings["accept.button"] == "Annehmen"
    assert not strings["decline.button"]
    assert strings.keys() == messages().keys()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('Message("a", text)', "a.py:1: a Message must be written out"),
        ('Message("a")', "a.py:1: a Message must be written out"),
        ('Message("a", "A")\nMessage("a", "B")', "a.py:2: a has another text elsewhere"),
    ],
)
def test_message_arguments_must_be_literals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, problem: str
) -> None:
    """A message whose arguments are not literals, or whose key has two texts, is an error."""
    (tmp_path / "a.py").write_text(source)
    monkeypatch.setattr(catalogues, "PACKAGE", tmp_path)

    with pytest.raises(ValueError, match=problem):
        messages()


def test_catalogues_are_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A translation stays unless its English text has changed; then it is removed."""
    package, locales = tmp_path / "package", tmp_path / "locale"
    package.mkdir()
    monkeypatch.setattr(catalogues, "PACKAGE", package)
    monkeypatch.setattr(catalogues, "LOCALES", locales)
    (package / "a.py").write_text('Message("a", "A")\nMessage("b", "B")')
    catalogues.write("de", updated("de", {"a": "Ah", "b": "Beh"}))
    (package / "a.py").write_text('Message("a", "A")\nMessage("b", "Bee")\nMessage("c", "One", "Many", count=1)')
    catalogues.main()

    assert {str(entry.context): entry.string for entry in read("de") if entry.id} == {
        "a": "Ah",
        "b": "",
        "c": ("", ""),
    }
    assert path_of("de", "mo").exists()
