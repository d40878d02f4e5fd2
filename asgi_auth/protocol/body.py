"""Request bodies: media types (RFC 9110 section 8.3), JSON (RFC 8259, RFC 7493) and forms (URL Standard section 5.1).

It is stricter than the standards: a body that two parsers could read differently is rejected.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Literal, NoReturn

from asgi_auth.errors import MalformedRequestError, MediaTypeError
from asgi_auth.messages import Message

MAX_FIELDS = 50
MAX_DEPTH = 16
MAX_INT = 2**63 - 1
"""The largest integer of databases. JSON itself has no limit (RFC 8259 section 6)."""
MAX_MARKS = 1000
"""The maximum of commas, brackets and quotation marks in JSON, also inside texts. They cost the decoder time."""
MAX_HEADER_BYTES = 256
MAX_QUERY_BYTES = 16 * 1024
"""Enough for a link's token, a ``return_to`` and the long codes of some providers."""

_TWICE = Message("field.twice", "This was given twice.")
_JSON_TYPE, _FORM_TYPE = "application/json", "application/x-www-form-urlencoded"
_SEND = f"Send the header 'Content-Type: {_JSON_TYPE}' with a JSON object, or 'Content-Type: {_FORM_TYPE}' with a form."
_NO_MULTIPART = (
    f"multipart/form-data is not supported. Send the form as {_FORM_TYPE}: in HTML without enctype, in JavaScript as "
    "new URLSearchParams(new FormData(form))."
)
_JSON_IN_A_FORM = (
    f"The body is JSON, but the Content-Type header says {_FORM_TYPE}. Send the header 'Content-Type: {_JSON_TYPE}'."
)
_MARKS = (b",", b"[", b"{", b'"')
_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf';[ \t]*(?:({_TCHARS})=({_TCHARS}|"[^"\\]*"))?[ \t]*')
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def media_type(value: bytes | None) -> Literal["json", "form"]:
    """The kind of a body, by its Content-Type.

    The whole value must match. Browsers may send a type that only contains ``application/json`` without a preflight
    (CF-4).

    >>> media_type(b"application/json; charset=utf-8")
    'json'

    Args:
        value: The one Content-Type header; None if there is none.

    Raises:
        MediaTypeError: It is neither ``application/json`` nor ``application/x-www-form-urlencoded``, has a charset
            other than UTF-8, or is malformed.
    """
    if value is None:
        raise MediaTypeError("there is no Content-Type", detail=f"There is no Content-Type header. {_SEND}")
    if len(value) > MAX_HEADER_BYTES:
        raise MediaTypeError("the Content-Type is too long", detail=_SEND)
    essence, semicolon, rest = value.decode("latin-1").strip(" \t").partition(";")
    _check_charset(semicolon + rest)
    match essence.rstrip(" \t").lower():
        case "application/json":
            return "json"
        case "application/x-www-form-urlencoded":
            return "form"
        case "multipart/form-data":
            raise MediaTypeError("the form is multipart/form-data", detail=_NO_MULTIPART)
    raise MediaTypeError("the body is neither JSON nor a form", detail=f"This Content-Type is not supported. {_SEND}")


def _check_charset(parameters: str) -> None:
    position, charsets = 0, []
    while match := _PARAMETER.match(parameters, position):
        position = match.end()
        if match[1] and match[1].lower() == "charset":
            charsets.append(match[2].strip('"').lower())
    if position != len(parameters):
        raise MediaTypeError("the parameters of the Content-Type cannot be read", detail=_SEND)
    if charsets not in ([], ["utf-8"]):
        raise MediaTypeError("the charset is not UTF-8", detail=f"The charset must be UTF-8. {_SEND}")


def parse_json(body: bytes) -> dict[str, Any]:
    """Parse *body* as a JSON object. An empty body gives ``{}``.

    >>> parse_json(b'{"email": "a@example.com"}')
    {'email': 'a@example.com'}

    Raises:
        MalformedRequestError: It is not a JSON object in UTF-8 without BOM; a key occurs twice; an object has more than
            50 members; it is nested deeper than 16; it has more than 1,000 commas, brackets and quotation marks; a
            number is not finite or exceeds 64 bits; a text has a lone surrogate.
    """
    if not body:
        return {}
    if sum(map(body.count, _MARKS)) > MAX_MARKS:
        raise MalformedRequestError("there are too many values")
    value = _decoded_json(body)
    if not isinstance(value, dict):
        raise MalformedRequestError("the body is not a JSON object")
    return value


def _decoded_json(body: bytes) -> object:
    """The value; None if it is not JSON. The caller raises, as an exception from here would hold the body's secrets."""
    try:
        text = body.decode("utf-8")
        _check_depth(text)
        value: object = _DECODER.decode(text)
        if "\\u" in text:  # only an escape can be a lone surrogate; this fails for every one
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except ValueError:
        return None
    return value


def _check_depth(text: str) -> None:
    """Check the depth first, as the decoder recurses. An unfinished string is skipped, so this takes linear time."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise MalformedRequestError("the body is nested too deeply")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject two fields with the same name: some parsers use the first, some the last (RP-3, RP-4)."""
    if len(pairs) > MAX_FIELDS:
        raise MalformedRequestError("there are too many fields")
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            shown = name.encode("utf-8", "replace").decode("utf-8")  # a response cannot hold a lone surrogate
            raise MalformedRequestError("a field was given twice", fields={shown: _TWICE})
        fields[name] = value
    return fields


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) > MAX_INT:
        raise ValueError("an integer is too large")
    return number


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_int=_integer, parse_float=_finite, parse_constant=_constant
)


def parse_form(body: bytes) -> dict[str, str]:
    """Parse an urlencoded form. An empty body gives ``{}``.

    >>> parse_form(b"email=a%40example.com")
    {'email': 'a@example.com'}

    Raises:
        MediaTypeError: It is JSON, which ``curl -d`` and other clients send as a form by default.
        MalformedRequestError: An escape is invalid, or its bytes are not UTF-8; a name occurs twice (``fields`` names
            it); there are more than 50 fields.
    """
    if body.lstrip().startswith(b"{"):  # every encoder of forms escapes a brace
        raise MediaTypeError("the body of the form is JSON", detail=_JSON_IN_A_FORM)
    return _parse_pairs(body)


def _parse_pairs(body: bytes) -> dict[str, str]:
    if body.count(b"&") > MAX_FIELDS:  # checked before any decoding
        raise MalformedRequestError("there are too many fields")
    pairs = [pair.partition(b"=") for pair in body.split(b"&") if pair]
    fields = _decoded_form((name, value) for name, _, value in pairs)
    if fields is None:
        raise MalformedRequestError("the form has a broken escape or is not UTF-8")
    return _without_duplicates(fields)


def parse_query(query: bytes) -> dict[str, str]:
    """Parse the query of a URL, as strictly as a form.

    Raises:
        MalformedRequestError: It is over 16 KiB, has a parameter twice, or is malformed.
    """
    if len(query) > MAX_QUERY_BYTES:
        raise MalformedRequestError("the query is too long")
    return _parse_pairs(query)


def _decoded_form(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]] | None:
    """The fields; None if one is malformed. The caller raises, as in ``_decoded_json``."""
    try:
        return [(_unquoted(name), _unquoted(value)) for name, value in pairs]
    except ValueError:
        return None


def _unquoted(part: bytes) -> str:
    r"""Decode *part*. Raises ValueError if an escape is invalid, or if the bytes are not UTF-8.

    The decoder of Python's literals reads ``%41`` as ``\x41``. The decoder of ``urllib`` is written in Python and takes
    thirty times as long, which matters for a form of 64 KiB.
    """
    escaped = part.replace(b"+", b" ").replace(b"\\", b"\\\\").replace(b"%", b"\\x")
    return escaped.decode("unicode_escape").encode("latin-1").decode("utf-8")
