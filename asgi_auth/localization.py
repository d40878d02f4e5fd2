"""Localization: in which language a person is spoken to, and how a message is said in it."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from asgi_auth.errors import ConfigurationError
from asgi_auth.messages import ENGLISH, Translate, language_of, languages, speak, translate
from asgi_auth.protocol.languages import preferred_language
from asgi_auth.runtime.callables import refuse_async

ChooseLocale = Callable[[Any, Any], str | None]
"""``locale(connection, user)`` returns a language tag (RFC 5646), or None for what the browser asks for.

One of the two may be None: a mail has no connection, and a request may have no user. ``de_DE`` is taken for ``de-DE``.
What is no tag counts as None. So does a language that the library lacks, unless the application translates.
"""

_TAG = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,7}")


class Localization:
    """Chooses languages and translates, for one ``Authentication``."""

    def __init__(self, translate_: Translate | None, locale: ChooseLocale | None) -> None:
        """Create it.

        Args:
            translate_: Translates for the application; None: the library's own catalogues do.
            locale: Chooses the language; None: the browser does.

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
        """The language of a page or an answer.

        Args:
            connection: The request, for the application's function.
            accept_language: The values of that header.
            user: Who is signed in; None: nobody, or that is not known.
        """
        chosen = self._chosen(connection, user)
        return chosen or preferred_language(accept_language, languages(), default=ENGLISH)

    def of_mail(self, user: Any, asked_in: str) -> str:
        """The language of a mail.

        Args:
            user: Whom it is for; None: there is no user yet.
            asked_in: The language of the request that led to it.
        """
        return self._chosen(None, user) or asked_in

    def _chosen(self, connection: Any, user: Any) -> str | None:
        chosen = None if self._locale is None else self._locale(connection, user)
        if not isinstance(chosen, str):
            return None
        tag = chosen.replace("_", "-")  # as Babel and POSIX write it
        return tag if _TAG.fullmatch(tag) and self._speaks(tag) else None

    def _speaks(self, tag: str) -> bool:
        """Whether a page may say that it is in this language: English text must not be read out as Swedish."""
        return self._speaks_any or language_of(tag) == tag.partition("-")[0].lower()

    def say(self, text: str, locale: str) -> str:
        """*text* in the language of *locale*; a text that is no ``Message`` as it is."""
        return speak(text, locale, self._translate)
