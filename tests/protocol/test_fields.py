"""asgi_auth.protocol.fields: parameters must be text (PW-11)."""

from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.protocol.fields import read_flag, read_texts

NOT_TEXT: list[Any] = [True, False, 0, 1.5, [], ["a"], {}, {"a": "b"}, b"bytes"]


def test_texts_reads_only_what_is_named() -> None:
    """AC-8: parameters that are not named are ignored."""
    params = {"email": "a@x.example", "name": "Alice", "role": "admin", "id": "1"}
    assert read_texts(params, required=["email"], optional=["name", "phone"]) == {
        "email": "a@x.example",
        "name": "Alice",
    }


@pytest.mark.parametrize("value", NOT_TEXT, ids=repr)
def test_texts_refuses_what_is_not_text(value: Any) -> None:
    """PW-11: only text is valid, also for optional parameters."""
    for required, optional in ((["email"], []), ([], ["email"])):
        with pytest.raises(ValidationError) as refused:
            read_texts({"email": value}, required=required, optional=optional)
        assert dict(refused.value.fields) == {"email": "This must be text."}


@pytest.mark.parametrize("params", [{}, {"email": None}, {"email": ""}])
def test_texts_asks_for_what_is_needed(params: dict[str, Any]) -> None:
    """Absent, null and empty are the same: an error if the parameter is required, left out if it is optional."""
    with pytest.raises(ValidationError) as refused:
        read_texts(params, required=["email"])
    assert dict(refused.value.fields) == {"email": "This field is required."}
    assert read_texts(params, optional=["email"]) == {}


def test_texts_names_everything_that_is_wrong() -> None:
    """One answer names every invalid parameter."""
    with pytest.raises(ValidationError) as refused:
        read_texts({"email": 1, "name": "x" * 11}, required=["email", "password"], optional=["name"], limit=10)
    assert dict(refused.value.fields) == {
        "email": "This must be text.",
        "password": "This field is required.",
        "name": "This text is too long.",
    }


def test_texts_has_a_limit() -> None:
    """A text may not be longer than the limit."""
    assert read_texts({"name": "é" * 10}, optional=["name"], limit=10) == {"name": "é" * 10}
    assert read_texts({"name": "x" * 4096}, optional=["name"]) == {"name": "x" * 4096}
    with pytest.raises(ValidationError):
        read_texts({"name": "x" * 4097}, optional=["name"])


@pytest.mark.parametrize("value", ["true", "on", "1", True])
def test_flag_is_set(value: Any) -> None:
    """The values of a ticked box, and true in JSON, set the flag."""
    assert read_flag({"remember_me": value}, "remember_me") is True


@pytest.mark.parametrize("value", [None, "", "0", "false", "off", "TRUE", "yes", False, 1, 1.0, ["true"], {}], ids=repr)
def test_flag_is_not_set(value: Any) -> None:
    """No other value sets the flag, not even the number 1."""
    assert read_flag({"remember_me": value}, "remember_me") is False
    assert read_flag({}, "remember_me") is False
