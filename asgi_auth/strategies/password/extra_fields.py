"""The extra fields of a registration: ``register_fields``."""

from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable, signature
from typing import Any

from asgi_auth.errors import ConfigurationError, ValidationError
from asgi_auth.messages import said
from asgi_auth.protocol.fields import read_texts
from asgi_auth.store import UserStore

RegisterField = Callable[[str | None], Any]
"""Turns the sent text (None: nothing) into the stored value. ValueError(message) rejects it. Plain or async."""

EXTRA_FIELD_LIMIT = 254
"""The most characters of an extra field. It may be an address (RFC 5321 section 4.5.3.1.3, erratum 1690)."""

_IDENTITIES = frozenset({"email", "username"})
_SIGNATURE = "def read(text: str | None), where None means that nothing was sent"


def check_function(name: str, function: object) -> None:
    """Raises ConfigurationError if *function* cannot be called with the text of the field *name*."""
    if not callable(function):
        raise ConfigurationError(f"register_fields: {name!r} must have a function, plain or async: {_SIGNATURE}")
    try:
        signature(function).bind(None)
    except TypeError as exc:
        raise ConfigurationError(
            f"register_fields: the function of {name!r} must take one argument: {_SIGNATURE}"
        ) from exc
    except ValueError:  # some built-ins, such as int, have no signature
        pass


def check_kept(names: Sequence[str], users: UserStore[Any]) -> None:
    """Raises ConfigurationError if the store has ``field_names`` and a field is not among them."""
    kept: frozenset[str] | None = getattr(users, "field_names", None)
    for name in names:
        if name in _IDENTITIES and name not in users.identity_fields:
            raise ConfigurationError(f"register_fields: the store cannot find users by {name!r}")
        if name not in _IDENTITIES and kept is not None and name not in kept:
            listed = ", ".join(sorted(kept - _IDENTITIES)) or "no extra field"
            raise ConfigurationError(f"register_fields: the store does not keep {name!r}; it keeps: {listed}")


async def read_extra_fields(
    declared: Sequence[str] | Mapping[str, RegisterField], params: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of the *declared* fields, as they are stored.

    Raises:
        ValidationError: a text is too long, or a function rejects it; ``fields`` has the messages.
        TypeError: a function raised TypeError; the message names the field.
    """
    texts = read_texts(params, optional=declared, limit=EXTRA_FIELD_LIMIT)
    if not isinstance(declared, Mapping):
        return dict(texts)
    values, problems = dict[str, Any](), dict[str, str]()
    for name, read in declared.items():
        try:
            value = read(texts.get(name))
            values[name] = await value if isawaitable(value) else value
        except ValueError as exc:
            problems[name] = said(exc)
        except TypeError as exc:
            raise TypeError(
                f"register_fields: the function of {name!r} raised TypeError; it is called as {_SIGNATURE}, and "
                "refuses with ValueError(message)"
            ) from exc
    if problems:
        raise ValidationError("extra fields refused", fields=problems)
    return values
