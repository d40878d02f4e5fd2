"""asgi_auth.protocol.fields: every parameter is text until something says otherwise (PW-11)."""

from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.protocol.fields import read_flag, read_texts

NOT_TEXT: list[Any] = [True, False, 0, 1.5, [], ["a"], {}, {"a": "b"}, b"bytes"]


def test_texts_reads_only_what_is_named() -> None:
    """AC-8: what nobody asked for is left behind."""
    params = {"email": "a@x.example", "name": "Alice", "role": "admin", "id": "1"}
    assert read_texts(params, required=["email"], optional=["name", "phone"]) == {
        "email": "a@x.example",
        "name": "Alice",
    }


@pytest.mark.parametrize("value", NOT_TEXT, ids=repr)
def test_texts_refuses_what_is_not_text(value: Any) -> None:
    """PW-11: JSON may send anything; only text is taken, needed or not."""
    for required, optional in ((["email"], []), ([], ["email"])):
        with pytest.raises(ValidationError) as refused:
            read_texts({"email": value}, required=required, optional=optional)
        assert dict(refused.value.fields) == {"email": "This must be text."}


@pytest.mark.parametrize("params", [{}, {"email": None}, {"email": ""}])
def test_texts_asks_for_what_is_needed(params: dict[str, Any]) -> None:
    """Absent, null and empty are the same: missing where it is needed, left out where it is not."""
    with pytest.raises(ValidationError) as refused:
        read_texts(params, required=["email"])
    assert dict(refused.value.fields) == {"email": "This field is required."}
    assert read_texts(params, optional=["email"]) == {}


def test_texts_names_everything_that_is_wrong() -> None:
    """One answer names every parameter that needs another look."""
    with pytest.raises(ValidationError) as refused:
        read_texts({"email": 1, "name": "x" * 11}, required=["email", "password"], optional=["name"], limit=10)
    assert dict(refused.value.fields) == {
        "email": "This must be text.",
        "password": "This field is required.",
        "name": "This text is too long.",
    }


def test_texts_has_a_limit() -> None:
    """A text may have as many characters as the limit says, and no more."""
    assert read_texts({"name": "é" * 10}, optional=["name"], limit=10) == {"name": "é" * 10}
    assert read_texts({"name": "x" * 4096}, optional=["name"]) == {"name": "x" * 4096}
    with pytest.raises(ValidationError):
        read_texts({"name": "x" * 4097}, optional=["name"])


@pytest.mark.parametrize("value", ["true", "on", "1", True])
def test_flag_is_set(value: Any) -> None:
    """A ticked box of a form, and JSON's true."""
    assert read_flag({"remember_me": value}, "remember_me") is True


@pytest.mark.parametrize("value", [None, "", "0", "false", "off", "TRUE", "yes", False, 1, 1.0, ["true"], {}], ids=repr)
def test_flag_is_not_set(value: Any) -> None:
    """Anything else is not, the number 1 included."""
    assert read_flag({"remember_me": value}, "remember_me") is False
    assert read_flag({}, "remember_me") is False
