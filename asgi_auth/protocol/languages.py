"""Which language a client reads: Accept-Language (RFC 9110 section 12.5.4), by lookup (RFC 4647 section 3.4)."""

import re
from collections.abc import Collection, Sequence

MAX_RANGES = 32
"""Language ranges that are read. A browser sends a handful."""

_RANGE = re.compile(
    r"[ \t]*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,7})[ \t]*(?:;[ \t]*[qQ]=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)


def preferred_language(headers: Sequence[str], available: Collection[str], *, default: str) -> str:
    """The language of *available* that the client likes best.

    >>> preferred_language(["fr-CH, fr;q=0.9, de;q=0.7"], ["de", "en"], default="en")
    'de'

    Args:
        headers: The values of Accept-Language. What cannot be read is passed over.
        available: Language tags, in lower case.
        default: What to answer if none fits, or if there is no header.
    """
    found = [match.groups() for text in ",".join(headers).split(",")[:MAX_RANGES] if (match := _RANGE.fullmatch(text))]
    wanted = [(tag.lower(), float(quality or 1)) for tag, quality in found]
    for tag, quality in sorted(wanted, key=lambda each: -each[1]):
        while tag and quality:
            if tag in available:
                return tag
            tag = _shortened(tag)
    return default


def _shortened(tag: str) -> str:
    """*tag* without its last part, and without a single letter before that."""
    head = tag.rpartition("-")[0]
    return _shortened(head) if head[-2:-1] == "-" else head
