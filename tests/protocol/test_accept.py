"""JSON or text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.protocol.accept import prefers_json


@pytest.mark.parametrize(
    ("accept", "with_form", "with_json"),
    [
        ([], False, True),
        ([""], False, True),
        (["*/*"], False, True),
        (["application/json"], True, True),
        (["Application/JSON"], True, True),
        (["application/problem+json"], True, True),
        (["application/*"], True, True),
        (["application/json, */*;q=0.5"], True, True),
        (["application/json;charset=utf-8;q=0.3"], True, True),
        (["application/json", "text/html;q=0.9"], True, True),
        (["application/json;q=0.9, text/html;q=0.8"], True, True),
        (["text/html, application/json"], False, True),
        (["application/json, text/plain, */*"], False, True),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], False, False),
        (["text/*"], False, False),
        (["text/plain;q=0.1"], False, False),
        (["text/html;q=0.1, application/json;q=0.2"], True, True),
        (["text/html;q=0.2, application/json;q=0.1"], False, False),
        (["application/json ; Q=0.5 , text/plain ; q=0.4"], True, True),
        (["text/html;q=0"], False, True),
        (["application/json;q=0"], False, True),
        (["application/json;q=0.000, text/html;q=0"], False, True),
        (["application/json;q=2"], False, True),
        (["application/json;q=nan, text/html;q=inf"], False, True),
        (["application/json;q="], False, True),
        (["application/json;q =0.5"], True, True),
        (["text/html;q=1.001"], False, True),
        (["image/png"], False, True),
        (["text/css"], False, True),
        (["application/jsonp, xapplication/json"], False, True),
        ([";;,,=;q"], False, True),
    ],
)
def test_prefers_json(accept: list[str], with_form: bool, with_json: bool) -> None:
    """The type with the higher quality is used; if both are equal, the type of the request body."""
    assert prefers_json(accept, json_body=False) is with_form
    assert prefers_json(accept, json_body=True) is with_json


@given(st.lists(st.text(alphabet="aptextjson/*;q=01. ,+-")), st.booleans())
def test_prefers_json_never_raises(accept: list[str], json_body: bool) -> None:
    """An invalid header never raises."""
    assert prefers_json(accept, json_body=json_body) in (True, False)
