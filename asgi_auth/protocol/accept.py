"""The representation that a client prefers, JSON or text: RFC 9110 sections 12.4.2 and 12.5.1."""

import re
from collections.abc import Sequence

JSON_RANGES = frozenset({"application/json", "application/problem+json", "application/*"})
TEXT_RANGES = frozenset({"text/html", "text/plain", "text/*"})

_RANGES = dict.fromkeys(JSON_RANGES, "json") | dict.fromkeys(TEXT_RANGES, "text")
_LIMIT = 1024
"""Characters that are read, several times what browsers send. 64 KiB of commas would block the event loop."""
_QVALUE = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def prefers_json(accept: Sequence[str], *, json_body: bool) -> bool:
    """True if the response should be JSON and not text.

    ``*/*`` names neither. A range with quality 0 or an invalid quality is ignored. Never raises.

    >>> prefers_json(["text/html;q=0.5, application/json"], json_body=False)
    True

    Args:
        accept: The value of every Accept header.
        json_body: True if the request itself has JSON. This decides if Accept prefers neither.
    """
    qualities = dict.fromkeys(("json", "text"), 0.0)
    for item in ",".join(accept)[:_LIMIT].split(","):
        media_range, _, parameters = item.partition(";")
        kind = _RANGES.get(media_range.strip().lower())
        if kind:
            qualities[kind] = max(qualities[kind], _quality(parameters))
    # A JSON body decides a tie: many clients that know only JSON send "application/json, text/plain, */*".
    return qualities["json"] > qualities["text"] or (json_body and qualities["json"] == qualities["text"])


def _quality(parameters: str) -> float:
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            return float(value) if _QVALUE.fullmatch(value) else 0.0
    return 1.0
