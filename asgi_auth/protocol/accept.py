"""Which representation a client would rather have: RFC 9110 sections 12.4.2 and 12.5.1, for JSON against text."""

import re
from collections.abc import Sequence

JSON_RANGES = frozenset({"application/json", "application/problem+json", "application/*"})
TEXT_RANGES = frozenset({"text/html", "text/plain", "text/*"})

_RANGES = dict.fromkeys(JSON_RANGES, "json") | dict.fromkeys(TEXT_RANGES, "text")
_LIMIT = 1024
"""Characters that are looked at, several times what browsers send: 64 KiB of commas would stop the loop a while."""
_QVALUE = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def prefers_json(accept: Sequence[str], *, json_body: bool) -> bool:
    """Whether to answer JSON rather than text.

    ``*/*`` names neither, and a range with quality 0 or an unreadable quality counts as not there. Never raises.

    >>> prefers_json(["text/html;q=0.5, application/json"], json_body=False)
    True

    Args:
        accept: The value of every Accept header.
        json_body: The request itself carried JSON, which decides where Accept puts neither first.
    """
    qualities = dict.fromkeys(("json", "text"), 0.0)
    for item in ",".join(accept)[:_LIMIT].split(","):
        media_range, _, parameters = item.partition(";")
        kind = _RANGES.get(media_range.strip().lower())
        if kind:
            qualities[kind] = max(qualities[kind], _quality(parameters))
    # A body of JSON tips the scale: many a client that speaks nothing else sends "application/json, text/plain, */*".
    return qualities["json"] > qualities["text"] or (json_body and qualities["json"] == qualities["text"])


def _quality(parameters: str) -> float:
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            return float(value) if _QVALUE.fullmatch(value) else 0.0
    return 1.0
