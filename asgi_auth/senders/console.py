"""A sender for development: it prints."""

import sys
import unicodedata
from collections.abc import Mapping
from typing import Any, ClassVar, TextIO

from asgi_auth.mail_texts import texts_of


class ConsoleSender:
    """Prints every message, links and all. An ``Authentication`` whose ``base_url`` is https refuses it.

    Args:
        stream: Where to; None: whatever standard output is at that moment.
    """

    local_only: ClassVar[bool] = True
    """A reader of the log could use the links, so it is not for a public instance."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Print one message: whom it is for, what it says, and the link."""
        texts = texts_of(opts)
        lines = [f"--- {opts['purpose']}, to {opts['address']}: {texts.subject}"]
        lines += [*filter(None, (texts.lead, texts.link, texts.expiry, texts.ending, texts.sent_to)), ""]
        stream = self._stream or sys.stdout
        stream.write("".join(f"{_printable(line)}\n" for line in lines))
        stream.flush()


def _printable(line: str) -> str:
    """*line* without characters that a terminal acts upon (AU-3)."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in line)
