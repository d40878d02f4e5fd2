"""Localization: chooses the language of a page or a mail, and translates messages."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from asgi_auth.errors import ConfigurationError
from asgi_auth.messages import ENGLISH, Translate, language_of, languages, speak, translate
from asgi_auth.protocol.languages import preferred_language
from asgi_auth.runtime.callables import refuse_async

ChooseLocale = Callable[[Any, Any], str | None]
"""``locale(connection, user)`` returns a language tag (RFC 5646), or None for the language of the browser.

One of the arguments may be None: a mail has no connection, and a request may have no user. ``de_DE`` means ``de-DE``.
An invalid tag counts as None. So does a language that the library lacks, unless the application translates.
"""

_TAG = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,7}")


class Localization:
    """Chooses languages and translates, for one ``Authentication``."""

    def __init__(self, translate_: Translate | None, locale: ChooseLocale | None) -> None:
        """Create it.

        Args:
            translate_: The application's function; None: the library's own catalogues.
            locale: Chooses the language; None: the browser chooses it.

        Raises:
            ConfigurationError: one of them is not a plain function.
        """
        for name, function in (("translate", translate_), ("locale", locale)):
            if function is not None:
                if not callable(function):
                    raise ConfigurationError(f"{name} must be a plain function")
                refuse_async(name, function)
        self._translate, self._locale = translate_ or translate, locale
        self._speaks_any = translate_ is not None

    def of_request(self, connection: Any, accept_language: Sequence[str], user: Any = None) -> str:
        """The language of a page or a response.

        Args:
            connection: The request, for the application's function.
            accept_language: The values of the Accept-Language headers.
            user: The user who is signed in; None: no user is, or the user is not known.
        """
        chosen = self._chosen(connection, user)
        return chosen or preferred_language(accept_language, languages(), default=ENGLISH)

    def of_mail(self, user: Any, asked_in: str) -> str:
        """The language of a mail.

        Args:
            user: The recipient; None: there is no user yet.
            asked_in: The language of the request that caused the mail.
        """
        return self._chosen(None, user) or asked_in

    def _chosen(self, connection: Any, user: Any) -> str | None:
        chosen = None if self._locale is None else self._locale(connection, user)
        if not isinstance(chosen, str):
            return None
        tag = chosen.replace("_", "-")  # as Babel and POSIX write it
        return tag if _TAG.fullmatch(tag) and self._speaks(tag) else None

    def _speaks(self, tag: str) -> bool:
        """True if texts exist in this language. A screen reader must not read English text as Swedish."""
        return self._speaks_any or language_of(tag) == tag.partition("-")[0].lower()

    def say(self, text: str, locale: str) -> str:
        """*text* in the language of *locale*. A text that is not a ``Message`` stays the same."""
        return speak(text, locale, self._translate)
