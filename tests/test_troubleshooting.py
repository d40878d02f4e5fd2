"""docs/troubleshooting.md: the messages on the page are those of the code."""

import re
from pathlib import Path

import pytest

import asgi_auth

PAGE = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text("utf-8")
PACKAGE = Path(asgi_auth.__file__).parent  # in the tests of the wheel: of the wheel
CODE = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))))
"""The code, with texts that span several lines joined."""


@pytest.mark.parametrize(
    "text",
    [
        "ends with a slash",
        "the value is empty",
        "base_url must be https, not ",
        "has a wildcard: name each origin",
        ": auth must be an Authentication, not ",
        ": the class is mounted, not an instance",
        " takes neither 'request' nor 'websocket'",
        "register_fields: the store does not keep ",
        "register_fields: the function of ",
        " must take one argument",
        " raised TypeError",
        "There is no Content-Type header",
        "The body is JSON, but the Content-Type header says ",
        "multipart/form-data is not supported",
        "the page's origin is neither base_url",
        "nor in allowed_origins",
        "the request shows a ",
        " looks at it",
        "require: wrap the application in SessionUserMiddleware or BearerUserMiddleware",
        " credential was refused: ",
        "was signed with another secret",
        "access token expired ",
        "by the clock that issued it",
        "the session is over",
        "This is not supported here.",
    ],
)
def test_troubleshooting_has_the_messages_of_the_code(text: str) -> None:
    """The page and the code contain the same message."""
    assert text in CODE
    assert text in PAGE
