"""Message: a text that a person can see, and its translation.

The catalogues of the library are in ``locale``: gettext files, one for each language. The context of an entry (msgctxt)
is the key of the message, and its msgid is the English text.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from gettext import GNUTranslations, NullTranslations, translation
from pathlib import Path
from typing import Any, Self

DOMAIN = "asgi_auth"
LOCALES = Path(__file__).parent / "locale"
ENGLISH = "en"

_RIGHT_TO_LEFT = frozenset({"ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"})


class Message(str):
    """A text for a person: the English ``str``, with the values that its translations need.

    >>> Message("mail.subject", "Your account at {app_name}", app_name="Zoo")
    'Your account at Zoo'

    Args:
        key: The stable name of the text, such as ``field.required``.
        text: The English text. ``{name}`` stands for a value.
        plural: The English text if ``count`` is not 1; None: there is only one form.
        values: The values by name; with a plural, ``count`` among them. A value may be a ``Message`` itself.
    """

    key: str
    text: str
    plural: str | None
    values: Mapping[str, Any]

    __slots__ = ("key", "plural", "text", "values")

    def __new__(cls, key: str, text: str, plural: str | None = None, /, **values: Any) -> Self:
        form = text if plural is None or values["count"] == 1 else plural
        message = super().__new__(cls, form.format_map(values) if values else form)
        message.key, message.text, message.plural, message.values = key, text, plural, values
        return message

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.key, self.text, self.plural, **self.values), ()

    def fill(self, text: str) -> str:
        """Put the values of this message into another *text*, such as a translation.

        Raises:
            KeyError: *text* names a value that this message does not have.
        """
        return text.format_map(self.values) if self.values else text

    def given(self, **values: Any) -> "Message":
        """The same message with further values."""
        return type(self)(self.key, self.text, self.plural, **{**self.values, **values})


Translate = Callable[[Message, str], str]
"""``translate(message, locale)`` returns the text of *message* in the language *locale*, such as ``pt-BR``."""


def translate(message: Message, locale: str) -> str:
    """The text of *message* by the catalogues of the library; in English if there is none for *locale*.

    Args:
        message: The message to translate.
        locale: A language tag (RFC 5646), such as ``de`` or ``pt-BR``.
    """
    catalogue = _catalogue(language_of(locale))
    if direction_of(language_of(locale)) == "rtl":
        message = message.given(**{name: _isolated(value) for name, value in message.values.items()})
    if message.plural is None:
        return message.fill(catalogue.pgettext(message.key, message.text))
    count = message.values["count"]
    return message.fill(catalogue.npgettext(message.key, message.text, message.plural, count))


def _isolated(value: Any) -> Any:
    """A text that is written from left to right, such as an address, apart from the Arabic around it (UAX 9)."""
    return f"\N{FIRST STRONG ISOLATE}{value}\N{POP DIRECTIONAL ISOLATE}" if isinstance(value, str) else value


def speak(text: str, locale: str, translate: Translate) -> str:
    """Translate *text*, and the messages among its values, to *locale*. A plain text stays the same."""
    if not isinstance(text, Message):
        return text
    if any(isinstance(value, Message) for value in text.values.values()):
        text = text.given(**{name: speak(value, locale, translate) for name, value in text.values.items()})
    said: object = translate(text, locale)  # the application's code may return anything
    if not isinstance(said, str):
        kind = type(said).__name__
        raise TypeError(f"translate returned {kind} for {text.key!r}: return asgi_auth.messages.translate(…) instead")
    return said


@cache
def languages() -> frozenset[str]:
    """The languages that the library has: English, and those with a catalogue."""
    return frozenset({ENGLISH, *(path.parts[-3] for path in LOCALES.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))})


def language_of(locale: str) -> str:
    """The library's language for *locale*: the first part of the tag, or English."""
    language = locale.partition("-")[0].lower()
    return language if language in languages() else ENGLISH


def direction_of(locale: str) -> str:
    """``rtl`` for a language that is written from right to left, such as Arabic; else ``ltr``. The ``dir`` of HTML."""
    return "rtl" if locale.partition("-")[0].lower() in _RIGHT_TO_LEFT else "ltr"


@cache
def _catalogue(language: str) -> NullTranslations | GNUTranslations:
    return translation(DOMAIN, LOCALES, languages=[language], fallback=True)


# --- messages about a field that several modules use

REQUIRED = Message("field.required", "This field is required.")
NOT_TEXT = Message("field.not_text", "This must be text.")
TOO_LONG = Message("field.too_long", "This text is too long.")
NOT_STORABLE = Message("field.not_storable", "This value cannot be stored.")
NOT_SUPPORTED = Message("field.not_supported", "This is not supported here.")
ADDRESS_TAKEN = Message("field.address_taken", "There is already an account with this address.")
NAME_TAKEN = Message("field.name_taken", "This name is taken. Choose another one.")


def said(error: ValueError) -> str:
    """The text for the user in *error*: the ``Message`` itself, not only its English text."""
    text = error.args[0] if error.args else ""
    return text if isinstance(text, str) else str(error)
