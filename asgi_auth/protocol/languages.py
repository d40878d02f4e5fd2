"""The language of a client: Accept-Language (RFC 9110 section 12.5.4), by lookup (RFC 4647 section 3.4)."""

import re
from collections.abc import Collection, Sequence

MAX_RANGES = 32
"""The maximum of language ranges that are read. A browser sends a few."""

_RANGE = re.compile(
    r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,7})(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)


def preferred_language(headers: Sequence[str], available: Collection[str], *, default: str) -> str:
    """The language of *available* that the client prefers.

    >>> preferred_language(["fr-CH, fr;q=0.9, de;q=0.7"], ["de", "en"], default="en")
    'de'

    Args:
        headers: The values of Accept-Language. Malformed ranges and ``*`` are ignored.
        available: Language tags, in lower case.
        default: The result if no language matches, or if there is no header.
    """
    wanted = dict[str, float]()
    for text in ",".join(headers).split(",", MAX_RANGES)[:MAX_RANGES]:
        if (found := _RANGE.fullmatch(text.strip(" \t"))) is not None:
            wanted.setdefault(found[1].lower(), float(found[2] or 1))
    for tag in sorted(wanted, key=wanted.__getitem__, reverse=True):
        if wanted[tag] and (fitting := _fitting(tag, available)) is not None and wanted.get(fitting, 1):
            return fitting
    return default


def _fitting(tag: str, available: Collection[str]) -> str | None:
    """*tag*, or the longest available beginning of it. Returns None if there is none."""
    while tag and tag not in available:
        tag = tag.rpartition("-")[0]  # no available tag ends with a single letter
    return tag or None
