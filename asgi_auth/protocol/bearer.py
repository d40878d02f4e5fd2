"""Bearer tokens: RFC 6750 sections 2.1 and 3. Left out, because they leak: form and query (sections 2.2, 2.3)."""

import re
from collections.abc import Iterable

from asgi_auth.errors import MalformedRequestError

MAX_TOKEN_BYTES = 4096
"""Ours are under 1 KiB; whatever is longer is not worth a signature check."""

MAX_COPIES = 8
"""Tokens that are read to take rights away. A client shows one; a proxy may add its own."""

_MAX_BYTES = MAX_TOKEN_BYTES + 64
"""Of the header: the scheme, and some blanks."""
_BEARER = re.compile(rb"[ \t]*+bearer(?![^ \t])", re.IGNORECASE)
_SCHEME_BYTES = 64
"""Where the scheme is looked for."""
_BEARER_TOKEN = re.compile(rb"[ \t]*(?i:bearer) +([A-Za-z0-9._~+/-]+=*)[ \t]*")
_NOT_QUOTABLE = re.compile(r"[^\x20-\x7e]")


def read_bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The bearer token of a request (RFC 6750 section 2.1).

    >>> read_bearer([(b"authorization", b"Bearer mF_9.B5f-4.1JqM")])
    'mF_9.B5f-4.1JqM'

    Args:
        headers: As in an ASGI scope: names in lower case.

    Returns:
        The token as sent; None if there is no Authorization header, or only another scheme.

    Raises:
        MalformedRequestError: A Bearer header beside another Authorization header, or a value that is no b64token of at
            most 4096 bytes.
    """
    values = []
    for name, value in headers:  # no comprehension: every request pays for its call
        if name == b"authorization":
            values.append(value)
    if not values:
        return None
    token = _token(values[0])
    if token is not None and len(values) == 1:
        return token
    if not any(map(_is_bearer, values)):
        return None
    raise MalformedRequestError("two Authorization headers" if len(values) > 1 else "the Bearer value is not a token")


def read_every(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Every readable bearer token, once each, also beside what is unreadable: to take rights away, never to give them.

    >>> read_every([(b"authorization", b"Bearer a"), (b"authorization", b'Bearer "b"')])
    ['a']

    Raises:
        MalformedRequestError: There are more than 8 different ones, each of which would cost something.
    """
    values = dict.fromkeys(value for name, value in headers if name == b"authorization")
    tokens = [token for token in map(_token, values) if token is not None]
    if len(tokens) > MAX_COPIES:
        raise MalformedRequestError("too many bearer tokens")
    return tokens


def _token(value: bytes) -> str | None:
    sent = _BEARER_TOKEN.fullmatch(value) if len(value) <= _MAX_BYTES else None
    return sent[1].decode("ascii") if sent is not None and len(sent[1]) <= MAX_TOKEN_BYTES else None


def shows_bearer(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether there is an Authorization header of the Bearer scheme, however broken its token is.

    Other schemes do not count: browsers add Basic, Digest and Negotiate by themselves, for other sites, too.
    """
    return any(name == b"authorization" and _is_bearer(value) for name, value in headers)


def _is_bearer(value: bytes) -> bool:
    return _BEARER.match(value[:_SCHEME_BYTES]) is not None


def challenge(*, realm: str, error: str | None = None, scope: str | None = None) -> str:
    """The value of WWW-Authenticate (RFC 6750 section 3; quoted-string of RFC 9110 section 5.6.4).

    >>> challenge(realm="app", error="invalid_token")
    'Bearer realm="app", error="invalid_token"'

    Args:
        realm: What is protected, for people.
        error: An error code of RFC 6750 section 3.1; None if no credentials were shown.
        scope: The scopes that are needed, separated by spaces.

    Returns:
        ASCII in one line, whatever was given: quotes and backslashes are escaped, what cannot be quoted becomes ``?``.
    """
    parameters = {"realm": realm, "error": error, "scope": scope}
    return "Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters.items() if value is not None)


def _quoted(value: str) -> str:
    text = _NOT_QUOTABLE.sub("?", value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
