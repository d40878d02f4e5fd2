"""Keys from the application's secret."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_auth.errors import ConfigurationError
from asgi_auth.protocol.keys import check_secret, derive_key, key_id, keyed_hash

SECRET = b"a7Kd93mXq0ZpLw58TnRvYc21BeUgHs64"
OTHER = "J8fW2xQz6nVt0RbM4yLkCp9sDhGe3uAi"


def test_derive_key_is_stable() -> None:
    """A derived key never changes, because issued cookies and tokens depend on it."""
    assert derive_key(SECRET, "cookie", "user").hex() == (
        "6bf5157061a185997da515a915b786dc3a162abfbdc870c282c213560de45e74"
    )


@pytest.mark.parametrize(
    ("use", "subject_name"), [("cookie", "admin"), ("token", "user"), ("cookieu", "ser"), ("", "cookieuser")]
)
def test_derive_key_differs_by_use_and_subject_name(use: str, subject_name: str) -> None:
    """TK-9, TK-23: another use or another kind of user gives another key, also if both texts together are equal."""
    assert derive_key(SECRET, "cookie", "user") != derive_key(SECRET, use, subject_name)


def test_derive_key_differs_by_secret() -> None:
    """TK-9: another secret gives another key."""
    assert derive_key(SECRET, "cookie", "user") != derive_key(OTHER.encode(), "cookie", "user")


@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_derive_key_is_unambiguous(pairs: list[tuple[str, str]]) -> None:
    """Two different pairs never share a key."""
    first, second = ([part.encode("utf-8", "replace").decode() for part in pair] for pair in pairs)

    assert (first == second) == (derive_key(SECRET, *first) == derive_key(SECRET, *second))


def test_keyed_hash_is_another_for_every_secret_kind_use_and_text() -> None:
    """TK-9, TK-23: another secret, kind of user, use or text gives another hash."""
    first = keyed_hash(SECRET, "user", "counter", "a@x.example")
    assert first == keyed_hash(SECRET, "user", "counter", "a@x.example")
    assert len(first) == 32
    others = [
        keyed_hash(OTHER.encode(), "user", "counter", "a@x.example"),
        keyed_hash(SECRET, "admin", "counter", "a@x.example"),
        keyed_hash(SECRET, "user", "invitation", "a@x.example"),
        keyed_hash(SECRET, "user", "counter", "b@x.example"),
        keyed_hash(SECRET, "user", "counter", "\ud800"),
    ]
    assert len({first, *others}) == 6


def test_key_id_is_short_and_says_nothing_of_the_key() -> None:
    """The key id is 16 hexadecimal digits, is not a part of the key, and differs for each key."""
    key = derive_key(SECRET, "token", "user")

    assert len(key_id(key)) == 16
    assert key_id(key) not in key.hex()
    assert key_id(key) != key_id(derive_key(SECRET, "token", "admin"))


def test_check_secret_takes_one() -> None:
    """Text is encoded as UTF-8; bytes are unchanged."""
    assert check_secret(SECRET) == (SECRET,)
    assert check_secret(SECRET.decode()) == (SECRET,)


def test_check_secret_keeps_the_order() -> None:
    """TK-16: the newest secret stays first."""
    assert (OTHER.encode(), SECRET) == check_secret([OTHER, SECRET])


@pytest.mark.parametrize(
    "secret",
    [
        "",
        b"",
        [],
        [SECRET, ""],
        "too short",
        b"a7Kd93mXq0ZpLw58TnRvYc21BeUgHs6",
        "a" * 64,
        "ab" * 32,
        "abcdefg" * 6,
        "k3Jx9Qw2Lp7Zt5Vb" * 2,
        "k3Jx9Qw2Lp7Zt5Vb" * 2 + "k3Jx9",
        "0132210332100123321001230123132031020312",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "ZYXWVUTSRQPONMLKJIHGFEDCBA9876543210",
        bytes(range(32)),
        bytes(range(0, 128, 2)),
        "changeme-7Kd93mXq0ZpLw58TnRvYc21BeUgHs64",
        "please-change-me-7Kd93mXq0ZpLw58TnRvYc21",
        "your-secret-key-7Kd93mXq0ZpLw58TnRvYc21B",
        "my PASSWORD 7Kd93mXq0ZpLw58TnRvYc21BeUgH",
        "django-insecure-7Kd93mXq0ZpLw58TnRvYc21B",
        b"This is only an Example 7Kd93mXq0ZpLw58T",
        "placeholder 7Kd93mXq0ZpLw58TnRvYc21BeUgH",
        [SECRET, "changeme-7Kd93mXq0ZpLw58TnRvYc21BeUgHs64"],
    ],
    ids=repr,
)
def test_check_secret_refuses_what_can_be_guessed(secret: str | bytes | Sequence[str | bytes]) -> None:
    """A short, repetitive, sequential or example secret is rejected; the error names the parameter, not the value."""
    with pytest.raises(ConfigurationError, match=r"^pepper ") as caught:
        check_secret(secret, parameter="pepper")

    assert "7Kd93mXq" not in str(caught.value)


@pytest.mark.parametrize("char", list("\t\n\r \0\x1b\x7f\x85\xa0\u2028\u2029\u200b\u3000\ufeff"), ids=ascii)
@pytest.mark.parametrize(
    ("form", "ends"),
    [("{1}{0}", "begins"), ("{0}{1}", "ends"), ("{1}{0}{1}", "begins and ends"), ("{1}", "begins and ends")],
)
def test_check_secret_refuses_text_with_invisible_ends(form: str, ends: str, char: str) -> None:
    """A text that ends with a line end or another invisible character is rejected; the message names it."""
    with pytest.raises(ConfigurationError, match=rf"^pepper {ends} with white space or a control character") as caught:
        check_secret([OTHER, form.format(SECRET.decode(), char)], parameter="pepper")

    assert "7Kd93mXq" not in str(caught.value)


@pytest.mark.parametrize("char", list("\t\n\r \0\x85\u3000\ufeff"), ids=ascii)
def test_check_secret_takes_invisible_characters_of_bytes_and_within_text(char: str) -> None:
    """Invisible characters in bytes, and inside a text, are accepted."""
    within, around = f"{OTHER}{char}{OTHER[::-1]}", f"{char}{OTHER}{char}".encode()

    assert check_secret([within, around]) == (within.encode(), around)


@pytest.mark.parametrize("secret", [17, [17], None, [None]], ids=repr)
def test_check_secret_refuses_other_types(secret: object) -> None:
    """A number, or None from an unset variable, is rejected by name."""
    with pytest.raises(ConfigurationError, match="secret"):
        check_secret(secret)  # type: ignore[arg-type]  # what a careless caller passes


@pytest.mark.parametrize("_", range(50))
def test_check_secret_passes_what_the_standard_library_makes(_: int) -> None:
    """Random secrets of 32 bytes pass in every usual form."""
    made: list[str | bytes] = [secrets.token_urlsafe(32), secrets.token_hex(32), secrets.token_bytes(32)]

    assert len(check_secret(made)) == 3


@given(st.integers(min_value=0))
def test_check_secret_passes_any_random_secret(seed: int) -> None:
    """A random secret passes for any seed."""
    value = Random(seed).randbytes(32)  # noqa: S311 - not a secret, a sample
    encoded = urlsafe_b64encode(value).rstrip(b"=")

    assert check_secret([value, value.hex(), encoded]) == (value, value.hex().encode(), encoded)


@given(st.one_of(st.text(), st.binary(), st.lists(st.one_of(st.text(), st.binary()))))
@example(OTHER)
@example("short")
def test_check_secret_never_fails_otherwise(secret: str | bytes | Sequence[str | bytes]) -> None:
    """Any value gives bytes or ConfigurationError."""
    try:
        checked = check_secret(secret)
    except ConfigurationError:
        return
    assert all(len(value) >= 32 for value in checked)
