"""Request bodies: media types (RFC 9110 section 8.3), JSON (RFC 8259, RFC 7493) and forms (URL Standard section 5.1).

Stricter than the standards where two readers could see two different things in one body: what is doubtful is refused.
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
"""What databases can hold; JSON itself has no limit (RFC 8259 section 6)."""
MAX_MARKS = 1000
"""Commas, brackets and quotation marks in JSON, those in texts included: what a decoder spends its time on."""
MAX_HEADER_BYTES = 256
MAX_QUERY_BYTES = 16 * 1024
"""A link's token and a ``return_to``, and the long codes of some providers."""

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
    """What a body is, by its Content-Type.

    The whole value is read, never searched: a type that merely contains ``application/json`` may pass a browser as one
    that needs no preflight (CF-4).

    >>> media_type(b"application/json; charset=utf-8")
    'json'

    Args:
        value: The one Content-Type header; None if there is none.

    Raises:
        MediaTypeError: It is neither ``application/json`` nor ``application/x-www-form-urlencoded``, or in a charset
            other than UTF-8, or cannot be read.
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
    """The JSON object that *body* is; ``{}`` for an empty body.

    >>> parse_json(b'{"email": "a@example.com"}')
    {'email': 'a@example.com'}

    Raises:
        MalformedRequestError: It is no JSON object in UTF-8 without BOM; a key occurs twice; an object has more than 50
            members; it is nested deeper than 16; it has more than 1,000 commas, brackets and quotation marks; a number
            is not finite or outside 64 bits; a text has a lone surrogate.
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
    """The value; None if it is no JSON. Raised by the caller: what is caught here holds the body, secrets and all."""
    try:
        text = body.decode("utf-8")
        _check_depth(text)
        value: object = _DECODER.decode(text)
        if "\\u" in text:  # only an escape can be a lone surrogate; this fails wherever it is
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except ValueError:
        return None
    return value


def _check_depth(text: str) -> None:
    """Before decoding: the decoder recurses. An unfinished string is skipped to its end, so this is one linear pass."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise MalformedRequestError("the body is nested too deeply")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two fields with one name, some readers see the first and some the last (RP-3, RP-4)."""
    if len(pairs) > MAX_FIELDS:
        raise MalformedRequestError("there are too many fields")
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            shown = name.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate could not be sent back
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
    """The fields of an urlencoded form; ``{}`` for an empty body.

    >>> parse_form(b"email=a%40example.com")
    {'email': 'a@example.com'}

    Raises:
        MediaTypeError: It is JSON, which ``curl -d`` and others send as a form unless they are told otherwise.
        MalformedRequestError: An escape is broken, or what it stands for is not UTF-8; a name occurs twice (it is named
            in ``fields``); there are more than 50 fields.
    """
    if body.lstrip().startswith(b"{"):  # no encoder of forms leaves a brace as it is
        raise MediaTypeError("the body of the form is JSON", detail=_JSON_IN_A_FORM)
    return _parse_pairs(body)


def _parse_pairs(body: bytes) -> dict[str, str]:
    if body.count(b"&") > MAX_FIELDS:  # asked before anything is decoded
        raise MalformedRequestError("there are too many fields")
    pairs = [pair.partition(b"=") for pair in body.split(b"&") if pair]
    fields = _decoded_form((name, value) for name, _, value in pairs)
    if fields is None:
        raise MalformedRequestError("the form has a broken escape or is not UTF-8")
    return _without_duplicates(fields)


def parse_query(query: bytes) -> dict[str, str]:
    """The query of a URL, as strictly read as a form.

    Raises:
        MalformedRequestError: It is over 16 KiB, names a parameter twice, or cannot be read.
    """
    if len(query) > MAX_QUERY_BYTES:
        raise MalformedRequestError("the query is too long")
    return _parse_pairs(query)


def _decoded_form(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]] | None:
    """The fields; None if one cannot be read. Raised by the caller, as in ``_decoded_json``."""
    try:
        return [(_unquoted(name), _unquoted(value)) for name, value in pairs]
    except ValueError:
        return None


def _unquoted(part: bytes) -> str:
    r"""What *part* stands for. ValueError: an escape is broken, or it is not UTF-8.

    ``%41`` is read as ``\x41``, by the decoder of Python's own literals: that of ``urllib`` is written in Python and
    takes thirty times as long, which adds up in a form of 64 KiB.
    """
    escaped = part.replace(b"+", b" ").replace(b"\\", b"\\\\").replace(b"%", b"\\x")
    return escaped.decode("unicode_escape").encode("latin-1").decode("utf-8")
