"""The hops in X-Forwarded-For and Forwarded (RFC 7239 sections 4 and 6, without extensions)."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]

MAX_HOPS_CHARACTERS = 1024
"""The characters at the end of a header that are read, about twenty hops. A stranger can write the beginning."""

# One pair of an element, or an empty one, as in "for=192.0.2.1;;by=_gateway". Possessive, to take linear time.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # a token of RFC 9110 section 5.6.2
_PAIR = re.compile(rf'[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*+)")[ \t]*+)?(?:;|\Z)', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def hops(header: ForwardedHeader, values: Sequence[str]) -> Iterator[str]:
    """The client that each proxy reports, the last proxy first. It ends at the first malformed element.

    Everything to the left of this element is ignored, because that hop wrote it or passed it on.

    >>> list(hops("x-forwarded-for", ["198.51.100.1, 203.0.113.7"]))
    ['203.0.113.7', '198.51.100.1']
    >>> list(hops("forwarded", ["for=_hidden", 'For="[2001:db8::1]:4711";proto=https']))
    ['[2001:db8::1]:4711', '_hidden']

    Args:
        header: The name of the header.
        values: The value of every line of it, in order. The last 1,024 characters of all lines are read.

    Returns:
        Texts that may be addresses, with a port or without. Empty elements are left out (RFC 9110 section 5.6.1.2).
    """
    text = ",".join(values)
    if len(text) > MAX_HOPS_CHARACTERS:
        text = text[-MAX_HOPS_CHARACTERS:].partition(",")[2]  # the first element may be cut
    parts = (part.strip(" \t") for part in reversed(text.split(",")))
    return filter(None, parts) if header == "x-forwarded-for" else _nodes(parts)


def _nodes(parts: Iterator[str]) -> Iterator[str]:
    """The ``for`` of each element, from the parts between commas, both from the right.

    From the left, an open quotation mark of a stranger would hide the element that the proxy appended.
    """
    for part in parts:
        element = part
        while element.count('"') % 2 and (before := next(parts, None)) is not None:  # the comma was a quoted one
            element = f"{before},{element}"
        if element:
            node = _node(element)
            if node is None:
                return
            yield node


def _node(element: str) -> str | None:
    """The value of its only ``for``. Returns None if it has none or several, or if it is malformed."""
    nodes, position = [], 0
    while position < len(element):
        pair = _PAIR.match(element, position)
        if pair is None:
            return None
        name, token, quoted = pair.groups()
        if name is not None and name.lower() == "for":
            nodes.append(token or _QUOTED_PAIR.sub(r"\1", quoted))
        position = pair.end()
    return nodes[0] if len(nodes) == 1 else None
