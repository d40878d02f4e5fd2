"""What a client sent, by name and type: every parameter is text until something says otherwise."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asgi_auth.errors import ValidationError
from asgi_auth.messages import NOT_TEXT, REQUIRED, TOO_LONG

TRUE = frozenset({"true", "on", "1"})
"""What a form may send for a ticked box."""


class Problems(dict[str, str]):
    """What is wrong with the parameters of one request, by name, so that one answer tells all of it."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the fields of a ValidationError instead of raising it. The first message of a field stays."""
        try:
            yield
        except ValidationError as exc:
            for name, message in exc.fields.items():
                self.setdefault(name, message)

    def check(self) -> None:
        """ValidationError if anything was noted."""
        if self:
            raise ValidationError("parameters are invalid", fields=self)


def read_texts(
    params: Mapping[str, Any], *, required: Iterable[str] = (), optional: Iterable[str] = (), limit: int = 4096
) -> dict[str, str]:
    """The named parameters that are there, each a text of at most *limit* characters.

    >>> read_texts({"email": "a@x.example", "role": "admin"}, required=["email"])
    {'email': 'a@x.example'}

    Raises:
        ValidationError: one is missing, empty, too long or not text; ``fields`` names every such one.
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
    """Whether a box was ticked: ``true``, ``on`` or ``1`` in a form, ``true`` in JSON; anything else is not.

    >>> read_flag({"remember_me": "on"}, "remember_me")
    True
    """
    value = params.get(name)
    return value is True or (isinstance(value, str) and value in TRUE)


def without(params: Mapping[str, Any], secrets: Collection[str]) -> dict[str, Any]:
    """*params* without what is called like one of *secrets*, at any depth.

    >>> without({"email": "a", "password": "b", "more": [{"password": "c"}]}, {"password"})
    {'email': 'a', 'more': [{}]}
    """
    return {name: _without(value, secrets) for name, value in params.items() if name not in secrets}


def _without(value: Any, secrets: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return without(value, secrets)
    return [_without(part, secrets) for part in value] if isinstance(value, list | tuple) else value
