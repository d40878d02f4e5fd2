"""Bearer tokens: RFC 6750 sections 2.1 and 3. Not supported, because they leak: form and query (2.2, 2.3)."""

import re
from collections.abc import Iterable

from asgi_auth.errors import MalformedRequestError

MAX_TOKEN_BYTES = 4096
"""Our tokens are under 1 KiB. A longer one is rejected before the signature check."""

MAX_COPIES = 8
"""The maximum of tokens that are read to revoke sessions. A client sends one; a proxy may add its own."""

_MAX_BYTES = MAX_TOKEN_BYTES + 64
"""The maximum of the header: a token, the scheme and some blanks."""
_BEARER = re.compile(rb"[ \t]*+bearer(?![^ \t])", re.IGNORECASE)
_SCHEME_BYTES = 64
"""The number of bytes in which the scheme must be."""
_BEARER_TOKEN = re.compile(rb"[ \t]*(?i:bearer) +([A-Za-z0-9._~+/-]+=*)[ \t]*")
_NOT_QUOTABLE = re.compile(r"[^\x20-\x7e]")


def read_bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The bearer token of a request (RFC 6750 section 2.1).

    >>> read_bearer([(b"authorization", b"Bearer mF_9.B5f-4.1JqM")])
    'mF_9.B5f-4.1JqM'

    Args:
        headers: As in an ASGI scope: names in lower case.

    Returns:
        The token as the client sent it. None if there is no Authorization header, or only another scheme.

    Raises:
        MalformedRequestError: There is a Bearer header and another Authorization header, or the value is not a b64token
            of at most 4096 bytes.
    """
    values = []
    for name, value in headers:  # no comprehension: it would cost a call at every request
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
    """Every valid bearer token, once each, ignoring invalid values. Use them only to revoke, never to sign in.

    >>> read_every([(b"authorization", b"Bearer a"), (b"authorization", b'Bearer "b"')])
    ['a']

    Raises:
        MalformedRequestError: There are more than 8 different tokens, as each costs work.
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
    """True if there is an Authorization header of the Bearer scheme, also with an invalid token.

    Other schemes do not count: browsers add Basic, Digest and Negotiate on their own, also for other sites.
    """
    return any(name == b"authorization" and _is_bearer(value) for name, value in headers)


def _is_bearer(value: bytes) -> bool:
    return _BEARER.match(value[:_SCHEME_BYTES]) is not None


def challenge(*, realm: str, error: str | None = None, scope: str | None = None) -> str:
    """The value of WWW-Authenticate (RFC 6750 section 3; quoted-string of RFC 9110 section 5.6.4).

    >>> challenge(realm="app", error="invalid_token")
    'Bearer realm="app", error="invalid_token"'

    Args:
        realm: The name of the protected application, for people.
        error: An error code of RFC 6750 section 3.1; None if the client sent no credentials.
        scope: The required scopes, separated by spaces.

    Returns:
        One line of ASCII. Quotes and backslashes are escaped; other characters that cannot be quoted become ``?``.
    """
    parameters = {"realm": realm, "error": error, "scope": scope}
    return "Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters.items() if value is not None)


def _quoted(value: str) -> str:
    text = _NOT_QUOTABLE.sub("?", value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
