"""Media types, JSON and forms."""

import json
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_auth.errors import MalformedRequestError, MediaTypeError
from asgi_auth.protocol.body import media_type, parse_form, parse_json
from tests.timing import least


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"application/json", "json"),
        (b"Application/JSON", "json"),
        (b" application/json ", "json"),
        (b"application/json; charset=utf-8", "json"),
        (b"application/json;charset=UTF-8", "json"),
        (b'application/json ; Charset="UTF-8" ; version=1', "json"),
        (b"application/json;", "json"),
        (b"application/json;;", "json"),
        (b"application/x-www-form-urlencoded", "form"),
        (b"application/x-www-form-urlencoded; charset=utf-8", "form"),
    ],
)
def test_media_type(value: bytes, kind: str) -> None:
    """RP-2: both types are accepted, in any case and with parameters."""
    assert media_type(value) == kind


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"json",
        b"application",
        b"application/",
        b"text/plain",
        b"text/plain; application/json",
        b"text/plain; x=application/json",
        b'text/plain; x="application/json"',
        b"text/plain;charset=utf-8,application/json",
        b"application/json, text/plain",
        b"application/json,application/json",
        b"text/plain application/json",
        b"application/json text/plain",
        b"xapplication/json",
        b"application/jsonp",
        b"application/json\x00",
        b"application/json\n",
        b"application /json",
        b"application/problem+json",
        b"application/vnd.api+json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=application/json",
        b"multipart/form-data; boundary=x; x=application/x-www-form-urlencoded",
        b"application/json; charset=utf-16",
        b"application/json; charset=iso-8859-1",
        b"application/json; charset=",
        b'application/json; charset=""',
        b"application/json; charset=utf-8; charset=utf-16",
        b"application/json; charset=utf-8; charset=utf-8",
        b'application/json; charset="utf-8',
        b"application/json; charset = utf-8",
        b"application/json; charset",
        b"application/json; x=(y)",
        b"application/x-www-form-urlencoded; charset=windows-1252",
        b"application/json; x=" + b"y" * 256,
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_media_type_refuses(value: bytes | None) -> None:
    """RP-2, CF-4: any other type is rejected, also one that only contains a supported type."""
    with pytest.raises(MediaTypeError):
        media_type(value)


@given(st.one_of(st.binary(), st.binary().map(b"application/json;".__add__)))
def test_media_type_never_fails_otherwise(value: bytes) -> None:
    """An invalid value raises MediaTypeError."""
    with suppress(MediaTypeError):
        assert media_type(value) in ("json", "form")


def _nested(depth: int) -> bytes:
    """An object with arrays that are nested to *depth*."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b"{}", {}),
        (b" \r\n{ }\t", {}),
        (b'{"email": "a@example.com", "remember_me": true}', {"email": "a@example.com", "remember_me": True}),
        (b'{"a": [1, -2, 0.5, null, false, {"a": "b"}]}', {"a": [1, -2, 0.5, None, False, {"a": "b"}]}),
        ('{"ä": "\U0001f600"}'.encode(), {"ä": "\U0001f600"}),
        (b'{"a": "\\ud83d\\ude00 \\\\ud800"}', {"a": "\U0001f600 \\ud800"}),
        (b'{"a": "[[[[[[[[[[[[[[[[[[[[ \\" ]{{{"}', {"a": '[[[[[[[[[[[[[[[[[[[[ " ]{{{'}),
        (b'{"a": 9223372036854775807}', {"a": 9223372036854775807}),
        (b'{"a": -9223372036854775807}', {"a": -9223372036854775807}),
        (b'{"a": "\\u0000"}', {"a": "\x00"}),
        (_nested(16), {"a": [[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}),
    ],
    ids=repr,
)
def test_parse_json(body: bytes, value: dict[str, Any]) -> None:
    """RFC 8259 section 4: an object is returned unchanged."""
    assert parse_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"null",
        b"[]",
        b'"a"',
        b"1",
        b"{",
        b"{}{}",
        b"{} x",
        b'{"a"}',
        b"{'a': 1}",
        b"{a: 1}",
        b'{"a": 1,}',
        b'{"a": 01}',
        b'{"a": "\n"}',
        b'{"a": "\\x"}',
        b'{"a": "\\',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": [-1e999]}',
        b'{"a": 9223372036854775808}',
        b'{"a": -9223372036854775808}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        '{"a": 1}'.encode("utf-32"),
        '{"a": "ä"}'.encode("latin-1"),
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xc0\xaf"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": [{"b": ["\\uDFFF"]}]}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"\\ud800": 1, "\\ud800": 2}',
        b"{" + b",".join(b'"%d":1' % i for i in range(51)) + b"}",
        _nested(17),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":"\\u0022' + b"[" * 100,
        b"]" * 20 + b"[" * 20,
        b"\x00",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_parse_json_refuses(body: bytes) -> None:
    """RP-3: JSON that parsers read differently, or on which a decoder fails, is rejected."""
    with pytest.raises(MalformedRequestError):
        parse_json(body)


def test_parse_json_takes_fifty_members() -> None:
    """Fifty are accepted; the test above rejects one more."""
    assert len(parse_json(json.dumps(dict.fromkeys(map(str, range(50)), 1)).encode())) == 50


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"email": "v", "email": "a"}', {"email": "This was given twice."}),
        (b'{"\\ud800": "v", "\\ud800": "a"}', {"?": "This was given twice."}),
    ],
)
def test_parse_json_names_what_was_given_twice(body: bytes, fields: dict[str, str]) -> None:
    """RP-3: the error names the member that was given twice, in a form that can be sent to the client."""
    with pytest.raises(MalformedRequestError) as caught:
        parse_json(body)

    assert caught.value.fields == fields


TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, VALUES, max_size=5), st.booleans())
def test_parse_json_round_trip(value: dict[str, Any], ensure_ascii: bool) -> None:
    """The output of the standard library is parsed to the same values."""
    assert parse_json(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@given(st.one_of(st.binary(), st.text(alphabet='{}[]":,\\u0dD8ae1-.').map(str.encode)))
@example(b"{}")
@example(b"{")
def test_parse_json_never_fails_otherwise(body: bytes) -> None:
    """Any bytes give an object or MalformedRequestError."""
    try:
        value = parse_json(body)
    except MalformedRequestError:
        return
    assert isinstance(value, dict)


@pytest.mark.parametrize(
    "body",
    [
        b'"' * 65536,
        b'"' + b'\\"' * 32767,
        b"[" * 65536,
        b'{"a":' * 13107,
        b"\\" * 65536,
        b"1" * 65536,
        b"[" + b"1," * 32767,
    ],
    ids=lambda body: repr(body[:8]),
)
def test_parse_json_takes_linear_time(body: bytes) -> None:
    """DO-4: 64 KiB of anything are refused in under 50 ms."""

    def refuse() -> None:
        with pytest.raises(MalformedRequestError):
            parse_json(body)

    assert least(refuse) < 0.05


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b"&&", {}),
        (b"email=a%40example.com&password=a+b%2B", {"email": "a@example.com", "password": "a b+"}),
        (b"a", {"a": ""}),
        (b"a=&b==c", {"a": "", "b": "=c"}),
        (b"=x", {"": "x"}),
        (b"&a=1&", {"a": "1"}),
        (b"%61=%c3%a4%C3%A4", {"a": "ää"}),
        ("ä=€".encode(), {"ä": "€"}),
        (b"a=%00", {"a": "\x00"}),
        (b"a[]=1&A[]=2", {"a[]": "1", "A[]": "2"}),
    ],
)
def test_parse_form(body: bytes, value: dict[str, str]) -> None:
    """URL Standard section 5.1: forms are read as browsers send them."""
    assert parse_form(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"%=a",
        b"a=%u0041",
        b"a=%ff",
        b"a=\xff",
        b"%c3=a",
        b"a=%ed%a0%80",
        b"a=%c0%af",
        b"a=1&a=1",
        b"a=1&%61=2",
        b"a+b=1&a%20b=2",
        b"&".join(b"f%d=1" % i for i in range(51)),
        "a=ä".encode("utf-16"),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_parse_form_refuses(body: bytes) -> None:
    """RP-4: forms that parsers read differently are rejected."""
    with pytest.raises(MalformedRequestError):
        parse_form(body)


def test_parse_form_takes_fifty_fields() -> None:
    """Fifty are accepted; the test above rejects one more."""
    assert len(parse_form(b"&".join(b"f%d=1" % i for i in range(50)))) == 50


def test_parse_form_names_what_was_given_twice() -> None:
    """RP-4: ``email=v&email=a`` never becomes one of the two."""
    with pytest.raises(MalformedRequestError) as caught:
        parse_form(b"email=v&x=1&email=a")

    assert caught.value.fields == {"email": "This was given twice."}


@given(st.dictionaries(TEXT.filter(bool), TEXT))
def test_parse_form_round_trip(value: dict[str, str]) -> None:
    """The output of the standard library is parsed to the same values."""
    assert parse_form(urlencode(value).encode()) == value


@given(st.one_of(st.binary(), st.text(alphabet="ab=&%+0fF").map(str.encode)))
@example(b"a=b")
@example(b"a=b&a=b")
@example(b'{"a": "b"}')
def test_parse_form_never_fails_otherwise(body: bytes) -> None:
    """Any bytes give fields, MalformedRequestError, or MediaTypeError for JSON."""
    try:
        fields = parse_form(body)
    except MediaTypeError:
        assert body.lstrip().startswith(b"{")
        return
    except MalformedRequestError:
        return
    assert all(isinstance(value, str) for value in fields.values())


@pytest.mark.parametrize("mark", [",", "[", "{", '"'])
def test_parse_json_takes_a_thousand_marks(mark: str) -> None:
    """DO-4: the characters that cost a decoder time are counted before it decodes, at any place."""
    body = '{"a": ""}'  # has five
    marks = ('\\"' if mark == '"' else mark) * 995
    most = body.replace('""', f'"{marks}"')
    assert len(parse_json(most.encode())["a"]) == 995
    with pytest.raises(MalformedRequestError) as caught:
        parse_json(most.replace('""', '","').replace(marks, marks + ",").encode())
    assert caught.value.reason == "there are too many values"


def test_parse_json_takes_no_longer_number_than_is_stored() -> None:
    """DO-4: the digits of an integer are counted before they are read."""
    with pytest.raises(MalformedRequestError):
        parse_json(b'{"a": 000000000000000000001}')
    with pytest.raises(MalformedRequestError):
        parse_json(b'{"a": 1' + b"0" * 4000 + b"}")


def test_parse_form_counts_fields_before_it_decodes_them() -> None:
    """DO-4: empty fields count, too; one empty field more is allowed at the end."""
    assert parse_form(b"&" * 50) == {}
    with pytest.raises(MalformedRequestError) as caught:
        parse_form(b"&" * 51)
    assert caught.value.reason == "there are too many fields"


@given(st.binary() | st.text(alphabet="%\\xuUN0aF'+\n\r{}é").map(str.encode))
def test_parse_form_decodes_as_the_standard_library(part: bytes) -> None:
    """URL Standard section 5.1: a backslash, a quotation mark and a line end have no special meaning."""
    part = part.replace(b"&", b"").replace(b"=", b"")
    try:
        value = parse_form(b"a=" + part)["a"]
    except MalformedRequestError:
        return
    assert value.encode() == unquote_to_bytes(part.replace(b"+", b" "))
