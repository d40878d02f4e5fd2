"""Reads the parameters of a client by name and type. A parameter must be text unless another type is declared."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asgi_auth.errors import ValidationError
from asgi_auth.messages import NOT_TEXT, REQUIRED, TOO_LONG

TRUE = frozenset({"true", "on", "1"})
"""The values of a ticked box in a form."""


class Problems(dict[str, str]):
    """The errors of the parameters of one request, by name, so that one response has all of them."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Collect the fields of a ValidationError instead of raising it. The first message of a field stays."""
        try:
            yield
        except ValidationError as exc:
            for name, message in exc.fields.items():
                self.setdefault(name, message)

    def check(self) -> None:
        """Raise ValidationError if there is any error."""
        if self:
            raise ValidationError("parameters are invalid", fields=self)


def read_texts(
    params: Mapping[str, Any], *, required: Iterable[str] = (), optional: Iterable[str] = (), limit: int = 4096
) -> dict[str, str]:
    """The named parameters that are present, each a text of at most *limit* characters.

    >>> read_texts({"email": "a@x.example", "role": "admin"}, required=["email"])
    {'email': 'a@x.example'}

    Raises:
        ValidationError: a parameter is missing, empty, too long or not text; ``fields`` names each.
    """
    texts, problems = dict[str, str](), dict[str, str]()
    for names, needed in ((required, True), (optional, False)):
        for name in names:
            value = params.get(name)
            if value is None or value == "":
                if needed:
                    problems[name] = REQUIRED
            elif not isinstance(value, str):
                problems[name] = NOT_TEXT
            elif len(value) > limit:
                problems[name] = TOO_LONG
            else:
                texts[name] = value
    if problems:
        raise ValidationError("parameters refused", fields=problems)
    return texts


def read_flag(params: Mapping[str, Any], name: str) -> bool:
    """True if a box was ticked: ``true``, ``on`` or ``1`` in a form, ``true`` in JSON. Any other value is False.

    >>> read_flag({"remember_me": "on"}, "remember_me")
    True
    """
    value = params.get(name)
    return value is True or (isinstance(value, str) and value in TRUE)


def without(params: Mapping[str, Any], secrets: Collection[str]) -> dict[str, Any]:
    """*params* without the names in *secrets*, at any depth.

    >>> without({"email": "a", "password": "b", "more": [{"password": "c"}]}, {"password"})
    {'email': 'a', 'more': [{}]}
    """
    return {name: _without(value, secrets) for name, value in params.items() if name not in secrets}


def _without(value: Any, secrets: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return without(value, secrets)
    return [_without(part, secrets) for part in value] if isinstance(value, list | tuple) else value
