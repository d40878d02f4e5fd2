"""A sender for development. It prints messages."""

import sys
import unicodedata
from collections.abc import Mapping
from typing import Any, ClassVar, TextIO

from asgi_auth.mail_texts import texts_of


class ConsoleSender:
    """Prints every message with its links. An ``Authentication`` whose ``base_url`` is https refuses it.

    Args:
        stream: The stream to print to; None: the standard output at that moment.
    """

    local_only: ClassVar[bool] = True
    """Not for a public instance, because readers of the log could use the links."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    async def send(self, user: Any, token: str | None, opts: Mapping[str, Any]) -> None:
        """Print one message: the recipient, the text and the link."""
        texts = texts_of(opts)
        lines = [f"--- {opts['purpose']}, to {opts['address']}: {texts.subject}"]
        lines += [*filter(None, (texts.lead, texts.link, texts.expiry, texts.ending, texts.sent_to)), ""]
        stream = self._stream or sys.stdout
        stream.write("".join(f"{_printable(line)}\n" for line in lines))
        stream.flush()


def _printable(line: str) -> str:
    """*line* without characters that control a terminal (AU-3)."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in line)
